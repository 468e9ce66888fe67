"""Bags of embeddings on CPUs: the sum of some rows of a table for each entity, a linear layer of it, and a gradient of the rows
that were touched.

A batch of listens names a song many times, and a song's columns never change: its bag is summed once, for as many songs as
the batch has different ones; likewise users'. The gradient is gathered the same way, first by entity, then by row of the
table. What PyTorch calls a sparse gradient comes out: the rows touched, each once, and their gradients.

Memory is what this costs: each touched row is read as often as entities name it, 256 bytes at width 64, mostly from caches, and
written once; nothing is as long as the table, or as long as the batch. Rows are taken in the order in which they lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from parallel_tunes.models.kernels import compile_kernel, multiply, prefetch, share

Ids = NDArray[np.int32]
Array = NDArray[Any]
BLOCK = 128  # entities that go through the layer together
MOST_PARTS = 16  # that a kind of entities is cut into, each with sums of its own
MOST_SLOTS = 1 << 20  # for combinations of codes, before they are numbered anew
AHEAD = 4  # entities whose rows of a gradient are asked for before they are needed


@compile_kernel
def number_codes(codes: Any, slots: Any, found: Any, places: Any) -> int:
    """The different codes in ascending order: neighbours in memory are read one after the other, which is half the speed.

    Args:
        codes: (num,).
        slots: -1 for each code that there may be; so again at the end.
        found: the different ones, as long as `codes` at least.
        places: (num,), where in `found` each code is.

    Returns:
        How many there are; or, if a code is below 0 or has no slot, -1 less its place among `codes`.
    """
    num, bad = 0, 0
    for at in range(len(codes)):
        if codes[at] < 0 or codes[at] >= len(slots):
            bad = -1 - at
            break
        slots[codes[at]] = 0
    for code in range(len(slots)):
        if slots[code] == 0:
            slots[code] = num
            found[num] = code
            num += 1
    if bad == 0:
        for at in range(len(codes)):
            places[at] = slots[codes[at]]
    for at in range(num):
        slots[found[at]] = -1
    return bad if bad else num


@compile_kernel
def add_rows(table: Any, addresses: Any, first: Any, last: Any, out: Any, width: Any) -> None:
    """The sum of an entity's rows of `table`: out[i] = Σ_c table[addresses[i, c]] for i from `first` to `last`."""
    num = addresses.shape[1]
    whole = num - num % 4
    for entity in range(first, last):
        following, total = min(entity + 1, len(addresses) - 1), out[entity]
        for column in range(num):
            prefetch(table, addresses[following, column], width)
        for at in range(len(width)):
            total[at] = 0
        for column in range(0, whole, 4):
            one, two = table[addresses[entity, column]], table[addresses[entity, column + 1]]
            three, four = table[addresses[entity, column + 2]], table[addresses[entity, column + 3]]
            for at in range(len(width)):
                total[at] += one[at] + two[at] + three[at] + four[at]
        for column in range(whole, num):
            one = table[addresses[entity, column]]
            for at in range(len(width)):
                total[at] += one[at]


@compile_kernel
def project_bags(
    first: Any, last: Any, table: Any, addresses: Any, numbers: Any, weights: Any, bags: Any, out: Any, widths: Any
) -> None:
    """The bags of entities `first` to `last` and, while they are in the cache, the linear layer behind them.

    Args:
        addresses, numbers: (num, num_columns), rows of the table, and (num, num_numbers).
        weights: (width, num_out) and (num_numbers, num_out).
        bags, out: (num, width) and (num, num_out), filled.
        widths: tuples of width and num_out integers, whose lengths compiled code knows.
    """
    by_bag, by_number = weights
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        add_rows(table, addresses, start, stop, bags, widths[0])
        out[start:stop] = 0
        multiply(bags[start:stop], by_bag, out[start:stop], widths[1])
        multiply(numbers[start:stop], by_number, out[start:stop], widths[1])


