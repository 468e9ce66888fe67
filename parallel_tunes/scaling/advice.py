"""The recommendation of a study in words: a function a sentence, the most important first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parallel_tunes.scaling.intervals import Interval
from parallel_tunes.scaling.measured import Cell, Choice, Measured, interval
from parallel_tunes.scaling.remarks import (
    say_bottlenecks,
    say_failures,
    say_memory,
    say_missing,
    say_noise,
    say_precisions,
    say_preprocessing,
    say_unreached,
)
from parallel_tunes.scaling.words import PERCENT, counted, figure, is_apart, lasting, listed, told

MOST = 3  # rivals that are named


def advise(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on what to take, with their figures, from the `metrics` of a study's report.

    What was not measured, or did not work, is left out or said so; without a single cell there is nothing to say.
    """
    study = Measured(metrics)
    said = [
        say_cheapest(study),
        say_fastest(study),
        say_tie(study),
        say_quick(study),
        say_unsettled(study),
        say_epochs(study),
        say_knee(study),
        *say_losses(study),
        *say_bottlenecks(study),
        *say_precisions(study),
        say_noise(study),
        say_preprocessing(study),
        say_unreached(study),
        say_memory(study),
        say_failures(study),
        say_missing(study),
    ]
    return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in said if sentence]


def say_cheapest(study: Measured) -> str | None:
    """The fewest GPU-hours, and what cannot be told from them."""
    cheapest, hours = study.cheapest(), f"{study.unit}-hours"
    if cheapest is None:
        if study.to_target and study.cells:
            return f"no configuration came {study.purpose()}"
        return "no configuration has a cost that could be told" if study.metrics.get("cells") else None
    says = f"cheapest {study.purpose()}: {cheapest.name}, {told(cheapest.cost, hours)}{_reached(study, cheapest)}"
    rivals = [
        other for other in study.choices() if other.cell is not cheapest.cell and _alike(other.cost, cheapest.cost)
    ]
    names = [f"{other.name} ({figure(other.cost.median)})" for other in rivals[:MOST]]
    if len(rivals) > MOST:
        names.append(f"{len(rivals) - MOST} more")
    return says + (f"; not told apart from it in cost: {listed(names)}" if names else "")


def say_fastest(study: Measured) -> str | None:
    """The least time, and what it costs."""
    cheapest, fastest = study.cheapest(), study.fastest()
    if cheapest is None or fastest is None:
        return None
    if fastest.cell is cheapest.cell:
        return f"it is the fastest too: {lasting(fastest.time)}"
    return (
        f"fastest {study.purpose()}: {fastest.name}, {lasting(fastest.time)}{_reached(study, fastest)}; it takes"
        f" {told(fastest.cost, f'{study.unit}-hours')}, {figure(fastest.cost.median / cheapest.cost.median)} times"
        f" the cheapest's, which lasts {lasting(cheapest.time)}"
    )


def say_tie(study: Measured) -> str | None:
    """Whether cheapest and fastest can be told apart."""
    cheapest, fastest, hours = study.cheapest(), study.fastest(), f"{study.unit}-hours"
    if cheapest is None or fastest is None or fastest.cell is cheapest.cell:
        return None
    match _alike(cheapest.cost, fastest.cost), _alike(cheapest.time, fastest.time):
        case True, True:
            return f"cheapest and fastest cannot be told apart, neither in {hours} nor in time"
        case True, False:
            return f"in {hours} cheapest and fastest cannot be told apart: the fastest is the one to take"
        case False, True:
            return "in time cheapest and fastest cannot be told apart: the cheapest is the one to take"
    return None


def say_quick(study: Measured) -> str | None:
    """What the intervals of a quick study lack."""
    if not study.metrics.get("quick"):
        return None
    num = study.metrics.get("num_launches") or 1
    if num == 1:
        return "a quick look: one launch a cell, so that intervals do not hold what differs from launch to launch"
    # the range of n values misses their median only where all lie on one side of it
    held = 1 - 2 * 0.5**num
    often = f"hold the truth in about {100 * held:.0f} % of cases, not in 95 %"
    return f"a quick look: intervals of {num} launches a cell {often}"


