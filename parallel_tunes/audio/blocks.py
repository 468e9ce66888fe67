"""Blocks of frames turned into lanes and back, and rounded to float16: what only the log-mel kernel does."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from parallel_tunes.lanes import FLOAT, INT32, halve, intrinsic, point, read, spread


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
        taken = []
        for frame in range(num):
            start = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, frame)))
            taken.append(read(context, builder, signature.args[0], args[0], start, num))
        carried = point(context, builder, signature.args[6], args[6], ir.Constant(args[1].type, 0), floats)
        before = builder.load(carried, align=4)
        for at, row in enumerate(_transpose(builder, taken)):
            sample = builder.add(args[4], ir.Constant(args[4].type, at))
            pair = builder.mul(sample, ir.Constant(sample.type, 4))
            factors = [
                spread(builder, builder.load(point(context, builder, signature.args[3], args[3], where, FLOAT)), num)
                for where in (builder.add(pair, ir.Constant(pair.type, number)) for number in range(4))
            ]
            # both terms are large where their difference is small: what rounding takes from the one is added back
            past = builder.fmul(before, factors[2])
            rest = builder.call(fma, [before, factors[2], builder.fneg(past)])
            for term in ((row, factors[1]), (before, factors[3])):
                rest = builder.call(fma, [*term, rest])
            emphasised = builder.fadd(builder.call(fma, [row, factors[0], past]), rest)
            target = builder.mul(sample, ir.Constant(sample.type, num))
            builder.store(emphasised, point(context, builder, signature.args[5], args[5], target, floats), align=4)
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
        taken = []
        for row in range(num):
            start = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, row)))
            place = point(context, builder, signature.args[0], args[0], start, floats)
            taken.append(builder.load(place, align=4))
        for row, value in enumerate(_transpose(builder, taken)):
            start = builder.add(args[4], builder.mul(args[5], ir.Constant(args[5].type, row)))
            place = point(context, builder, signature.args[3], args[3], start, short)
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
        place = point(context, builder, signature.args[0], args[0], args[1], short)
        value = builder.fpext(builder.load(place, align=2), floats)
        least = spread(builder, args[2], num)
        rounded = builder.fptrunc(builder.select(builder.fcmp_ordered(">", value, least), value, least), short)
        builder.store(rounded, place, align=2)
        wide = builder.fpext(builder.fpext(rounded, floats), doubles)
        sums = [halve(builder, vector, num) for vector in (wide, builder.fmul(wide, wide))]
        return context.make_tuple(builder, signature.return_type, sums)

    uniform: Any = types.UniTuple
    return uniform(types.float64, 2)(halves, types.intp, types.float32, lanes), generate
