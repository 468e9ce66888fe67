"""The first block of a network, convolution of one channel, batch norm, ReLU and pooling, without its maps, for training on CPUs.

A convolution of one channel makes maps of num_channels times the input's size: memory, not arithmetic, is what the block
costs. Here no map is written but the pooled one. With x the patch of 9 values around a place and w a channel's weights, its
map is w·x there, so that all sums over it are sums over the input alone:

    Σ y = w·s,  Σ y² = w·A w,  with s = Σ x and A = Σ x xᵀ over all places,

and the gradient, which batch norm makes dy = scale dz - tilt y - level, needs only G = Σ dz x besides, over the few places
that values have come from:

    Σ dz y = w·G,  dw = scale G - tilt A w - level s.

Arithmetic is in float32, sums in float64, as in `norm_pool`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from parallel_tunes.lanes import LANES, add_lanes, compile_of, load, maximum, pick, splat
from parallel_tunes.parallel.batch_norm import combine, sum_in_order
from parallel_tunes.train import norm_pool
from parallel_tunes.train.norm_pool import NormPool, add_vector, find_corners, flat, keep_own, share, store_largest

PLACES = 9  # of a patch
compiled = compile_of(__file__, norm_pool.__file__)


@compiled
def add_correlations(first: Any, last: Any, padded: Any, size: Any, sums: Any, lanes: Any) -> None:
    """s and the lower triangle of A of each image, sums (num, 9, 10): A[k, :k + 1], then s[k] in column 9."""
    height, width, _ = size
    for image in range(first, last):
        for row in range(height):
            at = (image * (height + 2) + row) * (width + 2)
            whole = width // len(lanes) * len(lanes)
            _correlate(padded, at, at + whole, width + 2, sums[image], lanes)
            _correlate(padded, at + whole, at + width, width + 2, sums[image], (0,))


@compiled
def _correlate(padded: Any, first: Any, last: Any, stride: Any, sums: Any, lanes: Any) -> None:
    for k in range(PLACES):
        shift = k // 3 * stride + k % 3
        for other in range(k + 2):  # the last of which is the sum alone
            total = splat(np.float32(0), lanes)
            there = other // 3 * stride + other % 3
            for at in range(first, last, len(lanes)):
                value = load(padded, at + shift, lanes)
                total = total + (value * load(padded, at + there, lanes) if other <= k else value)
            sums[k, other if other <= k else PLACES] += add_lanes(total)


@compiled
def read_patch(padded: Any, at: Any, stride: Any, lanes: Any) -> Any:
    """The 9 values of a patch, each in all lanes."""
    below, last = at + stride, at + 2 * stride
    return (
        splat(padded[at], lanes), splat(padded[at + 1], lanes), splat(padded[at + 2], lanes),
        splat(padded[below], lanes), splat(padded[below + 1], lanes), splat(padded[below + 2], lanes),
        splat(padded[last], lanes), splat(padded[last + 1], lanes), splat(padded[last + 2], lanes),
    )  # fmt: skip


@compiled
def read_weights(weights: Any, channel: Any, channels: Any, lanes: Any) -> Any:
    """A patch's weights of n channels; weights (9, num_channels)."""
    w, n = weights, channels
    return (
        load(w, channel, lanes), load(w, channel + n, lanes), load(w, channel + 2 * n, lanes),
        load(w, channel + 3 * n, lanes), load(w, channel + 4 * n, lanes), load(w, channel + 5 * n, lanes),
        load(w, channel + 6 * n, lanes), load(w, channel + 7 * n, lanes), load(w, channel + 8 * n, lanes),
    )  # fmt: skip


@compiled
def dot(x: Any, w: Any, shift: Any) -> Any:
    """Of a patch and weights, and a constant."""
    upper = x[0] * w[0] + (x[1] * w[1] + (x[2] * w[2] + shift))
    middle = x[3] * w[3] + (x[4] * w[4] + x[5] * w[5])
    return upper + (x[6] * w[6] + (x[7] * w[7] + (x[8] * w[8] + middle)))