@compile_kernel
def project_back(
    first: Any, last: Any, slopes: Any, numbers: Any, bags: Any, turned: Any, gradients: Any, out: Any, widths: Any
) -> None:
    """The gradient by bags of `slopes` (num, num_out), and sums over entities `first` to `last` of those by both weights."""
    for start in range(first, last, BLOCK):
        stop = min(start + BLOCK, last)
        slope = slopes[start:stop]
        out[start:stop] = 0
        multiply(slope, turned, out[start:stop], widths[0])
        multiply(bags[start:stop].T, slope, gradients[0], widths[1])
        multiply(numbers[start:stop].T, slope, gradients[1], widths[1])


@compile_kernel
def spread_slopes(slopes: Any, places: Any, out: Any, width: Any) -> None:
    """The slopes of one column's rows, each the sum of those of its entities: out[places[i]] += slopes[i]."""
    out[:] = 0
    for entity in range(len(slopes)):
        prefetch(out, places[min(entity + AHEAD, len(slopes) - 1)], width)
        total, slope = out[places[entity]], slopes[entity]
        for at in range(len(width)):
            total[at] += slope[at]


class Numbering:
    """Finds the different codes of arrays; its memory is reused.

    Args:
        num_codes: codes are below it.
    """

    def __init__(self, num_codes: int) -> None:
        self.slots = np.full(num_codes, -1, np.int32)

    def find(self, codes: Ids, first: int = 0, last: int | None = None) -> tuple[Ids, Ids]:
        """The different ones of `codes` (num,), and the place among them of each (num,).

        Args:
            first, last: only codes between them occur; others may be found at the same time.

        Raises:
            IndexError: a code is not among those.
        """
        found, places = np.empty(len(codes), np.int32), np.empty(len(codes), np.int32)
        if first:
            codes = codes - np.int32(first)
        num = number_codes(codes, self.slots[first:last], found, places)
        if num < 0:
            raise IndexError(
                f"code {codes[-1 - num]} where codes from 0 to {len(self.slots[first:last]) - 1} are known"
            )
        return found[:num] + np.int32(first), places


def find_contexts(codes: Ids, num_codes: Sequence[int]) -> tuple[Ids, Ids]:
    """The different rows of `codes` (num, num_columns), in ascending order, and the place among them of each (num,).

    Args:
        num_codes: in each column codes are below it.

    Raises:
        IndexError: one is not.
    """
    packed, num_packed = np.zeros(len(codes), np.int64), 1
    for column, num in zip(codes.T, num_codes, strict=True):
        if len(column) and not 0 <= column.min() <= column.max() < num:
            raise IndexError(f"codes from {column.min()} to {column.max()} where those from 0 to {num - 1} are known")
        packed, num_packed = packed * num + column, num_packed * num
        if num_packed > MOST_SLOTS:
            found, packed = np.unique(packed, return_inverse=True)
            num_packed = len(found)
    numbers, places = Numbering(num_packed).find(packed.astype(np.int32))
    rows = np.empty(len(numbers), np.int64)
    rows[places] = np.arange(len(codes))  # any of those alike
    return codes[rows], places


