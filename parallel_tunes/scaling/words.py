"""Numbers and intervals as a report says them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from parallel_tunes.scaling.intervals import Interval

PERCENT = 100.0


def counted(num: int, unit: str) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{num:,} {unit}" + ("" if num == 1 else "s")


def figure(value: float, width: float = 0.0) -> str:
    """A number to 3 significant figures, or, where its interval is this wide, to the second figure of the width."""
    decimals = 2 - _magnitude(value)
    if width:
        decimals = min(1 - _magnitude(width), decimals + 1)
    decimals = max(decimals, 0)  # digits before the point are all written
    return f"{round(value, decimals) + 0.0:,.{decimals}f}"  # + 0.0: no -0.0


def told(interval: Interval, unit: str = "", *, scale: float = 1.0, level: float = 0.95) -> str:
    """`4.1 % (95 % interval 2.0 to 6.2 %)`; without the bracket where there is no spread to tell of."""
    space = f" {unit}" if unit else ""
    width = scale * (interval.high - interval.low)
    median, low, high = (figure(scale * value, width) for value in (interval.median, interval.low, interval.high))
    return f"{median}{space}" + (f" ({PERCENT * level:g} % interval {low} to {high}{space})" if width else "")


def lasting(interval: Interval) -> str:
    """Seconds, told in seconds, minutes or hours."""
    unit, seconds = next((unit, size) for unit, size, least in _TIMES if interval.median >= least)
    return told(interval, unit, scale=1 / seconds)


def is_apart(one: Interval, other: Interval) -> bool:
    """Whether two intervals do not overlap. Two values without any spread are not told apart, whatever they are."""
    return (one.low > other.high or other.low > one.high) and (one.low < one.high or other.low < other.high)


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


_TIMES = (("h", 3600.0, 7200.0), ("min", 60.0, 120.0), ("s", 1.0, 0.0))


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0
