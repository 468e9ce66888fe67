"""Numbers as pages print them: shares, scores and their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from parallel_tunes.reports.scaling.tables import DASH


def percent(share: float | None) -> str:
    """A share in per cent."""
    return DASH if share is None else f"{100 * share:.1f} %"


def decimals(value: float | None, places: int = 3) -> str:
    """A score, with a typographic minus sign."""
    return DASH if value is None else f"{value:.{places}f}".replace("-", "−")


def show_ends(interval: Sequence[float], show: Callable[[float], str] = decimals) -> str:
    """Both ends of an interval."""
    return f"{show(interval[0])} to {show(interval[1])}"


def interval_words(interval: Sequence[float] | None, is_share: bool = False) -> str:
    """A 95 % interval; `no interval` where there is none."""
    return f"95 % interval {show_ends(interval, percent if is_share else decimals)}" if interval else "no interval"


def whole(number: int) -> str:
    """A count; from 10 000 on in groups of three, separated by narrow no-break spaces."""
    return f"{number:,}".replace(",", "\u202f") if number >= 10_000 else str(number)
