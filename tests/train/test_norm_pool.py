from __future__ import annotations

import copy

import pytest
import torch
from fakes import assert_same_on_threads
from torch import Tensor, nn

from parallel_tunes.lanes import LANES
from parallel_tunes.models.genre_cnn import GenreCNN
from parallel_tunes.train.norm_pool import NormPool, fuse

NUM = 2 * len(LANES)


def layers(num_channels: int = NUM) -> nn.Sequential:
    """Batch norm, ReLU and pooling, of some factors below zero."""
    made = nn.Sequential(nn.BatchNorm2d(num_channels), nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True))
    generator = torch.Generator().manual_seed(1)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(-1.0 if name == "0.weight" else 0.3, 2.0, generator=generator)
    return made


def draw(*shape: int, seed: int = 0) -> Tensor:
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1
    return maps.contiguous(memory_format=torch.channels_last)


def passes(model: nn.Sequential, inputs: Tensor, slopes: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics."""
    inputs = inputs.clone().requires_grad_()
    out = model(inputs)
    out.backward(slopes)
    assert inputs.grad is not None
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    found = {"out": out.detach(), "inputs": inputs.grad, "mean": norm.running_mean, "variance": norm.running_var}
    found |= {"weight": norm.weight.grad, "bias": norm.bias.grad, "batches": norm.num_batches_tracked}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("shape", [(4, 9, 13), (3, 8, 8), (2, 1, 5), (5, 7, 2), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_batch_norm_relu_and_pooling(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """As close to float64 as bfloat16 allows, and closer than torch's own layers one after the other."""
    plain = layers()
    fused = fuse(copy.deepcopy(plain))
    assert isinstance(fused[0], NormPool)
    num, height, width = shape
    inputs = draw(num, NUM, height, width).to(dtype)
    slopes = draw(num, NUM, -(-height // 2), -(-width // 2), seed=2).to(dtype)
    ours = passes(fused, inputs, slopes)
    exact = passes(copy.deepcopy(plain).double(), inputs.double(), slopes.double())
    torchs = passes(plain, inputs, slopes)
    assert ours.keys() == exact.keys() == torchs.keys()
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-20
    for name, wanted in exact.items():
        assert ours[name].dtype == torchs[name].dtype
        unit = step if name in ("out", "inputs") else 2.0**-20
        scale = float(wanted.abs().max())
        assert float((ours[name].double() - wanted).abs().max()) <= unit * scale, name


def test_threads_change_no_bit() -> None:
    inputs, slopes = draw(7, NUM, 12, 10), draw(7, NUM, 6, 5, seed=2)
    assert_same_on_threads(lambda: passes(fuse(layers()), inputs, slopes))


@pytest.mark.parametrize(
    ("maps", "num_channels"),
    [
        (draw(3, NUM + 1, 6, 6), NUM + 1),  # no multiple of the lanes
        (draw(3, NUM, 6, 6).contiguous(), NUM),  # not channels last
        (draw(3, NUM, 6, 6).double(), NUM),
    ],
)
def test_where_the_kernel_cannot_go_torch_does(maps: Tensor, num_channels: int) -> None:
    plain = layers(num_channels).to(maps.dtype)
    fused = fuse(copy.deepcopy(plain))
    torch.testing.assert_close(fused(maps), plain(maps))


def test_answers_are_those_of_the_running_statistics() -> None:
    plain = layers().eval()
    fused = fuse(copy.deepcopy(plain))
    inputs = draw(3, NUM, 9, 6)
    with torch.inference_mode():
        torch.testing.assert_close(fused(inputs), plain(inputs))
    inputs.requires_grad_()  # asked for gradients, the compiled way does not go
    torch.testing.assert_close(fused(inputs), plain(inputs))
    assert fused(inputs).requires_grad


def test_what_is_not_finite_is_not_hidden() -> None:
    inputs = draw(3, NUM, 6, 6)
    inputs[1, 3, 2, 2] = torch.nan
    out = fuse(layers())(inputs)
    assert out[:, 3].isnan().all()
    assert out[:, 4].isfinite().all()


def test_a_model_keeps_its_names_and_its_parameters() -> None:
    model = GenreCNN(3, [NUM, NUM, NUM])
    before, names = dict(model.named_parameters()), list(model.state_dict())
    assert fuse(model) is model
    assert sum(isinstance(layer, NormPool) for layer in model.modules()) == 2  # the last block pools nothing
    assert list(model.state_dict()) == names
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert isinstance(fuse(fuse(model)), GenreCNN)
