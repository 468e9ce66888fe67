from __future__ import annotations

import pytest

from parallel_tunes.scaling.intervals import Interval
from parallel_tunes.scaling.words import counted, figure, is_apart, lasting, listed, told


def test_counted() -> None:
    assert [counted(num, "GPU") for num in (0, 1, 2, 1024)] == ["0 GPUs", "1 GPU", "2 GPUs", "1,024 GPUs"]


@pytest.mark.parametrize(
    ("value", "width", "says"),
    [
        (0.0, 0.0, "0.00"),
        (1.0, 0.0, "1.00"),
        (12345.6, 0.0, "12,346"),
        (0.000123456, 0.0, "0.000123"),
        (-0.0001, 4.0, "0.0"),
        (-3.14159, 0.0, "-3.14"),
        (4.123, 4.2, "4.1"),
        (0.8432, 0.1, "0.84"),
        (1234.5, 50.0, "1,234"),
        (3.14159265, 1e-9, "3.142"),  # a narrow interval is told to 4 figures
    ],
)
def test_figure(value: float, width: float, says: str) -> None:
    assert figure(value, width) == says


def test_told() -> None:
    assert told(Interval(0.041, 0.02, 0.062), "%", scale=100) == "4.1 % (95 % interval 2.0 to 6.2 %)"
    assert told(Interval(1020.0, 980.0, 1100.0)) == "1,020 (95 % interval 980 to 1,100)"
    assert told(Interval(2.0, 2.0, 2.0), "s") == "2.00 s"
    assert told(Interval(2.0, 1.0, 3.0), level=0.9) == "2.0 (90 % interval 1.0 to 3.0)"


def test_intervals_that_overlap_are_not_apart() -> None:
    low, high = Interval(2.0, 1.0, 3.0), Interval(5.0, 4.0, 6.0)
    assert is_apart(low, high)
    assert is_apart(high, low)
    assert not is_apart(low, Interval(4.0, 3.0, 5.0))
    assert is_apart(low, Interval(5.0, 5.0, 5.0))
    # two single values differ always, and tell nothing
    assert not is_apart(Interval(1.0, 1.0, 1.0), Interval(5.0, 5.0, 5.0))


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.5, "0.50 s (95 % interval 0.45 to 0.55 s)"),
        (119.0, "119 s (95 % interval 107 to 131 s)"),
        (600.0, "10.0 min (95 % interval 9.0 to 11.0 min)"),
        (7200.0, "2.00 h (95 % interval 1.80 to 2.20 h)"),
    ],
)
def test_lasting(seconds: float, says: str) -> None:
    assert lasting(Interval(seconds, 0.9 * seconds, 1.1 * seconds)) == says


def test_listed() -> None:
    assert [listed(list(words)) for words in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert listed(["x", "y"], "or") == "x or y"
