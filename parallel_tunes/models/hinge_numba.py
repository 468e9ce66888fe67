"""The sums of a hinge problem on all cores: one pass over the rows, compiled by numba.

A block of rows is read once: its products with w, their slopes, and its share of w_α while it is still in the cache; the floor is
the matrix through the memory bus once. Rows are cut into blocks whatever the number of threads, and the sums of blocks are added in
order, so that the bits do not depend on the threads. Within a block w_α is summed in the matrix's own type, between blocks in
float64.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from parallel_tunes.compiled import compile_with
from parallel_tunes.models.hinge import Floats, Rows, Sums

BLOCK = 1024  # rows
PARTS = 4  # that rows are cut into where few of them count, whatever the number of threads
SMALL = 65536  # values of a matrix that is not worth waking a thread for
FAST = {"reassoc", "contract", "nsz", "nnan", "ninf"}  # sums may be taken in any order: in registers of several


compile_kernel = compile_with(fastmath=FAST)


@compile_kernel
def pass_over(
    features: Any, signs: Any, offsets: Any, weights: Any, w: Any, bias: Any,
    smoothing: Any, is_squared: Any, slack: Any, partials: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Fill `slack` (num_rows,) and `partials` (num_blocks, 4 + num_weights), the sums of each block, from block `first` to `last`.

    Four rows are taken at a time: their products are independent, and the remainder of a row that fills no register is met
    once for the four.
    """
    num_rows, num_features = features.shape
    zero, half, one, inverse = bias * 0, np.float32(0.5), np.float32(1), np.float32(1) / smoothing
    alphas, combined = np.empty(BLOCK, features.dtype), np.empty(num_features, features.dtype)
    for block in range(first, last):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, num_rows)
        num, part, z = stop - start, features[start:stop], slack[start:stop]
        whole = num - num % 4
        for row in range(0, whole, 4):
            a, b, c, d = part[row], part[row + 1], part[row + 2], part[row + 3]
            at_a, at_b, at_c, at_d = zero, zero, zero, zero
            for column in range(num_features):
                at_a += a[column] * w[column]
                at_b += b[column] * w[column]
                at_c += c[column] * w[column]
                at_d += d[column] * w[column]
            z[row], z[row + 1], z[row + 2], z[row + 3] = at_a, at_b, at_c, at_d
        for row in range(whole, num):
            a, at_a = part[row], zero
            for column in range(num_features):
                at_a += a[column] * w[column]
            z[row] = at_a
        sign, offset, weight = signs[start:stop], offsets[start:stop], weights[start:stop]
        loss, smooth, linear, total = zero, zero, zero, zero
        for row in range(num):
            z[row] = offset[row] - sign[row] * (z[row] + bias)
            over = max(z[row], zero)
            if is_squared:
                alpha = 2 * weight[row] * over
                loss += weight[row] * over * over
            else:
                slope = min(max(z[row] * inverse + half, zero), one)
                alpha = weight[row] * slope
                loss += weight[row] * over
                smooth += alpha * (z[row] + smoothing * half * (one - slope))
            linear += alpha * offset[row]
            alphas[row] = alpha * sign[row]
            total += alphas[row]
        combined[:] = 0
        for row in range(0, whole, 4):
            a, b, c, d = part[row], part[row + 1], part[row + 2], part[row + 3]
            at_a, at_b, at_c, at_d = alphas[row], alphas[row + 1], alphas[row + 2], alphas[row + 3]
            for column in range(num_features):
                combined[column] += at_a * a[column] + at_b * b[column] + at_c * c[column] + at_d * d[column]
        for row in range(whole, num):
            a, at_a = part[row], alphas[row]
            for column in range(num_features):
                combined[column] += at_a * a[column]
        partials[block, 0], partials[block, 1], partials[block, 2] = loss, loss if is_squared else smooth, linear
        partials[block, 3] = loss if is_squared else zero
        partials[block, 4 : 4 + num_features] = combined
        partials[block, 4 + num_features] = total


