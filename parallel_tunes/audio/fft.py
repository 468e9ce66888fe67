"""The Fourier transform of n real frames side by side in the lanes of registers; see `fused` for the layout.

The N real samples of a frame are N/2 complex ones, x[2i] + i x[2i+1] (rows 2i and 2i+1 of `work`): each frame is transformed
by itself, for two frames in one transform would leak a loud one's rounding into a quiet one. Decimation in frequency in
place, radix 8, then 4; what follows the first pass is done block by block, in the L1 cache. The results lie in
digit-reversed order, which costs nothing: the pass that makes powers of them reads whole rows, through a table.

Sorensen et al. 1987, "Real-valued fast Fourier transform algorithms"; Frigo & Johnson 2005, "The design and implementation
of FFTW3".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.lanes import compile_of, load, splat, store

compiled = compile_of(*(str(Path(__file__).with_name(name)) for name in ("fft.py", "fused.py", "blocks.py")))


@compiled
def add(a: Any, b: Any) -> Any:
    return a[0] + b[0], a[1] + b[1]


@compiled
def subtract(a: Any, b: Any) -> Any:
    return a[0] - b[0], a[1] - b[1]


@compiled
def add_turned(a: Any, b: Any) -> Any:
    """a - ib."""
    return a[0] + b[1], a[1] - b[0]


@compiled
def subtract_turned(a: Any, b: Any) -> Any:
    """a + ib."""
    return a[0] - b[1], a[1] + b[0]


@compiled
def turn(a: Any, real: Any, imag: Any) -> Any:
    """The complex product of `a` and (real, imag)."""
    return a[0] * real - a[1] * imag, a[0] * imag + a[1] * real


@compiled
def transform_4(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Discrete Fourier transform of four complex vectors."""
    even, odd, less, turned = add(a, c), add(b, d), subtract(a, c), subtract(b, d)
    return add(even, odd), add_turned(less, turned), subtract(even, odd), subtract_turned(less, turned)


@compiled
def read(work: Any, row: Any, lanes: Any) -> Any:
    """Complex row of `work`."""
    at = row * 2 * len(lanes)
    return load(work, at, lanes), load(work, at + len(lanes), lanes)


@compiled
def write(work: Any, row: Any, value: Any, lanes: Any) -> None:
    """Write a complex row of `work`."""
    at = row * 2 * len(lanes)
    store(work, at, value[0])
    store(work, at + len(lanes), value[1])


@compiled
def write_turned(work: Any, row: Any, value: Any, twiddles: Any, at: Any, lanes: Any) -> None:
    """Write a complex row of `work`, turned by a twiddle factor."""
    write(work, row, turn(value, splat(twiddles[at, 0], lanes), splat(twiddles[at, 1], lanes)), lanes)


@compiled
def pass_4(work: Any, first: Any, size: Any, twiddles: Any, at: Any, lanes: Any) -> None:
    """One radix-4 pass over `size` complex rows from `first` on; its twiddle factors lie from `at` on."""
    q = size // 4
    for j in range(q):
        row, w = first + j, at + 3 * j
        a, b, c, d = transform_4(
            read(work, row, lanes),
            read(work, row + q, lanes),
            read(work, row + 2 * q, lanes),
            read(work, row + 3 * q, lanes),
        )
        write(work, row, a, lanes)
        write_turned(work, row + q, b, twiddles, w, lanes)
        write_turned(work, row + 2 * q, c, twiddles, w + 1, lanes)
        write_turned(work, row + 3 * q, d, twiddles, w + 2, lanes)


@compiled
def pass_8(work: Any, first: Any, size: Any, twiddles: Any, at: Any, lanes: Any) -> None:
    """One radix-8 pass, as `pass_4`."""
    q = size // 8
    root = splat(np.float32(0.7071067811865476), lanes)
    for j in range(q):
        row, w = first + j, at + 7 * j
        a0, a4 = read(work, row, lanes), read(work, row + 4 * q, lanes)
        a1, a5 = read(work, row + q, lanes), read(work, row + 5 * q, lanes)
        a2, a6 = read(work, row + 2 * q, lanes), read(work, row + 6 * q, lanes)
        a3, a7 = read(work, row + 3 * q, lanes), read(work, row + 7 * q, lanes)
        b0, b2, b4, b6 = transform_4(add(a0, a4), add(a1, a5), add(a2, a6), add(a3, a7))
        d0, d1, d2, d3 = subtract(a0, a4), subtract(a1, a5), subtract(a2, a6), subtract(a3, a7)
        d1 = ((d1[0] + d1[1]) * root, (d1[1] - d1[0]) * root)  # times exp(-iπ/4)
        d2 = (d2[1], splat(np.float32(0), lanes) - d2[0])  # times -i
        d3 = ((d3[1] - d3[0]) * root, splat(np.float32(0), lanes) - (d3[0] + d3[1]) * root)  # times exp(-3iπ/4)
        b1, b3, b5, b7 = transform_4(d0, d1, d2, d3)
        write(work, row, b0, lanes)
        write_turned(work, row + q, b1, twiddles, w, lanes)
        write_turned(work, row + 2 * q, b2, twiddles, w + 1, lanes)
        write_turned(work, row + 3 * q, b3, twiddles, w + 2, lanes)
        write_turned(work, row + 4 * q, b4, twiddles, w + 3, lanes)
        write_turned(work, row + 5 * q, b5, twiddles, w + 4, lanes)
        write_turned(work, row + 6 * q, b6, twiddles, w + 5, lanes)
        write_turned(work, row + 7 * q, b7, twiddles, w + 6, lanes)


