"""SIMD vectors as a type inside numba: what the kernels of the log-mel and of training on CPUs are written in.

A `Lanes` value is LLVM's `<n x float>`, one register of the CPU. Loops over `range(n)` leave it to LLVM to find the
vectors, which it does only in part (a factor of 2 to 3 is lost); values of this type are vectors from the start. How
many lanes is told by the type of an argument, a tuple of n integers (`LANES`), so that numba's cache, whose key holds
the types of arguments but no globals, never mixes kernels of different widths.

In memory they are float32; or int16, as which only integers are read; or bfloat16, whose bits arrays of uint16 hold; or
small integers, in arrays of uint8.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import extending, types
from numba.extending import models, register_model

from parallel_tunes.compiled import compile_with

# what these make is called by compiled code, whose types mypy cannot know
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = extending.intrinsic
overload: Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]] = extending.overload
FLOAT, INT8, INT16, INT32 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32)


compile_of = partial(compile_with, __file__)  # which keeps functions for as long as this file does not change


def count_lanes() -> int:
    """Floats in a register of this CPU."""
    features = llvmlite.binding.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx2") else 4


LANES = (0,) * count_lanes()


class Lanes(types.Type):
    """n float32 values side by side."""

    def __init__(self, num: int) -> None:
        self.num = num
        super().__init__(name=f"float32x{num}")


@register_model(Lanes)
class _Model(models.PrimitiveModel):  # a register of that type
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        untyped: Any = super().__init__
        untyped(manager, lanes, ir.VectorType(FLOAT, lanes.num))


def point(context: Any, builder: Any, array_type: Any, array: Any, at: Any, value_type: Any) -> Any:
    """Pointer to `value_type` at element `at` of an array, counted through all its dimensions."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), value_type.as_pointer())


def read(context: Any, builder: Any, array_type: Any, array: Any, at: Any, num: int) -> Any:
    """`num` elements of an array as float32."""
    element = context.get_data_type(array_type.dtype)
    where = point(context, builder, array_type, array, at, ir.VectorType(element, num))
    value, floats, ints = (
        builder.load(where, align=1 if element == INT8 else 2),
        ir.VectorType(FLOAT, num),
        ir.VectorType(INT32, num),
    )
    if array_type.dtype == types.uint16:  # bfloat16 is the upper half
        return builder.bitcast(builder.shl(builder.zext(value, ints), constant(num, 16, INT32)), floats)
    if element == INT8:
        return builder.uitofp(value, floats)
    return value if element == FLOAT else builder.sitofp(value, floats)


def round_off(builder: Any, value: Any, num: int) -> Any:
    """bfloat16, as integers of 16 bits, to nearest, ties to even."""
    bits = builder.bitcast(value, ir.VectorType(INT32, num))
    odd = builder.and_(builder.lshr(bits, constant(num, 16, INT32)), constant(num, 1, INT32))
    rounded = builder.add(builder.add(bits, constant(num, 0x7FFF, INT32)), odd)
    return builder.trunc(builder.lshr(rounded, constant(num, 16, INT32)), ir.VectorType(INT16, num))


def halve(builder: Any, vector: Any, num: int) -> Any:
    """The sum of `num` lanes, halves added to halves."""
    while num > 1:
        num //= 2
        halves = [ir.Constant(ir.VectorType(INT32, num), list(range(first, first + num))) for first in (0, num)]
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, half) for half in halves))
    return builder.extract_element(vector, ir.Constant(INT32, 0))


def spread(builder: Any, scalar: Any, num: int, scalar_type: Any = FLOAT) -> Any:
    kind = ir.VectorType(scalar_type, num)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT32, num), [0] * num))


def constant(num: int, value: float, scalar_type: Any = FLOAT) -> Any:
    return ir.Constant(ir.VectorType(scalar_type, num), [value] * num)


@intrinsic
def load(typing: Any, array: Any, at: Any, lanes: Any) -> Any:
    """The n elements from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return read(context, builder, signature.args[0], args[0], args[1], lanes.count)

    return Lanes(lanes.count)(array, types.intp, lanes), generate


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write a vector to the n elements from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        num, dtype, what = signature.args[2].num, signature.args[0].dtype, args[2]
        if dtype == types.uint16:
            what = round_off(builder, what, num)
        elif dtype == types.uint8:
            what = builder.fptoui(what, ir.VectorType(INT8, num))
        where = point(context, builder, signature.args[0], args[0], args[1], what.type)
        builder.store(what, where, align=dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def splat(typing: Any, scalar: Any, lanes: Any) -> Any:
    """A float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, args[0], signature.return_type.num)

    return Lanes(lanes.count)(types.float32, lanes), generate


def _define(symbol: Any, instruction: str) -> None:
    """An operator on vectors; `contract` lets a product and a sum become one fused instruction."""

    @intrinsic
    def operation(typing: Any, one: Any, other: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args, flags=("contract",))

        return one(one, other), generate

    def apply(one: Any, other: Any) -> Any:
        return operation(one, other)

    # numba compares the signatures of both, annotations and all
    def choose(one: Any, other: Any) -> Any:
        return apply if isinstance(one, Lanes) and one == other else None

    overload(symbol)(choose)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")


@intrinsic
def maximum(typing: Any, one: Any, other: Any) -> Any:
    """The larger of each two lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return one(one, other), generate


@intrinsic
def pick(typing: Any, one: Any, other: Any, a: Any, b: Any) -> Any:
    """In each lane `a` where `one` is larger than `other`, else `b`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return a(one, other, a, b), generate


@intrinsic
def add_lanes(typing: Any, value: Any) -> Any:
    """The sum of a vector's lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return halve(builder, args[0], signature.args[0].num)

    return types.float32(value), generate


@intrinsic
def log2(typing: Any, value: Any) -> Any:
    """Logarithm to the base 2 of positive, normal numbers, to 2 units in the last place.

    x = 2^e m with m in [√½, √2); log2 m = 2/ln 2 artanh s, s = (m - 1) / (m + 1), |s| ≤ 0.172, by its series to s^9.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        num = signature.return_type.num
        floats, ints = ir.VectorType(FLOAT, num), ir.VectorType(INT32, num)
        bits = builder.bitcast(args[0], ints)
        # subtracting the bits of √½ makes the exponent field count from there
        shifted = builder.sub(bits, constant(num, 0x3F3504F3, INT32))
        exponent = builder.ashr(shifted, constant(num, 23, INT32))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, constant(num, 23, INT32))), floats)
        one = constant(num, 1.0)
        s = builder.fdiv(builder.fsub(mantissa, one), builder.fadd(mantissa, one))
        square = builder.fmul(s, s)
        series = constant(num, 2 / 9 * LOG2_E)
        for power in (7, 5, 3, 1):
            product = builder.fmul(series, square, flags=("contract",))
            series = builder.fadd(product, constant(num, 2 / power * LOG2_E), flags=("contract",))
        return builder.fadd(builder.fmul(series, s), builder.sitofp(exponent, floats))

    return value(value), generate


LOG2_E = 1.4426950408889634