@compile_kernel
def curve_over(
    features: Any, weights: Any, smoothing: Any, is_squared: Any,
    slack: Any, hessian: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Add ℓ″ x̂ x̂ᵀ of rows `first` to `last` to the lower triangle of `hessian` (num_weights, num_weights), four rows at a time."""
    num_features = features.shape[1]
    zero, one = smoothing * 0, np.float32(1)
    sums = np.zeros((num_features + 1, num_features), features.dtype)
    total, scales, places, num = 0.0, np.zeros(4, features.dtype), np.zeros(4, np.int64), 0
    for row in range(first, last + 1):
        if row < last:
            z = slack[row]
            if is_squared:
                second = 2 * weights[row] if z > zero else zero
            else:
                second = weights[row] / smoothing if abs(z) < smoothing * np.float32(0.5) else zero
            if second == zero:
                continue
            scales[num], places[num] = second, row
            num += 1
            total += second
        if num == 4 or (row == last and num):
            for place in range(num, 4):
                scales[place], places[place] = zero, places[0]
            a, b, c, d = features[places[0]], features[places[1]], features[places[2]], features[places[3]]
            for one_column in range(num_features + 1):
                is_bias = one_column == num_features
                at_a = scales[0] * (one if is_bias else a[one_column])
                at_b = scales[1] * (one if is_bias else b[one_column])
                at_c = scales[2] * (one if is_bias else c[one_column])
                at_d = scales[3] * (one if is_bias else d[one_column])
                line = sums[one_column]
                for column in range(min(one_column + 1, num_features)):
                    line[column] += at_a * a[column] + at_b * b[column] + at_c * c[column] + at_d * d[column]
            num = 0
    for one_column in range(num_features + 1):
        for column in range(min(one_column + 1, num_features)):
            hessian[one_column, column] += sums[one_column, column]
    hessian[num_features, num_features] += total


@compile_kernel
def shift_over(
    features: Any, signs: Any, offsets: Any, weights: Any, step: Any, bias: Any,
    smoothing: Any, is_squared: Any, slack: Any, changes: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Add to `changes` (2 + num_weights,) what a step does to the dual's sums of rows `first` to `last`."""
    num_features = features.shape[1]
    zero, half = smoothing * 0, np.float32(0.5)
    combined, total, linear, square = np.zeros(num_features, features.dtype), 0.0, 0.0, 0.0
    for row in range(first, last):
        z, weight = slack[row], weights[row]
        if weight > zero and ((z > zero) if is_squared else (abs(z) < smoothing * half)):
            x, along = features[row], bias
            for column in range(num_features):
                along += x[column] * step[column]
            if is_squared:
                before = 2 * weight * z
                after = max(before - 2 * weight * signs[row] * along, zero)
                square += (after * after - before * before) / (4 * weight)
            else:
                before = weight * (z / smoothing + half)
                after = min(max(before - weight / smoothing * signs[row] * along, zero), weight)
            change = after - before
            linear += change * offsets[row]
            change *= signs[row]
            total += change
            for column in range(num_features):
                combined[column] += change * x[column]
    changes[0] += linear
    changes[1] += square
    changes[2 : 2 + num_features] += combined
    changes[2 + num_features] += total


@cache
def share_threads(num: int) -> ThreadPoolExecutor:
    """The threads that all problems of this process share, one after the other."""
    return ThreadPoolExecutor(max(num - 1, 1), thread_name_prefix="hinge")


class NumbaOracle:
    """The back end `numba`. Its threads are Python's: numba's own would spin where NumPy's products want the cores.

    Args:
        num_threads: default as many as there are cores for this process.
    """

    def __init__(self, rows: Rows, num_threads: int | None = None) -> None:
        self.rows, self.slack = rows, np.empty(len(rows), rows.features.dtype)
        self._partials = np.zeros((-(-len(rows) // BLOCK), 4 + rows.num_weights))
        self._num_parts = PARTS if rows.features.size > SMALL else 1
        self._num_threads = (num_threads or len(os.sched_getaffinity(0))) if self._num_parts > 1 else 1
        self._pool = share_threads(self._num_threads)

    def query(self, w: Floats, smoothing: float) -> Sums:
        """The sums at w; `smoothing` is γ."""
        rows = self.rows
        words = (
            rows.features,
            rows.signs,
            rows.offsets,
            rows.weights,
            *self._cut(w, smoothing),
            self.slack,
            self._partials,
        )
        num = len(self._partials)
        threads = max(min(self._num_threads, num // 2), 1)
        self._share([(*words, num * at // threads, num * (at + 1) // threads) for at in range(threads)], pass_over)
        return Sums.of(self._partials.sum(0))

    def curve(self, smoothing: float, every: int) -> Floats:
        """Second derivatives where the last query was."""
        rows, kind = self.rows, self.rows.features.dtype.type
        found = np.zeros((self._num_parts, rows.num_weights, rows.num_weights))
        words = (rows.features, rows.weights, kind(smoothing), rows.loss != "hinge", self.slack)
        if every > 1:
            chosen = rows.thin(rows.curved(self.slack, smoothing), every)
            part = rows.take(chosen)
            words = (
                part.features,
                part.weights * kind(every),
                kind(smoothing),
                rows.loss != "hinge",
                self.slack[chosen],
            )
        self._share(list_parts(words, found, len(words[1])), curve_over)
        lower = np.tril(found.sum(0))
        return np.asarray(lower + np.tril(lower, -1).T)

    def shift(self, smoothing: float, step: Floats) -> Floats:
        """How the dual's sums change with a step."""
        rows = self.rows
        found = np.zeros((self._num_parts, 2 + rows.num_weights))
        words = (rows.features, rows.signs, rows.offsets, rows.weights, *self._cut(step, smoothing), self.slack)
        self._share(list_parts(words, found, len(rows)), shift_over)
        return np.asarray(found.sum(0))

    def _cut(self, w: Floats, smoothing: float) -> tuple[Any, ...]:
        kind = self.rows.features.dtype.type
        return w[:-1].astype(kind), kind(w[-1]), kind(smoothing), self.rows.loss != "hinge"

    def _share(self, calls: list[tuple[Any, ...]], kernel: Any) -> None:
        """Make these calls on all threads, this one's among them."""
        if self._num_threads == 1 or len(calls) == 1:
            for call in calls:
                kernel(*call)
            return
        mine = range(0, len(calls), self._num_threads)
        others = [self._pool.submit(kernel, *call) for at, call in enumerate(calls) if at not in mine]
        for at in mine:
            kernel(*calls[at])
        for other in others:
            other.result()


def list_parts(words: tuple[Any, ...], found: Floats, num_rows: int) -> list[tuple[Any, ...]]:
    """The arguments of a kernel for each part of the rows, which has an entry of `found` for its sums."""
    ends = [num_rows * part // len(found) for part in range(len(found) + 1)]
    return [(*words, found[part], ends[part], ends[part + 1]) for part in range(len(found))]
