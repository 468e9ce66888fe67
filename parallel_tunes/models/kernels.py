"""Kernels compiled by numba, and the threads that run parts of their work side by side."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic as make_intrinsic

from parallel_tunes.compiled import compile_with

Result = TypeVar("Result")
# what this makes is called by compiled code, whose types mypy cannot know
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = make_intrinsic
cgutils: Any = untyped_cgutils
ir = cgutils.ir
# Sums in any order, so that they fit into registers of several; but NaN stays what it is: it tells of a training that diverged
FAST = {"reassoc", "contract", "nsz"}
LINE = 64  # bytes
_num_threads: ContextVar[int] = ContextVar("num_threads", default=0)


compile_kernel = compile_with(__file__, fastmath=FAST)


@intrinsic
def prefetch(typing: Any, array: Any, row: Any, width: Any) -> Any:
    """Ask for a row of an array (num_rows, width), soon to be read; `width` is told as a tuple of so many integers.

    Rows of a table that code by code leads to lie anywhere: without this, each is waited for when it is needed.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word, size = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)
        view = context.make_array(signature.args[0])(context, builder, args[0])
        step = cgutils.unpack_tuple(builder, view.strides)[0]
        first = builder.add(builder.ptrtoint(view.data, size), builder.mul(args[1], step))
        ask_type = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, ask_type, "llvm.prefetch.p0i8")
        how = [ir.Constant(word, how) for how in (0, 3, 1)]  # to read, into all caches, data
        for offset in range(0, width.count * signature.args[0].dtype.bitwidth // 8, LINE):
            where = builder.inttoptr(builder.add(first, ir.Constant(size, offset)), byte)
            builder.call(ask, [where, *how])
        return context.get_dummy_value()

    return types.void(array, types.int64, width), generate


@compile_kernel
def multiply(one: Any, other: Any, out: Any, width: Any) -> None:
    """out[r, k] += Σ_f one[r, f] other[f, k], two r and four f at a time: each value loaded serves in several products.

    Args:
        one: (num, num_in), in any order in memory.
        other, out: (num_in, num_out) and (num, num_out); `width` is a tuple of num_out integers.
    """
    num, num_in = one.shape
    spare, whole = np.zeros(len(width), out.dtype), num_in - num_in % 4
    for r in range(0, num, 2):
        second = min(r + 1, num - 1)
        upper, lower = out[r], out[second] if second > r else spare
        for f in range(0, whole, 4):
            a, b, c, d = other[f], other[f + 1], other[f + 2], other[f + 3]
            upper_a, upper_b, upper_c, upper_d = one[r, f], one[r, f + 1], one[r, f + 2], one[r, f + 3]
            lower_a, lower_b = one[second, f], one[second, f + 1]
            lower_c, lower_d = one[second, f + 2], one[second, f + 3]
            for k in range(len(width)):
                upper[k] += upper_a * a[k] + upper_b * b[k] + upper_c * c[k] + upper_d * d[k]
                lower[k] += lower_a * a[k] + lower_b * b[k] + lower_c * c[k] + lower_d * d[k]
        for f in range(whole, num_in):
            a, upper_a, lower_a = other[f], one[r, f], one[second, f]
            for k in range(len(width)):
                upper[k] += upper_a * a[k]
                lower[k] += lower_a * a[k]


def count_threads() -> int:
    """Threads that kernels may take here."""
    return _num_threads.get() or torch.get_num_threads()


@contextlib.contextmanager
def take_threads() -> Iterator[None]:
    """Within the block kernels have all threads that torch had, and torch's own operations have one.

    The threads of those spin for a while when they are done, and keep the cores from others.
    """
    num = count_threads()
    token = _num_threads.set(num)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num)
        _num_threads.reset(token)


@cache
def _pool(num: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num, thread_name_prefix="kernels")


def share(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of all tasks, carried out by `count_threads` threads, each taking the next that is left.

    The tasks must not depend on how many threads there are, nor write to the same memory: then neither do the bits.
    """
    num_others = min(count_threads(), len(tasks)) - 1
    if num_others < 1:
        return [task() for task in tasks]
    left, results = deque(enumerate(tasks)), dict[int, Result]()

    def work() -> None:
        while left:
            try:
                at, task = left.popleft()
            except IndexError:  # another thread was quicker
                return
            results[at] = task()

    others = [_pool(num_others).submit(work) for _ in range(num_others)]
    work()
    for other in others:
        other.result()
    return [results[at] for at in range(len(tasks))]
