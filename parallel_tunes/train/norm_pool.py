"""Batch norm, ReLU and 2 × 2 max pooling in one, for training on CPUs, where memory is what they cost.

One after the other they go through maps of full size about fourteen times, there and back. Here it is five times, and one
map is written: the moments; scaling, pooling and clipping at once, of which the output alone is kept, a quarter of the
size, and a byte for each value of it that says which of the four it came from; the sums that the gradient needs; and the
gradient. The arithmetic is that of torch.nn.BatchNorm2d (Ioffe & Szegedy 2015) in float32, on float32 or bfloat16 maps;
sums go through float64, image by image, so that no number of threads changes a bit.

Maps are channels last, (num, height, width, num_channels) in memory: the lanes of a register are channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parallel_tunes.lanes import LANES, compile_of, load, maximum, pick, splat, store
from parallel_tunes.parallel.batch_norm import ALONE, SyncBatchNorm2d, combine, sum_in_order

compiled = compile_of(__file__)
Model = TypeVar("Model", bound=nn.Module)
NOWHERE = 4  # a value that came from none of the four, as none was above zero


@compiled
def add_vector(total: Any, at: Any, value: Any, scratch: Any, lanes: Any) -> None:
    """Add a vector to float64 numbers."""
    store(scratch, 0, value)
    for lane in range(len(lanes)):
        total[at + lane] += scratch[lane]


@compiled
def add_moments(first: Any, last: Any, maps: Any, size: Any, pivot: Any, sums: Any, lanes: Any) -> None:
    """Sums of x - pivot and of its square over each image, sums (num, 2, num_channels), float64."""
    n, scratch, (height, width, channels) = len(lanes), np.empty(len(lanes), np.float32), size
    for row in range(first * height, last * height):
        for channel in range(0, channels, n):
            centre = load(pivot, channel, lanes)
            total = squares = splat(np.float32(0), lanes)
            for at in range(row * width * channels + channel, (row + 1) * width * channels + channel, channels):
                value = load(maps, at, lanes) - centre
                total = total + value
                squares = squares + value * value
            add_vector(sums[row // height, 0], channel, total, scratch, lanes)
            add_vector(sums[row // height, 1], channel, squares, scratch, lanes)


@compiled
def find_corners(first: Any, row: Any, column: Any, size: Any, across: Any, down: Any) -> Any:
    """Where the four places of a window lie; at the lower and right edges some of them are the same.

    Args:
        first: where the image's first place lies; `across` and `down` are the steps to the next ones.
    """
    at = first + 2 * row * down + 2 * column * across
    below = (min(2 * row + 1, size[0] - 1) - 2 * row) * down
    right = (min(2 * column + 1, size[1] - 1) - 2 * column) * across
    return at, at + right, at + below, at + below + right


@compiled
def store_largest(out: Any, origins: Any, to: Any, best: Any, origin: Any, lanes: Any) -> None:
    """Write the largest values of windows, or 0, and which of the four they are."""
    zero = splat(np.float32(0), lanes)
    store(origins, to, pick(best, zero, origin, splat(np.float32(NOWHERE), lanes)))
    store(out, to, pick(zero, best, zero, best))  # NaN stays


@compiled
def keep_own(value: Any, origin: Any, corner: Any, lanes: Any) -> Any:
    """`value` where it came from this one of the four, else 0."""
    zero = splat(np.float32(0), lanes)
    after = pick(origin, splat(np.float32(corner + 0.5), lanes), zero, value)
    return pick(origin, splat(np.float32(corner - 0.5), lanes), after, zero)


@compiled
def scale_and_pool(
    first: Any, last: Any, maps: Any, size: Any, scale: Any, shift: Any, out: Any, origins: Any, lanes: Any
) -> None:
    """The largest of scale x + shift in each window, or 0; and which of the four it is, the first of equal ones."""
    n, (height, width, channels) = len(lanes), size
    rows, columns, whole = (height + 1) // 2, (width + 1) // 2, height * width * channels
    for image in range(first, last):
        for row in range(rows):
            for column in range(columns):
                corners = find_corners(image * whole, row, column, size, channels, width * channels)
                to = ((image * rows + row) * columns + column) * channels
                for channel in range(0, channels, n):
                    factor, offset = load(scale, channel, lanes), load(shift, channel, lanes)
                    best, origin = (
                        load(maps, corners[0] + channel, lanes) * factor + offset,
                        splat(np.float32(0), lanes),
                    )
                    for corner in range(1, 4):
                        value = load(maps, corners[corner] + channel, lanes) * factor + offset
                        origin = pick(value, best, splat(np.float32(corner), lanes), origin)
                        best = maximum(value, best)
                    store_largest(out, origins, to + channel, best, origin, lanes)


@compiled
def add_gradients(
    first: Any, last: Any, maps: Any, size: Any, mean: Any, slopes: Any, origins: Any, sums: Any, lanes: Any
) -> None:
    """Sums of dz and of dz (x - mean) over each image, sums (num, 2, num_channels), where z = scale x + shift."""
    n, scratch, (height, width, channels) = len(lanes), np.empty(len(lanes), np.float32), size
    zero, rows, columns = splat(np.float32(0), lanes), (height + 1) // 2, (width + 1) // 2
    whole = height * width * channels
    for image in range(first, last):
        for row in range(rows):
            for channel in range(0, channels, n):
                centre, total, products = load(mean, channel, lanes), zero, zero
                for column in range(columns):
                    corners = find_corners(image * whole, row, column, size, channels, width * channels)
                    at = ((image * rows + row) * columns + column) * channels + channel
                    origin, value = load(origins, at, lanes), load(maps, corners[0] + channel, lanes)
                    for corner in range(1, 4):
                        there = load(maps, corners[corner] + channel, lanes)
                        value = pick(origin, splat(np.float32(corner - 0.5), lanes), there, value)
                    slope = pick(origin, splat(np.float32(NOWHERE - 0.5), lanes), zero, load(slopes, at, lanes))
                    total = total + slope
                    products = products + slope * (value - centre)
                add_vector(sums[image, 0], channel, total, scratch, lanes)
                add_vector(sums[image, 1], channel, products, scratch, lanes)


@compiled
def write_gradients(
    first: Any, last: Any, maps: Any, size: Any, factors: Any, slopes: Any, origins: Any, out: Any, lanes: Any
) -> None:
    """dx = scale dz - tilt x - level; `factors` (3, num_channels) are scale, tilt and level."""
    n, (height, width, channels) = len(lanes), size
    rows, columns, whole = (height + 1) // 2, (width + 1) // 2, height * width * channels
    for image in range(first, last):
        for row in range(rows):
            for column in range(columns):
                corners = find_corners(image * whole, row, column, size, channels, width * channels)
                to = ((image * rows + row) * columns + column) * channels
                for channel in range(0, channels, n):
                    scale, tilt = load(factors[0], channel, lanes), load(factors[1], channel, lanes)
                    level, origin = load(factors[2], channel, lanes), load(origins, to + channel, lanes)
                    slope = load(slopes, to + channel, lanes) * scale
                    # backwards, so that of equal corners the first, from which values come, is written last
                    for corner in (3, 2, 1, 0):
                        at = corners[corner] + channel
                        own = keep_own(slope, origin, corner, lanes)
                        store(out, at, own - tilt * load(maps, at, lanes) - level)


class NormPool(SyncBatchNorm2d):
    """`norm`, ReLU and 2 × 2 max pooling (ceil_mode) in one; where the compiled way cannot go, one after the other.

    Shapes:
        input (num, num_channels, height, width), output (num, num_channels, ⌈height / 2⌉, ⌈width / 2⌉).
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self._fits(input):
            return F.max_pool2d(F.relu(super().forward(input), inplace=True), 2, ceil_mode=True)
        if not self.training:
            scale = self.weight.double() * torch.rsqrt(self.running_var.double() + self.eps)
            return _pool_scaled(input, scale, self.bias - self.running_mean * scale)[0]
        apply: Callable[..., Tensor] = _NormPool.apply  # torch leaves it without types
        return apply(input, self.weight, self.bias, self)

    def _fits(self, input: Tensor) -> bool:
        return (
            (self.counted is None if self.training else not torch.is_grad_enabled())
            and input.device.type == "cpu"
            and input.dtype in (torch.float32, torch.bfloat16)
            and self.weight.dtype == torch.float32
            and self.num_features % len(LANES) == 0
            and input.is_contiguous(memory_format=torch.channels_last)
        )