@dataclass(frozen=True)
class Bags:
    """Entities of one kind, each with rows of the table, and numbers."""

    addresses: Ids  # (num_entities, num_columns): rows of the table
    bounds: tuple[int, ...]  # column c has the rows from bounds[c] to bounds[c + 1], which no other has
    numbers: Array  # (num_entities, num_numbers)

    def __len__(self) -> int:
        return len(self.addresses)

    def parts(self) -> list[tuple[int, int]]:
        """From which entity to which one thread goes: at most MOST_PARTS, whatever the number of threads."""
        num_blocks = -(-len(self) // BLOCK)
        num = min(num_blocks, MOST_PARTS)
        ends = [min(num_blocks * part // num * BLOCK, len(self)) for part in range(num + 1)]
        return list(itertools.pairwise(ends))


def sum_bags(table: Tensor, by_bag: Tensor, by_number: Sequence[Tensor], kinds: list[Bags], slots: Numbering) -> Tensor:
    """A linear layer of the bags of all entities and of their numbers, kind after kind: (num_entities, num_out).

    The gradient of `table` is sparse: its rows are in ascending order, each once. The same bits come out whatever the number
    of threads.

    Args:
        by_bag, by_number: (num_out, width), and of each kind (num_out, num_numbers).
        slots: for rows of the table.
    """
    apply: Callable[..., Tensor] = _SumBags.apply  # torch leaves it without types
    return apply(kinds, slots, table, by_bag, *by_number)


class _SumBags(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kinds: list[Bags], slots: Numbering, table: Tensor, *weights: Tensor) -> Tensor:
        by_bag, *by_number = (np.ascontiguousarray(weight.detach().numpy().T) for weight in weights)
        widths = tuple((0,) * num for num in by_bag.shape)
        ctx.kinds, ctx.slots, ctx.shape, ctx.widths = kinds, slots, table.shape, widths
        out = torch.empty(sum(map(len, kinds)), len(widths[1]), dtype=table.dtype)
        ctx.bags = [np.empty((len(kind), len(widths[0])), by_bag.dtype) for kind in kinds]
        ctx.save_for_backward(weights[0])
        rows = table.detach().numpy()
        share([
            partial(project_bags, *part, rows, kind.addresses, kind.numbers, (by_bag, weight), bags, sums, widths)
            for kind, weight, bags, sums in zip(kinds, by_number, ctx.bags, _cut(out, kinds), strict=True)
            for part in kind.parts()
        ])  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        turned, kinds = ctx.saved_tensors[0].numpy(), ctx.kinds
        of_kind, of_bags = _cut(slopes[0].contiguous(), kinds), [np.empty_like(bags) for bags in ctx.bags]
        totals = [[_zeros(ctx.shape[1], kind.numbers.shape[1], turned) for _ in kind.parts()] for kind in kinds]
        share([
            partial(project_back, *part, slope, kind.numbers, bags, turned, gradients, out, ctx.widths)
            for kind, slope, bags, out, all_gradients in zip(kinds, of_kind, ctx.bags, of_bags, totals, strict=True)
            for part, gradients in zip(kind.parts(), all_gradients, strict=True)
        ])  # fmt: skip
        by_bag = _add([gradients for kind in totals for gradients, _ in kind])
        by_number = [_add([gradients for _, gradients in kind]) for kind in totals]
        return None, None, _gather(of_bags, ctx), by_bag, *by_number


def _zeros(width: int, num_numbers: int, turned: Array) -> tuple[Array, Array]:
    return np.zeros((width, len(turned)), turned.dtype), np.zeros((num_numbers, len(turned)), turned.dtype)


def _gather(slopes: list[Array], ctx: Any) -> Tensor:
    """The sparse gradient of the table, of that of all bags."""
    columns = [(kind, at) for kind in range(len(slopes)) for at in range(ctx.kinds[kind].addresses.shape[1])]
    found = share([
        partial(ctx.slots.find, ctx.kinds[kind].addresses[:, at].copy(), *ctx.kinds[kind].bounds[at : at + 2])
        for kind, at in columns
    ])  # fmt: skip
    rows = np.concatenate([touched for touched, _ in found])
    gradient = np.empty((len(rows), ctx.shape[1]), slopes[0].dtype)
    ends = itertools.pairwise(itertools.accumulate((len(touched) for touched, _ in found), initial=0))
    share([
        partial(spread_slopes, slopes[kind], places, gradient[first:last], ctx.widths[0])
        for (kind, _), (_, places), (first, last) in zip(columns, found, ends, strict=True)
    ])  # fmt: skip
    index = torch.from_numpy(rows.astype(np.int64)).unsqueeze(0)
    return torch.sparse_coo_tensor(index, torch.from_numpy(gradient), ctx.shape, check_invariants=False)


def _add(parts: list[Array]) -> Tensor:
    """Their sum, in this order; transposed back."""
    total = np.zeros(parts[0].shape)
    for part in parts:
        total += part
    return torch.from_numpy(total.T.astype(parts[0].dtype))


def _cut(tensor: Tensor, kinds: list[Bags]) -> list[Array]:
    """The memory of the rows of each kind."""
    return [part.numpy() for part in torch.split(tensor.detach(), [len(kind) for kind in kinds])]
