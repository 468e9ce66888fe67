"""The layers that go through every row of a batch of listens, with their loss and its gradient, in one pass on CPUs.

Layer after layer, as PyTorch goes, writes and reads each layer's values of all rows: 128 bytes a row and more at a time. Here
a block of rows goes through all layers and back while it is in the cache, and what leaves it is a logit and the slopes of the
first layer.

    z = P[user] + P[song] + P[context] + M x + b     first layer: what is the same for many listens, and the row's own numbers x
    y = w₃·relu(W₂ relu(z) + b₂) + b₃ + u·s,     u and s the factors of user and song (Rendle 2010)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from parallel_tunes.models.kernels import compile_kernel, count_threads, multiply, prefetch, share

Array = NDArray[Any]
BLOCK = 128  # rows that go through all layers together
MOST_PARTS = 16  # that a batch is cut into, whatever the number of threads
AHEAD = 8  # rows whose sums are asked for before they are needed


@compile_kernel
def gather_block(
    sums: Any, places: Any, start: Any, num: Any, bias: Any, z: Any, logits: Any, hidden: Any, factors: Any
) -> None:
    """What rows from `start` on are sums of, and the bias: z (BLOCK, num_hidden); and products of their factors, as logits."""
    for r in range(num):
        following = min(start + r + AHEAD, places.shape[1] - 1)
        prefetch(sums, places[0, following], hidden)
        prefetch(sums, places[1, following], hidden)
        user, song, own = sums[places[0, start + r]], sums[places[1, start + r]], sums[places[2, start + r]]
        row, dot = z[r], sums[0, 0] * 0
        for k in range(len(hidden)):
            row[k] = user[k] + song[k] + own[k] + bias[k]
        for k in range(len(factors)):
            dot += user[len(hidden) + k] * song[len(hidden) + k]
        logits[start + r] = dot


@compile_kernel
def clip(values: Any) -> None:
    """ReLU in place; NaN stays."""
    for r in range(values.shape[0]):
        for k in range(values.shape[1]):
            values[r, k] = values[r, k] * 0 if values[r, k] <= 0 else values[r, k]


@compile_kernel
def keep_clipped(slopes: Any, values: Any, total: Any) -> None:
    """Slopes behind a ReLU, whose outputs are `values`, as those before it; added to `total` over rows."""
    for r in range(slopes.shape[0]):
        for k in range(slopes.shape[1]):
            slopes[r, k] = slopes[r, k] * 0 if values[r, k] <= 0 else slopes[r, k]
            total[k] += slopes[r, k]


@compile_kernel
def score_rows(
    first: Any, last: Any, sums: Any, places: Any, numbers: Any, weights: Any, logits: Any,
    targets: Any, shares: Any, slopes: Any, gradients: Any, is_learning: Any, widths: Any,
) -> None:  # fmt: skip
    """Logits of rows `first` to `last`; if `is_learning`, also the slopes of the shared loss by logits and first layer.

    Args:
        sums: (num_sums, num_hidden + num_factors), P and behind it the factors.
        places: (3, num_rows), rows of `sums`.
        numbers: (num_rows, num_numbers).
        weights: Mᵀ, b, W₂, W₂ᵀ, b₂, w₃, b₃.
        shares: (num_rows,), what a row's loss is multiplied with.
        slopes: (num_rows,) and (num_rows, num_hidden), filled: those of logits and of z.
        gradients: of Mᵀ, b, W₂ᵀ, b₂, w₃, b₃, added to.
        widths: tuples of num_hidden, num_second and num_factors integers, whose lengths compiled code knows.
    """
    by_number, bias, second, turned, second_bias, third, third_bias = weights
    hidden, behind, factors = widths
    zero, one = sums[0, 0] * 0, sums[0, 0] * 0 + 1
    whole_z, whole_h = np.empty((BLOCK, len(hidden)), sums.dtype), np.empty((BLOCK, len(behind)), sums.dtype)
    whole_dh = np.empty((BLOCK, len(behind)), sums.dtype)
    of_logits, of_z = slopes
    for start in range(first, last, BLOCK):
        num = min(BLOCK, last - start)
        z, h, dh, x = whole_z[:num], whole_h[:num], whole_dh[:num], numbers[start : start + num]
        gather_block(sums, places, start, num, bias, z, logits, hidden, factors)
        multiply(x, by_number, z, hidden)
        clip(z)
        for r in range(num):
            for j in range(len(behind)):
                h[r, j] = second_bias[j]
        multiply(z, turned, h, behind)
        clip(h)
        for r in range(num):
            total = third_bias[0]
            for j in range(len(behind)):
                total += third[j] * h[r, j]
            logits[start + r] += total
        if is_learning:
            d_number, d_bias, d_second, d_second_bias, d_third, d_third_bias = gradients
            dz = of_z[start : start + num]
            dz[:] = zero
            for r in range(num):
                at = start + r
                slope = (one / (one + np.exp(-logits[at])) - targets[at]) * shares[at]
                of_logits[at] = slope
                d_third_bias[0] += slope
                for j in range(len(behind)):
                    d_third[j] += slope * h[r, j]
                    dh[r, j] = slope * third[j]
            keep_clipped(dh, h, d_second_bias)
            multiply(z.T, dh, d_second, behind)
            multiply(dh, second, dz, hidden)
            keep_clipped(dz, z, d_bias)
            multiply(x.T, dz, d_number, hidden)


@compile_kernel
def collect_slopes(
    slopes: Any,
    sums: Any,
    places: Any,
    others: Any,
    span: Any,
    part: Any,
    num_parts: Any,
    out: Any,
    hidden: Any,
    factors: Any,
) -> None:
    """The slopes of all rows added up for the sums that they came from, those of `span`, of every `num_parts`-th one.

    Args:
        places: (num_rows,), from span[0] to span[1].
        others: (num_rows,), the sums whose factors these sums' are multiplied with.
        num_parts: a power of two.
        factors: a tuple of as many integers; of none where these sums' factors count for nothing.
    """
    of_logits, of_z = slopes
    for at in range(span[0], span[1]):
        if at & (num_parts - 1) == part:
            out[at] = 0
    for row in range(len(places)):
        following = min(row + AHEAD, len(places) - 1)
        if places[following] & (num_parts - 1) == part:
            prefetch(out, places[following], hidden)
            prefetch(sums, others[following], hidden)
        at = places[row]
        if at & (num_parts - 1) == part:
            total, slope, by = out[at], of_z[row], of_logits[row]
            for k in range(len(hidden)):
                total[k] += slope[k]
            other = sums[others[row]]
            for k in range(len(factors)):
                total[len(hidden) + k] += by * other[len(hidden) + k]


class Layers(NamedTuple):
    """What all rows go through: M (num_hidden, num_numbers), b, W₂ (num_second, num_hidden), b₂, w₃ (1, num_second), b₃ (1,)."""

    by_number: Tensor
    bias: Tensor
    second: Tensor
    second_bias: Tensor
    third: Tensor
    third_bias: Tensor


class Targets(NamedTuple):
    """What rows are held against, and what their losses are multiplied with before they are added: (num_rows,) each."""

    targets: Tensor
    shares: Tensor


def _run(
    sums: Tensor, places: Array, numbers: Tensor, layers: Layers, labels: Targets | None
) -> tuple[Tensor, tuple[Array, Array], list[Array]]:
    """Logits; their slopes and those of z; the gradients of the layers. The last two are empty without `labels`."""
    by_number, bias, second, second_bias, third, third_bias = (np.ascontiguousarray(p.detach().numpy()) for p in layers)
    num_rows, kind = len(numbers), sums.numpy().dtype
    logits = torch.empty(num_rows, dtype=sums.dtype)
    num_slopes = num_rows if labels else 0
    slopes = np.empty(num_slopes, kind), np.empty((num_slopes, len(bias)), kind)
    turned = [np.ascontiguousarray(matrix.T) for matrix in (by_number, second)]
    weights = (turned[0], bias, second, turned[1], second_bias, third[0], third_bias)
    shapes = (turned[0], bias, turned[1], second_bias, third[0], third_bias)
    num_blocks = -(-num_rows // BLOCK)
    num_parts = min(num_blocks, MOST_PARTS)
    ends = [min(num_blocks * part // num_parts * BLOCK, num_rows) for part in range(num_parts + 1)]
    whole = [np.zeros((num_parts, *shape.shape), kind) for shape in shapes]
    partials = [tuple(each[part] for each in whole) for part in range(num_parts)]
    known = [each.numpy() for each in labels or (logits, logits)]
    words = (sums.numpy(), places, numbers.numpy(), weights, logits.numpy(), *known, slopes)
    share([
        partial(score_rows, first, last, *words, gradients, labels is not None, _widths(sums, layers))
        for (first, last), gradients in zip(itertools.pairwise(ends), partials, strict=True)
    ])  # fmt: skip
    totals = [each.sum(0, dtype=np.float64).astype(kind) for each in whole]
    return logits, slopes, [totals[0].T.copy(), totals[1], totals[2].T.copy(), totals[3], totals[4][None], totals[5]]


def _widths(sums: Tensor, layers: Layers) -> tuple[tuple[int, ...], ...]:
    num_second, num_hidden = layers.second.shape
    return (0,) * num_hidden, (0,) * num_second, (0,) * (sums.shape[1] - num_hidden)


def score(sums: Tensor, places: Array, _: Sequence[int], numbers: Tensor, layers: Layers) -> Tensor:
    """Logits of rows, (num_rows,); arguments as in `loss`. Nothing is learnt from them."""
    return _run(sums.detach(), places, numbers, layers, None)[0]


def loss(
    sums: Tensor, places: Array, sizes: Sequence[int], numbers: Tensor, layers: Layers, labels: Targets
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of all rows, each times its share, added; and logits (num_rows,), through which no gradient goes.

    The gradient is found in the same pass, as it is of a scalar. The same bits come out whatever the number of threads.

    Args:
        sums: (num_sums, num_hidden + num_factors), P and behind it factors.
        places: (3, num_rows), int32: rows of `sums`: the user's, the song's, that of the row's own columns.
        sizes: of how many users, songs and contexts sums are, in this order.
        numbers: (num_rows, num_numbers).
    """
    apply: Callable[..., tuple[Tensor, Tensor]] = _Loss.apply  # torch leaves it without types
    return apply(sums, places, sizes, numbers, labels, *layers)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sums: Tensor, places: Array, sizes: Sequence[int], numbers: Tensor, labels: Targets, *layers: Tensor
    ) -> tuple[Tensor, Tensor]:
        sums, of_layers = sums.detach().contiguous(), Layers(*layers)
        logits, slopes, gradients = _run(sums, places, numbers, of_layers, labels)
        found, num_parts = torch.empty_like(sums), 1
        while num_parts < count_threads():
            num_parts *= 2
        hidden, _, factors = _widths(sums, of_layers)
        ends = [0, *itertools.accumulate(sizes)]
        spans = list(itertools.pairwise(ends))
        kinds = [(0, 1, spans[0], factors), (1, 0, spans[1], factors), (2, 2, spans[2], ())]
        tasks = []
        for mine, other, span, counted in kinds:
            words = (slopes, sums.numpy(), places[mine], places[other], span)
            tail = (num_parts, found.numpy(), hidden, counted)
            tasks += [partial(collect_slopes, *words, part, *tail) for part in range(num_parts)]
        share(tasks)
        ctx.gradients = [found, *map(torch.from_numpy, gradients)]
        ctx.mark_non_differentiable(logits)
        losses = F.binary_cross_entropy_with_logits(logits, labels.targets, reduction="none")
        return torch.dot(losses, labels.shares), logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        factor, gradients = slopes[0].item(), ctx.gradients
        if factor != 1:
            gradients = [gradient * factor for gradient in gradients]
        return gradients[0], None, None, None, None, *gradients[1:]