def fuse(model: Model) -> Model:
    """`model`, each batch norm before a ReLU and a 2 × 2 max pooling replaced, in place, by all three in one: same names."""
    layers = list(model.named_children())
    for at, (name, layer) in enumerate(layers):
        fuse(layer)
        after = layers[at + 1 : at + 3]
        if isinstance(layer, nn.BatchNorm2d) and [_kind(each) for _, each in after] == ["clip", "halve"]:
            setattr(model, name, NormPool(layer, getattr(layer, "ranks", ALONE)))
            for other, _ in after:
                setattr(model, other, nn.Identity())
    return model


def _kind(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.MaxPool2d):
        how = layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
        return "halve" if how == (2, 2, 0, 1, True) else None
    return "clip" if isinstance(layer, nn.ReLU) else None


class _NormPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: NormPool) -> Tensor:
        num, channels, height, width = x.shape
        size, maps = (height, width, channels), flat(x)
        sums, pivot = np.zeros((num, 2, channels)), norm.running_mean.numpy().copy()
        share(add_moments, num, maps, size, pivot, sums)
        total, squares = sums.sum(0)
        count = num * height * width
        offset = total / count
        found = torch.from_numpy(pivot + offset), torch.from_numpy(squares - total * offset)
        everywhere, mean, variance = combine(count, *found, norm.ranks)
        norm.keep(everywhere, mean, variance)
        scale = weight.detach().double() * torch.rsqrt(variance + norm.eps)
        shift = bias.detach().double() - mean * scale
        out, origins = _pool_scaled(x, scale, shift)
        ctx.save_for_backward(x, weight, everywhere, mean, variance)
        ctx.origins, ctx.norm = origins, norm
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, variance = ctx.saved_tensors
        num, channels, height, width = x.shape
        size, maps = (height, width, channels), flat(x)
        dz = flat(slopes[0].contiguous(memory_format=torch.channels_last))
        centre = mean.float()
        sums = np.zeros((num, 2, channels))
        share(add_gradients, num, maps, size, centre.numpy(), dz, ctx.origins, sums)
        inverse = torch.rsqrt(variance + ctx.norm.eps)
        dbias, products = torch.from_numpy(sums.sum(0))
        dweight = (products + dbias * (centre - mean)) * inverse
        # as in SyncBatchNorm2d: the gradient of the loss of all ranks, whose statistics they share
        slope, level = sum_in_order(torch.stack([dweight * inverse, dbias]), ctx.norm.ranks) / count
        scale = weight.double() * inverse
        factors = torch.stack([scale, scale * slope, scale * (level - slope * mean)]).float()
        dx = torch.empty_like(x, memory_format=torch.channels_last)
        share(write_gradients, num, maps, size, factors.numpy(), dz, ctx.origins, flat(dx))
        return dx, dweight.float(), dbias.float(), None