@compiled
def convolve_and_pool(
    first: Any, last: Any, padded: Any, size: Any, weights: Any, shift: Any, out: Any, origins: Any, lanes: Any
) -> None:
    """`norm_pool.scale_and_pool` of the convolution with `weights`, which are scaled already."""
    n, (height, width, channels) = len(lanes), size
    zero, rows, columns, stride = splat(np.float32(0), lanes), (height + 1) // 2, (width + 1) // 2, width + 2
    for image in range(first, last):
        for row in range(rows):
            for channel in range(0, channels, n):
                w, offset = read_weights(weights, channel, channels, lanes), load(shift, channel, lanes)
                for column in range(columns):
                    patches = find_corners(image * (height + 2) * stride, row, column, size, 1, stride)
                    best, origin = dot(read_patch(padded, patches[0], stride, lanes), w, offset), zero
                    for corner in range(1, 4):
                        value = dot(read_patch(padded, patches[corner], stride, lanes), w, offset)
                        origin = pick(value, best, splat(np.float32(corner), lanes), origin)
                        best = maximum(value, best)
                    to = ((image * rows + row) * columns + column) * channels + channel
                    store_largest(out, origins, to, best, origin, lanes)


@compiled
def add_products(totals: Any, slope: Any, x: Any) -> Any:
    """totals + slope x."""
    return (
        totals[0] + slope * x[0], totals[1] + slope * x[1], totals[2] + slope * x[2],
        totals[3] + slope * x[3], totals[4] + slope * x[4], totals[5] + slope * x[5],
        totals[6] + slope * x[6], totals[7] + slope * x[7], totals[8] + slope * x[8],
    )  # fmt: skip


@compiled
def add_gradients(
    first: Any, last: Any, padded: Any, size: Any, slopes: Any, origins: Any, sums: Any, lanes: Any
) -> None:
    """G and Σ dz of each image, sums (num, 10, num_channels)."""
    n, scratch, (height, width, channels) = len(lanes), np.empty(len(lanes), np.float32), size
    zero, rows, columns, stride = splat(np.float32(0), lanes), (height + 1) // 2, (width + 1) // 2, width + 2
    for image in range(first, last):
        for row in range(rows):
            for channel in range(0, channels, n):
                total, products = zero, (zero, zero, zero, zero, zero, zero, zero, zero, zero)
                for column in range(columns):
                    patches = find_corners(image * (height + 2) * stride, row, column, size, 1, stride)
                    at = ((image * rows + row) * columns + column) * channels + channel
                    origin, slope = load(origins, at, lanes), load(slopes, at, lanes)
                    for corner in range(4):
                        own = keep_own(slope, origin, corner, lanes)
                        total = total + own
                        products = add_products(products, own, read_patch(padded, patches[corner], stride, lanes))
                for place in range(PLACES):
                    add_vector(sums[image, place], channel, products[place], scratch, lanes)
                add_vector(sums[image, PLACES], channel, total, scratch, lanes)


class Deferred(nn.Conv2d):
    """A convolution that its `StemPool` does where it can; its parameters and their names stay here."""

    def forward(self, input: Tensor) -> Tensor:
        return input if fits(self, input) else super().forward(input)


class StemPool(NormPool):
    """`NormPool` after a `Deferred` convolution, `convolution`."""

    convolution: list[Deferred]  # in a list, so that its parameters do not get a second name

    def forward(self, input: Tensor) -> Tensor:
        (convolution,) = self.convolution
        if self.counted is not None or not fits(convolution, input):
            return super().forward(F.conv2d(input, convolution.weight, padding=1) if input.shape[1] == 1 else input)
        apply: Callable[..., Tensor] = _StemPool.apply  # torch leaves it without types
        return apply(input, convolution.weight, self.weight, self.bias, self)


