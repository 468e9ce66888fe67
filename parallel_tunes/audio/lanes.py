"""SIMD vectors as a type inside numba: what the log-mel kernel is written in.

A `Lanes` value is LLVM's `<n x float>`, one register of the CPU. Loops over `range(n)` leave it to LLVM to find the
vectors, which it does only in part (a factor of 2 to 3 is lost); values of this type are vectors from the start. How
many lanes is told by the type of an argument, a tuple of n integers (`LANES`), so that numba's cache, whose key holds
the types of arguments but no globals, never mixes kernels of different widths.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import extending, types
from numba.extending import models, register_model

# what these make is called by compiled code, whose types mypy cannot know
intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = extending.intrinsic
overload: Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]] = extending.overload
FLOAT, INT32 = ir.FloatType(), ir.IntType(32)


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


def _place(context: Any, builder: Any, array_type: Any, array: Any, at: Any, value_type: Any) -> Any:
    """Pointer to `value_type` at element `at` of an array, counted through all its dimensions."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), value_type.as_pointer())


def _load(context: Any, builder: Any, array_type: Any, array: Any, at: Any, num: int) -> Any:
    """`num` elements of an array, float32 or int16, as float32."""
    element = context.get_data_type(array_type.dtype)
    value = builder.load(_place(context, builder, array_type, array, at, ir.VectorType(element, num)), align=2)
    return value if element == FLOAT else builder.sitofp(value, ir.VectorType(FLOAT, num))


def _halve(builder: Any, vector: Any, num: int) -> Any:
    """The sum of `num` lanes, halves added to halves."""
    while num > 1:
        num //= 2
        halves = [ir.Constant(ir.VectorType(INT32, num), list(range(first, first + num))) for first in (0, num)]
        vector = builder.fadd(*(builder.shuffle_vector(vector, vector, half) for half in halves))
    return builder.extract_element(vector, ir.Constant(INT32, 0))


def _splat(builder: Any, scalar: Any, num: int, scalar_type: Any = FLOAT) -> Any:
    kind = ir.VectorType(scalar_type, num)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(INT32, num), [0] * num))


def _constant(num: int, value: float, scalar_type: Any = FLOAT) -> Any:
    return ir.Constant(ir.VectorType(scalar_type, num), [value] * num)


