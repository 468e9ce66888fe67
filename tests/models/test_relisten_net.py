from __future__ import annotations

import warnings
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import assert_same_on_threads
from torch import Tensor

from parallel_tunes.models.bag import Bags, Numbering, find_contexts, sum_bags
from parallel_tunes.models.kernels import count_threads, share, take_threads
from parallel_tunes.models.relisten_net import RelistenNet, RelistenSeed, cross_entropy
from parallel_tunes.models.rowwise_adagrad import RowwiseAdagrad, split_gradient
from parallel_tunes.models.star import Sizes

SIZES = Sizes(
    num_users=40, num_songs=90, row=(5, 9, 4), user=(41, 6), song=(92, 30, 8, 3),
    row_numbers=7, user_numbers=2, song_numbers=3,
)  # fmt: skip
Net = RelistenNet | RelistenSeed


def described(model: Net, seed: int = 0) -> Net:
    """`model`, its users and songs drawn at random."""
    rng, sizes = np.random.default_rng(seed), model.sizes
    for kind, num, num_numbers in (
        ("user", sizes.num_users, sizes.user_numbers),
        ("song", sizes.num_songs, sizes.song_numbers),
    ):
        codes = rng.integers(0, getattr(sizes, kind), (num, len(getattr(sizes, kind))))
        model.describe(kind, codes, rng.standard_normal((num, num_numbers)).astype(np.float32))
    return model


def net(sizes: Sizes = SIZES, dtype: torch.dtype = torch.float64, seed: int = 0) -> RelistenNet:
    torch.manual_seed(seed)
    model = described(RelistenNet(sizes, width=8, hidden=(6, 4), num_factors=2), seed)
    assert isinstance(model, RelistenNet)
    return model.to(dtype)


def rows(sizes: Sizes = SIZES, num: int = 300, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Codes, numbers, targets, and shares that differ."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, (sizes.num_users, sizes.num_songs, *sizes.row), (num, 2 + len(sizes.row)))
    numbers = rng.standard_normal((num, sizes.row_numbers))
    targets, shares = rng.integers(0, 2, num), rng.random(num) / num
    return torch.from_numpy(codes.astype(np.int32)), *(
        torch.from_numpy(part).to(dtype) for part in (numbers, targets, shares)
    )


def gradients(model: Net) -> dict[str, Tensor]:
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {name: grad.to_dense() if grad.is_sparse else grad for name, grad in found.items()}


def plain(model: RelistenNet, codes: Tensor, numbers: Tensor) -> Tensor:
    """The logits by one embedding for each column, added up row by row, as they are defined."""
    user, song = model.user_rows[codes[:, 0]], model.song_rows[codes[:, 1]]
    first = F.embedding(user, model.table).sum(1) @ model.project.weight.T
    second = F.embedding(song, model.table).sum(1) @ model.project.weight.T
    first = first + model.of_user(model.user_numbers[codes[:, 0]])
    second = second + model.of_song(model.song_numbers[codes[:, 1]])
    own = F.embedding(model.own_rows(codes), model.table).sum(1) @ model.project.weight.T
    h = model.num_hidden
    hidden = F.relu(first[:, :h] + second[:, :h] + own[:, :h] + model.of_row(numbers))
    logits = model.third(F.relu(model.second(hidden))).squeeze(1)
    return torch.as_tensor(logits + (first[:, h:] * second[:, h:]).sum(1))


@pytest.mark.parametrize("num", [1, 300])
def test_compiled_torch_and_plain_agree(num: int) -> None:
    codes, numbers, targets, shares = rows(num=num)
    found = []
    for way in ("compiled", "torch", "plain"):
        model = net()
        if way == "compiled":
            loss, logits = model.loss(codes, numbers, targets, shares)
            assert torch.equal(model(codes, numbers), logits)
        else:
            score = model._score if way == "torch" else lambda *words, model=model: plain(model, *words)
            loss, logits = cross_entropy(score(codes, numbers), targets, shares)
        torch.autograd.backward(loss)
        found.append({"loss": loss.detach(), "logits": logits, **gradients(model)})
    assert len(found[0]) == 2 + len(list(model.parameters()))
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_differences() -> None:
    """Of the layers, by autograd.gradcheck; the table's is sparse, which that refuses: by differences in a direction."""
    sizes = Sizes(
        num_users=3, num_songs=4, row=(2,), user=(3,), song=(4, 2), row_numbers=2, user_numbers=1, song_numbers=0
    )
    model = net(sizes)
    batch = rows(sizes, 9)
    layers = [each for name, each in model.named_parameters() if name != "table" and each.numel()]
    model.table.requires_grad_(False)
    assert torch.autograd.gradcheck(lambda *_: model.loss(*batch)[0], layers)
    model.table.requires_grad_(True)
    torch.autograd.backward(model.loss(*batch)[0])
    direction, start = torch.randn_like(model.table), model.table.detach().clone()
    losses = []
    for way in (1e-6, -1e-6):
        model.table.data.copy_(start + way * direction)
        losses.append(float(model.loss(*batch)[0].detach()))
    along = float((gradients(model)["table"] * direction).sum())
    assert along == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-6)
    assert abs(along) > 1e-4