def _pool_scaled(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, NDArray[np.uint8]]:
    """`scale_and_pool` of a tensor; scale and shift of shape (num_channels,)."""
    num, channels, height, width = x.shape
    shape = num, channels, (height + 1) // 2, (width + 1) // 2
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    origins = np.empty(out.numel(), np.uint8)
    factors = scale.detach().float().numpy(), shift.detach().float().numpy()
    share(scale_and_pool, num, flat(x), (height, width, channels), *factors, flat(out), origins)
    return out, origins


_pool = ThreadPoolExecutor(thread_name_prefix="norm-pool")


def share(kernel: Any, num: int, *args: Any) -> None:
    """A kernel on the images of a batch, shared among as many threads as torch has here."""
    num_threads = min(torch.get_num_threads(), num)
    cuts = [num * part // num_threads for part in range(num_threads + 1)]
    parts = [partial(kernel, *cut, *args, LANES) for cut in itertools.pairwise(cuts)]
    others = [_pool.submit(part) for part in parts[1:]]
    parts[0]()
    for other in others:
        other.result()


def flat(tensor: Tensor) -> NDArray[Any]:
    """The memory of a tensor that lies channels last; of bfloat16 the bits."""
    rows = tensor.permute(0, 2, 3, 1)
    if rows.dtype == torch.bfloat16:
        return np.asarray(rows.view(torch.int16).numpy().view(np.uint16).reshape(-1))
    return np.asarray(rows.numpy().reshape(-1))