@intrinsic
def load(typing: Any, array: Any, at: Any, lanes: Any) -> Any:
    """The n elements, float32 or int16, from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(context, builder, signature.args[0], args[0], args[1], lanes.count)

    return Lanes(lanes.count)(array, types.intp, lanes), generate


@intrinsic
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """Write a vector to the n elements from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = context.get_value_type(signature.args[2])
        builder.store(args[2], _place(context, builder, signature.args[0], args[0], args[1], kind), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def splat(typing: Any, scalar: Any, lanes: Any) -> Any:
    """A float32 in every lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], signature.return_type.num)

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
def add_lanes(typing: Any, value: Any) -> Any:
    """The sum of a vector's lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _halve(builder, args[0], signature.args[0].num)

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
        shifted = builder.sub(bits, _constant(num, 0x3F3504F3, INT32))
        exponent = builder.ashr(shifted, _constant(num, 23, INT32))
        mantissa = builder.bitcast(builder.sub(bits, builder.shl(exponent, _constant(num, 23, INT32))), floats)
        one = _constant(num, 1.0)
        s = builder.fdiv(builder.fsub(mantissa, one), builder.fadd(mantissa, one))
        square = builder.fmul(s, s)
        series = _constant(num, 2 / 9 * LOG2_E)
        for power in (7, 5, 3, 1):
            product = builder.fmul(series, square, flags=("contract",))
            series = builder.fadd(product, _constant(num, 2 / power * LOG2_E), flags=("contract",))
        return builder.fadd(builder.fmul(series, s), builder.sitofp(exponent, floats))

    return value(value), generate


LOG2_E = 1.4426950408889634


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """An n × n block of n vectors, by log2 n rounds in which pairs of rows swap halves of halves."""
    num, distance = len(rows), len(rows) // 2
    while distance:
        low = [at if not at & distance else at - distance + num for at in range(num)]
        high = [at + distance if not at & distance else at + num for at in range(num)]
        masks = [ir.Constant(ir.VectorType(INT32, num), mask) for mask in (low, high)]
        swapped = list(rows)
        for at in range(num):
            if not at & distance:
                pair = rows[at], rows[at + distance]
                swapped[at], swapped[at + distance] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        rows, distance = swapped, distance // 2
    return rows


@intrinsic
def gather_frames(
    typing: Any, samples: Any, at: Any, stride: Any, weights: Any, first: Any, rows: Any, carry: Any, lanes: Any
) -> Any:
    """n samples of n frames, weighted and pre-emphasised, with frames side by side.

    With x[i] = samples[at + f stride + i], float32 or int16, for i and f below n:
    rows[(first + i) n + f] = weights[first + i, 0] x[i] - weights[first + i, 1] x[i - 1], where x[-1] is carry[f];
    after that, carry[f] is x[n - 1].
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        num = signature.args[7].count
        floats = ir.VectorType(FLOAT, num)
        kind = ir.FunctionType(floats, [floats] * 3)
        fma = builder.module.declare_intrinsic(f"llvm.fma.v{num}f32", fnty=kind)
        read = []
        for frame in range(num):
            start = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, frame)))
            read.append(_load(context, builder, signature.args[0], args[0], start, num))
        carried = _place(context, builder, signature.args[6], args[6], ir.Constant(args[1].type, 0), floats)
        before = builder.load(carried, align=4)
        for at, row in enumerate(_transpose(builder, read)):
            sample = builder.add(args[4], ir.Constant(args[4].type, at))
            pair = builder.mul(sample, ir.Constant(sample.type, 4))
            factors = [
                _splat(builder, builder.load(_place(context, builder, signature.args[3], args[3], where, FLOAT)), num)
                for where in (builder.add(pair, ir.Constant(pair.type, number)) for number in range(4))
            ]
            # both terms are large where their difference is small: what rounding takes from the one is added back
            past = builder.fmul(before, factors[2])
            rest = builder.call(fma, [before, factors[2], builder.fneg(past)])
            for term in ((row, factors[1]), (before, factors[3])):
                rest = builder.call(fma, [*term, rest])
            emphasised = builder.fadd(builder.call(fma, [row, factors[0], past]), rest)
            target = builder.mul(sample, ir.Constant(sample.type, num))
            builder.store(emphasised, _place(context, builder, signature.args[5], args[5], target, floats), align=4)
            before = row
        builder.store(before, carried, align=4)
        return context.get_dummy_value()

    index = types.intp
    return types.void(samples, index, index, weights, index, rows, carry, lanes), generate


@intrinsic
def round_block(
    typing: Any, levels: Any, at: Any, stride: Any, halves: Any, to: Any, to_stride: Any, lanes: Any
) -> Any:
    """An n × n block transposed and rounded to float16, whose bits `halves`, uint16, holds.

    halves[to + f to_stride + i] = levels[at + i stride + f] for i and f below n.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        num = signature.args[6].count
        floats, short = ir.VectorType(FLOAT, num), ir.VectorType(ir.HalfType(), num)
        read = []
        for row in range(num):
            start = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, row)))
            place = _place(context, builder, signature.args[0], args[0], start, floats)
            read.append(builder.load(place, align=4))
        for row, value in enumerate(_transpose(builder, read)):
            start = builder.add(args[4], builder.mul(args[5], ir.Constant(args[5].type, row)))
            place = _place(context, builder, signature.args[3], args[3], start, short)
            builder.store(builder.fptrunc(value, short), place, align=2)
        return context.get_dummy_value()

    index = types.intp
    return types.void(levels, index, index, halves, index, index, lanes), generate


@intrinsic
def raise_halves(typing: Any, halves: Any, at: Any, floor: Any, lanes: Any) -> Any:
    """Raise the n float16 values from `at` on to `floor`; the sum of the results and of their squares, float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        num = signature.args[3].count
        short, floats, doubles = (ir.VectorType(kind, num) for kind in (ir.HalfType(), FLOAT, ir.DoubleType()))
        place = _place(context, builder, signature.args[0], args[0], args[1], short)
        value = builder.fpext(builder.load(place, align=2), floats)
        least = _splat(builder, args[2], num)
        rounded = builder.fptrunc(builder.select(builder.fcmp_ordered(">", value, least), value, least), short)
        builder.store(rounded, place, align=2)
        wide = builder.fpext(builder.fpext(rounded, floats), doubles)
        sums = [_halve(builder, vector, num) for vector in (wide, builder.fmul(wide, wide))]
        return context.make_tuple(builder, signature.return_type, sums)

    uniform: Any = types.UniTuple
    return uniform(types.float64, 2)(halves, types.intp, types.float32, lanes), generate