def test_only_touched_rows_have_a_gradient_and_change() -> None:
    model, (codes, *rest) = net(), rows(num=20)
    torch.autograd.backward(model.loss(codes, *rest)[0])
    grad = model.table.grad
    assert grad is not None
    assert grad.is_sparse
    touched, slopes = split_gradient(grad)
    assert touched.tolist() == sorted(set(model.rows_of(codes).flatten().tolist()))
    assert slopes.abs().sum(1).gt(0).all()
    before, optimizer = model.table.detach().clone(), RowwiseAdagrad(model.tables(), lr=0.1)
    optimizer.step()
    changed = (model.table != before).any(1)
    assert changed.nonzero().flatten().tolist() == touched.tolist()
    squares = optimizer.state[model.table]["squares"]
    assert squares.nonzero().flatten().tolist() == touched.tolist()


def test_rowwise_adagrad_is_what_it_says() -> None:
    """Three steps against its definition, compiled and on other devices; rows may come unsorted and twice."""
    torch.manual_seed(0)
    start = torch.randn(50, 8, dtype=torch.float64)
    wanted, squares, table = start.clone(), torch.zeros_like(start[:, 0]), torch.nn.Parameter(start.clone())
    optimizer = RowwiseAdagrad([table], lr=0.3, eps=1e-6)
    for step in range(3):
        touched, slopes = torch.tensor([40, 3, 3, 17 + step]), torch.randn(4, 8, dtype=torch.float64)
        table.grad = torch.sparse_coo_tensor(touched[None], slopes, table.shape, check_invariants=True)
        optimizer.step()
        dense = torch.zeros_like(start).index_add_(0, touched, slopes)
        squares += dense.square().mean(1)
        wanted -= 0.3 * dense / (squares.sqrt() + 1e-6)[:, None]
        torch.testing.assert_close(table.detach(), wanted)
    from parallel_tunes.models import rowwise_adagrad

    one, other = [(start.clone(), torch.zeros_like(start[:, 0])) for _ in range(2)]
    for change, state in ((rowwise_adagrad._change, one), (rowwise_adagrad._change_compiled, other)):
        for _ in range(2):
            change(*state, torch.tensor([1, 4]), start[:2], 0.1, 1e-6)
    torch.testing.assert_close(one, other)


def test_bits_do_not_depend_on_threads() -> None:
    codes, numbers, targets, shares = rows(num=3000)

    def learn() -> dict[str, Tensor]:
        model = net()
        optimizer = RowwiseAdagrad(model.tables(), lr=0.1)
        with take_threads():
            loss, logits = model.loss(codes, numbers, targets, shares)
            torch.autograd.backward(loss)
            optimizer.step()
        return {"logits": logits, "stepped": model.table.detach(), **gradients(model)}

    assert_same_on_threads(learn)


