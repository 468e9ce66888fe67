"""Batch norm over the global batch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml
from fakes import ROOT, Worlds
from torch import Tensor, nn

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.models.genre_cnn import GenreCNN
from parallel_tunes.parallel.batch_norm import SyncBatchNorm2d, synchronise, weigh
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build
from parallel_tunes.train.gradient import GradientLearner
from parallel_tunes.train.learner import Batch

LAST = torch.channels_last
# samples of the ranks, of 7; a rank without any stands in with sample 0, which then weighs nothing
PARTS = {1: [range(7)], 2: [range(5), range(5, 7)], 3: [range(4), range(0), range(4, 7)]}


def pair(num_channels: int = 5) -> tuple[nn.BatchNorm2d, SyncBatchNorm2d]:
    """A batch norm with parameters and running statistics of its own, and its synchronised twin in a world of one."""
    norm = nn.BatchNorm2d(num_channels)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 1.5)
    twin = synchronise(copy.deepcopy(norm), Mesh())
    assert isinstance(twin, SyncBatchNorm2d)
    return norm, twin


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def passes(norm: nn.Module, inputs: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Output, and gradients of input, weight and bias."""
    inputs = inputs.detach().requires_grad_()
    outputs = norm(inputs)
    grads = torch.autograd.grad(outputs, [inputs, *norm.parameters()], grad)
    return dict(zip(("output", "input", "weight", "bias"), (outputs.detach(), *grads), strict=True))


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-5) -> None:
    """Equal names, dtypes and, relative to the largest of each tensor, values."""
    assert one.keys() == other.keys()
    for name, tensor in other.items():
        assert one[name].dtype == tensor.dtype
        assert float((one[name] - tensor).abs().max()) <= rtol * float(tensor.abs().max()), name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_a_world_of_one_is_plain_batch_norm(
    dtype: torch.dtype, rtol: float, memory_format: torch.memory_format
) -> None:
    norm, twin = pair()
    if dtype == torch.float64:
        norm, twin = norm.double(), twin.double()
    for seed in range(2):
        inputs = draw(4, 5, 6, 7, seed=seed).to(dtype).contiguous(memory_format=memory_format)
        grad = draw(4, 5, 6, 7, seed=9).to(dtype)  # not in the inputs' memory format
        wanted, found = passes(norm, inputs, grad), passes(twin, inputs, grad)
        assert all(found[name].is_contiguous(memory_format=memory_format) for name in ("output", "input"))
        assert_close(found, wanted, rtol)
        assert_close(dict(twin.named_buffers()), dict(norm.named_buffers()), min(rtol, 1e-5))
    norm.load_state_dict(twin.state_dict())
    norm.eval()
    twin.eval()
    assert torch.equal(norm(inputs), twin(inputs))


def test_uncounted_samples_change_nothing_for_the_others() -> None:
    norm, twin = pair()
    weights = torch.tensor([1.0, 0.0, 1.0, 0.0])
    weigh(twin, weights)
    inputs, grad = draw(4, 5, 6, 7), draw(4, 5, 6, 7, seed=9) * weights.view(-1, 1, 1, 1)
    wanted, found = passes(norm, inputs[weights > 0], grad[weights > 0]), passes(twin, inputs, grad)
    assert not found["input"][weights == 0].any()
    found |= {name: found[name][weights > 0] for name in ("output", "input")}
    assert_close(found, wanted)
    assert_close(dict(twin.named_buffers()), dict(norm.named_buffers()))


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 0, 1]])
def test_gradients_are_those_of_finite_differences(weights: list[float]) -> None:
    """Also where uncounted samples have gradients, which no stand-in has: they go through the statistics of the others."""
    twin = pair(2)[1].double()
    weigh(twin, torch.tensor(weights))
    names = ("weight", "bias")

    def normalise(inputs: Tensor, *parameters: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(twin, dict(zip(names, parameters, strict=True)), (inputs,))
        return found

    inputs = draw(3, 2, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(normalise, (inputs, twin.weight, twin.bias))


def test_a_model_is_converted_in_place() -> None:
    model = GenreCNN(3, [4, 8])
    before, keys = dict(model.named_parameters()), list(model.state_dict())
    assert synchronise(model, Mesh()) is model
    assert list(model.state_dict()) == keys
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert sum(isinstance(module, SyncBatchNorm2d) for module in model.modules()) == 2
    with pytest.raises(TypeError, match="BatchNorm1d"):
        synchronise(nn.Sequential(nn.BatchNorm1d(3)), Mesh())


def test_autocast_keeps_statistics_in_full_precision() -> None:
    model = synchronise(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), Mesh())
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(draw(4, 3, 8, 9).contiguous(memory_format=LAST))
    outputs.float().square().sum().backward()
    assert outputs.dtype == torch.bfloat16
    assert outputs.is_contiguous(memory_format=LAST)
    assert all(tensor.dtype == torch.float32 for name, tensor in model.named_buffers() if "running" in name)
    assert all(parameter.grad is not None for parameter in model.parameters())


def learn(mesh: Mesh, folder: Path | None = None) -> dict[str, dict[str, Tensor]]:
    """What a backward pass of the learner makes of this rank's part: gradients, buffers, and what the model then says."""
    torch.manual_seed(3)
    model = GenreCNN(3, [16, 6])  # the first of which is fused with what follows
    cfg = build(TrainConfig, yaml.safe_load((ROOT / "conf/train/default.yaml").read_text()) | {"precision": "fp32"})
    learner = GradientLearner(model, cfg, mesh, mean_db=0.0, deviation_db=1.0, total_steps=9, lr=1e-3)
    ids = list(PARTS[mesh.world_size][mesh.rank])
    weight, ids = (1.0, ids) if ids else (0.0, [0])
    inputs, targets = draw(7, 12, 9)[ids], (torch.arange(7) % 3)[ids]
    batch = Batch(
        inputs, targets, torch.full((len(ids),), weight), torch.zeros(len(ids), dtype=torch.int64), 7, torch.tensor(ids)
    )
    learner._backward(batch)
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(grads) == len(list(model.parameters()))
    return {"grads": grads, "buffers": dict(model.named_buffers()), "says": {"": learner.predict(draw(7, 12, 9))}}


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_unequal_parts_learn_as_the_whole_batch_does(ranks: int, worlds: Worlds) -> None:
    """Through DDP, with a rank whose only sample is a stand-in; the whole batch goes through nn.BatchNorm2d."""
    mesh = Mesh()
    mesh.start("cpu", 10)
    wanted = learn(mesh)
    found = worlds(ranks, "learn")
    for rank in found:
        for kind, tensors in wanted.items():
            assert_close(rank[kind], tensors)
            assert all(torch.equal(rank[kind][name], found[0][kind][name]) for name in tensors)
