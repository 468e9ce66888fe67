"""What a benchmark is made of: pieces of work that are timed, and which of them are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """A piece of work that every repetition times once.

    Args:
        name: in rows and reports.
        what: the same in words.
        group: cells of one group share a table and a chart.
        kind: `peer`, `ours`, or `part` of ours.
        n: clips or samples in one measurement.
        measure: does the work for all n; seconds.
        one_thread: whether it is done by this thread alone, which waits for nothing; torch, BLAS and OpenMP start no others.
        cold: whether it begins from nothing each time, so that there is nothing to warm up.
        cpu_s: CPU time that the processes which do it have taken until now, seconds, if it is done by others than this.
    """

    name: str
    what: str
    group: str
    kind: str
    n: int
    measure: Callable[[], float]
    one_thread: bool = False
    cold: bool = False
    cpu_s: Callable[[], float] | None = None


@dataclass(frozen=True)
class Comparison:
    """Speed-up of the cell `fast` over the cell `slow`."""

    name: str
    what: str
    slow: str
    fast: str


@dataclass(frozen=True)
class Suite:
    """Everything that one benchmark measures.

    Args:
        unit: what is counted, one of them: clip, sample.
        groups: what each group of cells has in common, in words.
        cells: what is timed.
        comparisons: of cells that are there.
        method: sentences on how it is measured, for the reader of a report.
        notes: what is left out here, and why.
        key: names what the figures depend on; repetitions of another key are measured again.
        examine: given each cell's median, ms a unit, more facts for the report's metrics.
    """

    unit: str
    groups: Mapping[str, str]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    method: tuple[str, ...]
    notes: tuple[str, ...]
    key: str
    examine: Callable[[Mapping[str, float]], dict[str, Any]]