def test_without_columns_and_numbers() -> None:
    sizes = Sizes(num_users=3, num_songs=2, row=(), user=(3,), song=(2,), row_numbers=0, user_numbers=0, song_numbers=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = net(sizes)
    codes, numbers, targets, shares = rows(sizes, 50)
    torch.testing.assert_close(model(codes, numbers), plain(model, codes, numbers))
    torch.autograd.backward(model.loss(codes, numbers, targets, shares)[0])
    assert gradients(model)["table"].abs().sum() > 0


def test_codes_that_are_not_known_are_refused() -> None:
    """Compiled code would read beyond its arrays."""
    for column, bad in product(range(5), (-1, 1000)):
        codes, numbers, *_ = rows()
        codes[7, column] = bad
        with pytest.raises(IndexError, match="known"):
            net()(codes, numbers)
        codes[7, column] = 0
    with pytest.raises(ValueError, match="songs: codes from"):
        net().describe("song", np.full((90, 4), 8), np.zeros((90, 3), np.float32))
    with pytest.raises(ValueError, match="users: "):
        net().describe("user", np.zeros((41, 2), int), np.zeros((41, 2), np.float32))


def test_nan_is_not_lost() -> None:
    """A ReLU or a maximum that swallowed it would hide that a training has diverged."""
    model, (codes, numbers, *_) = net(), rows()
    with torch.no_grad():
        model.of_row.weight[0, 0] = torch.nan
    assert model(codes, numbers).isnan().all()


def test_contexts_of_any_number() -> None:
    rng = np.random.default_rng(0)
    for num_codes in ((5, 9, 4), (2_000_000, 3_000_000, 1_500_000, 7), ()):
        codes = rng.integers(0, num_codes, (200, len(num_codes)), np.int32) // 3 * 3
        codes = np.concatenate([codes, codes[::2]]).astype(np.int32)
        contexts, places = find_contexts(codes, num_codes)
        assert np.array_equal(contexts[places], codes)
        assert len(contexts) == len(np.unique(codes, axis=0))


def test_a_bag_is_a_sum_of_embeddings() -> None:
    """Of two kinds of entities that have a column in common with none."""
    torch.manual_seed(0)
    table, weight = torch.randn(30, 8, dtype=torch.float64, requires_grad=True), torch.eye(8).double()
    addresses = [np.array([[0, 12], [5, 12], [9, 11], [0, 19]], np.int32), np.array([[20], [29]], np.int32)]
    bounds, numbers = [(0, 10, 20), (20, 30)], [np.zeros((4, 0)), np.zeros((2, 0))]
    kinds = [Bags(*each) for each in zip(addresses, bounds, numbers, strict=True)]
    bags = sum_bags(table, weight, [torch.zeros(8, 0).double()] * 2, kinds, Numbering(30))
    wanted = torch.cat([F.embedding(torch.from_numpy(each), table).sum(1) for each in addresses])
    torch.testing.assert_close(bags, wanted)
    slopes = torch.randn_like(bags)
    found = torch.autograd.grad(bags, table, slopes)[0].to_dense()
    torch.testing.assert_close(found, torch.autograd.grad(wanted, table, slopes)[0])


def test_the_seed_lays_columns_side_by_side() -> None:
    torch.manual_seed(0)
    model = described(RelistenSeed(SIZES, width=4)).double()
    codes, numbers, targets, shares = rows()
    table = model.rows_of(codes)
    assert len(set(table[:, 0].tolist()) & set(table[:, 2].tolist())) == 0  # user and song
    assert table.shape[1] == len(SIZES.columns)
    assert int(table.max()) < model.num_rows == sum(SIZES.columns)
    loss, logits = model.loss(codes, numbers, targets, shares)
    torch.autograd.backward(loss)
    assert logits.shape == (300,)
    assert set(gradients(model)) == {name for name, _ in model.named_parameters()}


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with take_threads():
        assert torch.get_num_threads() == 1
        with take_threads():
            assert count_threads() == before
        assert count_threads() == before
    assert torch.get_num_threads() == before
    assert share([partial(pow, at, 2) for at in range(50)]) == [at * at for at in range(50)]
    with pytest.raises(ZeroDivisionError):
        share([lambda: 1, lambda: 1 // 0, lambda: 1])
