"""What kind of scaling a series of rates is, told without any law."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from parallel_tunes.scaling.intervals import Interval
from parallel_tunes.scaling.words import PERCENT, counted, listed, told

Logs = dict[int, npt.NDArray[np.float64]]  # number of GPUs -> the logarithms of its launches' rates
ABOVE = 1.02  # an efficiency whose interval lies above this is super-linear
LINEAR = 0.95  # the least efficiency that is called linear
FLAT = 1.05  # the least speed-up of the most GPUs over the fewest that is called one
BEYOND = 50.0  # of a logarithm: a factor that says nothing any more, and is a number still


def describe(nums: Sequence[int], rates: Sequence[float], *, unit: str = "GPU", level: float = 0.95) -> tuple[str, str]:
    """The kind of a series, and a sentence with the figures it rests on.

    Kinds: super-linear, linear, sub-linear, flat, retrograde (the most GPUs are slower than some fewer), and unknown:
    nothing tells what differs by chance, or that is so much that the series may as well be flat as linear.

    Args:
        nums: shape (num_points,), numbers of GPUs.
        rates: shape (num_points,), samples/s, one point a launch.
        unit: what `nums` counts.
        level: of the intervals, which are Student's (Welch's) for a difference of mean logarithms.
    """
    logs = {n: np.log([rate for num, rate in zip(nums, rates, strict=True) if num == n]) for n in sorted(set(nums))}
    if len(logs) < 2:
        return "unknown", f"unknown: it takes two numbers of {unit}s to tell"
    alone = [counted(n, unit) for n, each in logs.items() if len(each) < 2]
    if alone:
        return "unknown", f"unknown: a single launch of {listed(alone)} does not tell what differs by chance"
    fewest, most = min(logs), max(logs)
    speedup = _ratio(logs, most, fewest, level)
    efficiency = Interval(*(value * fewest / most for value in vars(speedup).values()))
    losses = {n: few for n in logs if n > fewest and (few := _faster(logs, n, level))}
    kind = "retrograde" if most in losses else _kind(speedup, efficiency, most / fewest)
    says = [
        f"{kind}: {counted(most, unit)} give {told(speedup, level=level)} times the rate of {counted(fewest, unit)}",
        f"an efficiency of {told(efficiency, '%', scale=PERCENT, level=level)}",
    ]
    for n, few in losses.items():
        if (n, few) != (most, fewest):  # which is said already
            says.append(
                f"{n} are slower than {few}, at {told(_ratio(logs, n, few, level), level=level)} times its rate"
            )
    return kind, "; ".join(says)


def _kind(speedup: Interval, efficiency: Interval, wanted: float) -> str:
    """Of a series that is not retrograde; `wanted` is the speed-up that would be linear."""
    if efficiency.low > ABOVE:
        return "super-linear"
    if speedup.low < FLAT and speedup.high >= LINEAR * wanted:
        return "unknown"
    if efficiency.median >= LINEAR:
        return "linear"
    return "flat" if speedup.median < FLAT else "sub-linear"


def _faster(logs: Logs, n: int, level: float) -> int | None:
    """The fastest of the fewer GPUs than `n`, if it is faster than `n` beyond chance."""
    fewer = [num for num in logs if num < n]
    best = max(fewer, key=lambda num: float(logs[num].mean()))
    # chosen from so many, one of them looks faster that much more often: Bonferroni's correction
    return best if _ratio(logs, n, best, 1 - (1 - level) / len(fewer)).high < 1 else None


def _ratio(logs: Logs, above: int, below: int, level: float) -> Interval:
    """Of two numbers of GPUs, the ratio of the rates' geometric means. Both were launched at least twice."""
    one, other = logs[above], logs[below]
    difference = float(one.mean() - other.mean())
    errors = [float(each.var(ddof=1)) / len(each) for each in (one, other)]
    reach = 0.0
    if sum(errors):  # launches may agree to the last bit: no spread, no interval
        freedom = sum(errors) ** 2 / (errors[0] ** 2 / (len(one) - 1) + errors[1] ** 2 / (len(other) - 1))
        reach = min(float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(sum(errors)), BEYOND)
    return Interval(*(math.exp(difference + side * reach) for side in (0, -1, 1)))