def fits(convolution: Deferred, input: Tensor) -> bool:
    """Whether an input goes the compiled way."""
    return (
        convolution.training
        and input.device.type == "cpu"
        and input.dtype == convolution.weight.dtype == torch.float32
        and input.shape[1] == 1
        and not input.requires_grad
    )


def fuse_stem(model: nn.Module) -> None:
    """Join, in place, each 3 × 3 convolution of one channel with the `NormPool` behind it; all names stay."""
    layers = list(model.named_children())
    for (name, layer), (behind, pool) in itertools.pairwise(layers):
        if isinstance(pool, NormPool) and _is_plain(layer):
            convolution = Deferred(1, pool.num_features, 3, padding=1, bias=False, device="meta")
            convolution.weight = layer.weight
            joined = StemPool(pool, pool.ranks)
            joined.convolution = [convolution]
            setattr(model, name, convolution)
            setattr(model, behind, joined)
    for _, layer in layers:
        fuse_stem(layer)


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(layer) is not nn.Conv2d or layer.out_channels % len(LANES) or layer.bias is not None:
        return False
    how = layer.in_channels, layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.padding_mode
    return how == (1, (3, 3), (1, 1), (1, 1), (1, 1), "zeros")


class _StemPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, weight: Tensor, bias: Tensor, norm: StemPool) -> Tensor:
        (num, _, height, width), channels = x.shape, len(kernel)
        size, count = (height, width, channels), num * height * width
        padded = np.asarray(F.pad(x, (1, 1, 1, 1)).contiguous().numpy().reshape(-1))
        sums = np.zeros((num, PLACES, PLACES + 1))
        share(add_correlations, num, padded, size, sums)
        found = torch.from_numpy(sums.sum(0))
        total, lower = found[:, PLACES], found[:, :PLACES].tril()
        correlations = lower + lower.tril(-1).T
        w = kernel.detach().double().reshape(channels, PLACES)
        mean = w @ total / count
        squares = torch.einsum("ck,kl,cl->c", w, correlations, w) - mean**2 * count
        everywhere, mean, variance = combine(count, mean, squares, norm.ranks)
        norm.keep(everywhere, mean, variance)
        scale = weight.detach().double() * torch.rsqrt(variance + norm.eps)
        shift = (bias.detach().double() - mean * scale).float()
        shape = num, channels, (height + 1) // 2, (width + 1) // 2
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        out = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
        origins = np.empty(out.numel(), np.uint8)
        scaled = _columns(w * scale[:, None])
        share(convolve_and_pool, num, padded, size, scaled, shift.numpy(), flat(out), origins)
        ctx.save_for_backward(kernel, weight, everywhere, mean, variance, total, correlations)
        ctx.padded, ctx.size, ctx.origins, ctx.norm = padded, size, origins, norm
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        kernel, weight, count, mean, variance, total, correlations = ctx.saved_tensors
        dz = slopes[0].contiguous(memory_format=torch.channels_last)
        sums = np.zeros((len(dz), PLACES + 1, len(kernel)))
        share(add_gradients, len(dz), ctx.padded, ctx.size, flat(dz), ctx.origins, sums)
        found = torch.from_numpy(sums.sum(0))
        products, dbias = found[:PLACES].T, found[PLACES]
        w = kernel.double().reshape(len(kernel), PLACES)
        inverse = torch.rsqrt(variance + ctx.norm.eps)
        dweight = ((w * products).sum(1) - mean * dbias) * inverse
        tilt, level = sum_in_order(torch.stack([dweight * inverse, dbias]), ctx.norm.ranks) / count
        scale = (weight.double() * inverse)[:, None]
        level = (level - tilt * mean)[:, None]
        dw = scale * (products - tilt[:, None] * (w @ correlations) - level * total)
        return None, dw.reshape(kernel.shape).float(), dweight.float(), dbias.float(), None


def _columns(weights: Tensor) -> NDArray[np.float32]:
    """(num_channels, 9) as (9, num_channels), flat."""
    return np.asarray(weights.T.contiguous().float().numpy().reshape(-1))