@compiled
def transform(work: Any, num: Any, radices: Any, starts: Any, twiddles: Any, lanes: Any) -> None:
    """Fourier transform of `num` complex rows in place, the results in digit-reversed order."""
    block = num // radices[0]
    if radices[0] == 8:
        pass_8(work, 0, num, twiddles, 0, lanes)
    else:
        pass_4(work, 0, num, twiddles, 0, lanes)
    for first in range(0, num, block):
        size = block
        for number in range(1, len(radices)):
            for at in range(first, first + block, size):
                if radices[number] == 8:
                    pass_8(work, at, size, twiddles, starts[number], lanes)
                else:
                    pass_4(work, at, size, twiddles, starts[number], lanes)
            size //= radices[number]


@compiled
def find_power(work: Any, num: Any, order: Any, untwist: Any, power: Any, lanes: Any) -> Any:
    """Power of the `num` + 1 bins of real frames from the transform of their halves; returns the sum of all but three of them.

    With Z the transform of x[2i] + i x[2i+1], E = Z[k] + conj Z[num-k] and O = -i (Z[k] - conj Z[num-k]) turned by
    exp(-πik/num), the spectrum is E + O at k and conj(E - O) at num - k; the ½ of both is in the window.
    """
    n = len(lanes)
    real, imag = read(work, 0, lanes)
    four = splat(np.float32(4), lanes)
    store(power, 0, (real + imag) * (real + imag) * four)
    store(power, num * n, (real - imag) * (real - imag) * four)
    real, imag = read(work, order[num // 2], lanes)
    store(power, num // 2 * n, (real * real + imag * imag) * four)
    total = splat(np.float32(0), lanes)
    for k in range(1, num // 2):
        a, b = read(work, order[k], lanes), read(work, order[num - k], lanes)
        even = a[0] + b[0], a[1] - b[1]
        odd = turn((a[1] + b[1], b[0] - a[0]), splat(untwist[k, 0], lanes), splat(untwist[k, 1], lanes))
        here, there = add(even, odd), subtract(even, odd)
        one, other = here[0] * here[0] + here[1] * here[1], there[0] * there[0] + there[1] * there[1]
        store(power, k * n, one)
        store(power, (num - k) * n, other)
        total = total + (one + other)
    return total


def make_passes(n_fft: int) -> tuple[NDArray[Any], ...]:
    """What `transform` and `find_power` look up: radices, where each pass's twiddle factors start, those factors, the order of
    the results, and the factors that untwist real frames.

    Args:
        n_fft: a power of two, at least 16.
    """
    num = n_fft // 2
    eights, rest = divmod(num.bit_length() - 1, 3)
    radices = [8] * (eights - 1) + [4, 4] if rest == 1 else [8] * eights + [4] * (rest // 2)
    starts, order = list[int](), np.zeros(num, np.int64)
    twiddles = list[NDArray[np.complex128]]()
    size, digits = num, np.arange(num)
    for radix in radices:
        starts.append(sum(len(some) for some in twiddles))
        powers = np.outer(np.arange(size // radix), np.arange(1, radix)).ravel()
        twiddles.append(np.exp(-2j * np.pi * powers / size))
        size //= radix
        order += digits % radix * size  # frequency k ends up in row order[k]: its digits, reversed
        digits //= radix
    untwist = np.exp(-1j * np.pi * np.arange(num) / num)
    pairs = [
        np.stack([some.real, some.imag], axis=1).astype(np.float32) for some in (np.concatenate(twiddles), untwist)
    ]
    return np.array(radices), np.array(starts), pairs[0], order, pairs[1]