def say_unsettled(study: Measured) -> str | None:
    """Whether what is recommended was still warming up when it was measured."""
    chosen = [choice for choice in (study.cheapest(), study.fastest()) if choice]
    names = {choice.name: None for choice in chosen if choice.cell.get("is_stable") is False}  # each once, in order
    return (
        f"not in every launch had the step time settled before it was measured: {listed(list(names))}"
        if names
        else None
    )


def say_epochs(study: Measured) -> str | None:
    """Costs of as many epochs compare batches only as far as these learn alike."""
    if study.to_target or len({choice.cell["global_batch"] for choice in study.choices()}) < 2:
        return None
    return (
        "costs are of as many epochs whatever the batch: whether a larger one needs more of them to learn as much,"
        " only a study of the time to a validation accuracy tells"
    )


def say_knee(study: Measured) -> str | None:
    """Where efficiency times speed-up is largest (Eager, Zahorjan & Lazowska 1989), in the fastest series there is.

    Efficiency times speed-up is S²/N: past its maximum, 1 % more GPUs are less than ½ % more speed.
    """
    series = [gains for cells in study.series() if len(gains := _gains(cells)) > 1]
    if not series:
        return None
    gains = max(series, key=lambda gains: max(gain.cell["samples_per_s"]["median"] for gain in gains))
    knee = max(gains, key=lambda gain: gain.worth.median)
    if knee is gains[-1]:
        says = f"up to {study.name(knee.cell)} each further {study.unit} still buys more than it costs"
    else:
        says = f"the knee is at {study.name(knee.cell)}: beyond that each further {study.unit} buys less than it costs"
    if knee.cell["gpus"] > 1:
        says += f"; there the rate is {told(knee.speedup)} times that of {counted(1, study.unit)}"
        says += f", at an efficiency of {told(knee.efficiency, '%', scale=PERCENT)}"
    rivals = [gain for gain in gains if gain is not knee and _alike(gain.worth, knee.worth)]
    names = [counted(gain.cell["gpus"], study.unit) for gain in rivals]
    return says + (f"; not told apart from {listed(names, 'or')}" if names else "")


def say_losses(study: Measured) -> Iterator[str]:
    """For each series, the most GPUs that are slower than fewer of them, or seem to be."""
    for cells in study.series():
        rates = {cell["gpus"]: found for cell in cells if (found := interval(cell, "samples_per_s"))}
        seeming = None
        for more in sorted(rates, reverse=True):
            few = max((num for num in rates if num <= more), key=lambda num: rates[num].median)
            if few == more:
                continue
            where, rate = study.series_name(cells[0]), told(rates[more], "samples/s")
            if not _alike(rates[few], rates[more]):
                yield (
                    f"more {study.unit}s lose {where}: {counted(more, study.unit)} process {rate},"
                    f" {counted(few, study.unit)} {told(rates[few], 'samples/s')}"
                )
                break
            seeming = seeming or (
                f"whether {counted(more, study.unit)} are slower than {few} {where} cannot be told:"
                f" {rate} against {told(rates[few], 'samples/s')}"
            )
        else:
            if seeming:
                yield seeming


@dataclass(frozen=True, eq=False)
class _Gain:
    """What a number of GPUs gains; `worth` is efficiency times speed-up."""

    cell: Cell
    speedup: Interval
    efficiency: Interval

    @property
    def worth(self) -> Interval:
        pairs = zip(vars(self.speedup).values(), vars(self.efficiency).values(), strict=True)
        return Interval(*(one * other for one, other in pairs))


def _gains(cells: list[Cell]) -> list[_Gain]:
    """Of the cells of a series whose gain is known; that of the baseline itself is 1."""
    baselines, found = {cell.get("baseline") for cell in cells}, []
    for cell in cells:
        speedup, efficiency = interval(cell, "speedup"), interval(cell, "efficiency")
        if speedup and efficiency:
            found.append(_Gain(cell, speedup, efficiency))
        elif cell["name"] in baselines:
            found.append(_Gain(cell, Interval(1.0, 1.0, 1.0), Interval(1.0, 1.0, 1.0)))
    return found


def _reached(study: Measured, choice: Choice) -> str:
    """In how many launches the target was reached, if not in all."""
    num, of = choice.cell.get("num_reached"), choice.cell["n"]
    return f", reached in {num} of {of} launches only" if study.to_target and num < of else ""


def _alike(one: Interval, other: Interval) -> bool:
    return not is_apart(one, other)
