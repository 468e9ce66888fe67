from __future__ import annotations

import copy

import pytest
import torch
from fakes import assert_same_on_threads
from torch import Tensor, nn

from parallel_tunes.lanes import LANES
from parallel_tunes.models.genre_cnn import GenreCNN
from parallel_tunes.parallel.batch_norm import weigh
from parallel_tunes.train.norm_pool import fuse
from parallel_tunes.train.stem import Deferred, StemPool, fuse_stem

NUM = 2 * len(LANES)


def block() -> nn.Sequential:
    """Convolution, batch norm, ReLU and pooling, of some factors below zero."""
    norm, pool = nn.BatchNorm2d(NUM), nn.MaxPool2d(2, ceil_mode=True)
    made = nn.Sequential(nn.Conv2d(1, NUM, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True), pool)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.3 if "running" in name else -1.0, 2.0, generator=generator)
    return made


def joined(plain: nn.Sequential) -> nn.Sequential:
    """A copy whose layers are one."""
    made = fuse(copy.deepcopy(plain))
    fuse_stem(made)
    assert isinstance(made[0], Deferred)
    assert isinstance(made[1], StemPool)
    return made


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


def passes(model: nn.Sequential, inputs: Tensor, slopes: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics."""
    out = model(inputs)
    out.backward(slopes.to(out.dtype))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {"out": out.detach(), **gradients, **{f"{name}!": buffer for name, buffer in model.named_buffers()}}


@pytest.mark.parametrize("shape", [(4, 9, 13), (3, 8, 8), (2, 1, 5), (5, 37, 2), (1, 2, 2), (2, 64, 70)])
def test_it_is_the_layers_one_after_the_other(shape: tuple[int, int, int]) -> None:
    """As close to float64 as float32 allows."""
    plain = block()
    num, height, width = shape
    inputs, slopes = draw(num, 1, height, width), draw(num, NUM, -(-height // 2), -(-width // 2), seed=2)
    ours = passes(joined(plain), inputs, slopes)
    exact = passes(copy.deepcopy(plain).double(), inputs.double(), slopes.double())
    assert ours.keys() == exact.keys()
    assert len([name for name in ours if name.endswith("weight")]) == 2
    for name, wanted in exact.items():
        assert ours[name].shape == wanted.shape
        assert float((ours[name].double() - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max()), name


def test_autocast_gives_bfloat16_and_parameters_of_float32() -> None:
    model, inputs, slopes = joined(block()), draw(3, 1, 12, 10), draw(3, NUM, 6, 5, seed=2)
    whole = passes(joined(block()), inputs, slopes)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(inputs)
    out.backward(slopes.bfloat16())
    assert out.dtype == torch.bfloat16
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, whole["out"].bfloat16())
    assert all(parameter.grad is not None and parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_threads_change_no_bit() -> None:
    inputs, slopes = draw(7, 1, 12, 10), draw(7, NUM, 6, 5, seed=2)
    assert_same_on_threads(lambda: passes(joined(block()), inputs, slopes))


@pytest.mark.parametrize("how", ["answers", "weights", "gradients of the input", "float64"])
def test_where_the_kernel_cannot_go_torch_does(how: str) -> None:
    plain = block()
    ours = joined(plain)
    inputs, weights = draw(4, 1, 6, 7), torch.ones(4)
    if how == "answers":
        plain.eval(), ours.eval()
    elif how == "weights":  # a sample that does not count, at the end
        weights[3] = 0
    elif how == "float64":
        plain, ours, inputs = plain.double(), ours.double(), inputs.double()
    else:
        inputs.requires_grad_()
    weigh(ours, weights)
    num = int(weights.sum())
    torch.testing.assert_close(ours(inputs)[:num], plain(inputs[:num]))


def test_a_model_keeps_its_names_and_its_parameters() -> None:
    model = GenreCNN(3, [NUM, NUM])
    before, names = dict(model.named_parameters()), list(model.state_dict())
    fuse_stem(fuse(model))
    assert sum(isinstance(layer, StemPool) for layer in model.modules()) == 1
    assert list(model.state_dict()) == names
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == {
        name: id(parameter) for name, parameter in before.items()
    }
