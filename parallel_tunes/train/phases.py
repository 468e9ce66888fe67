"""What each phase of a step took, from the events of a profiler's trace: arithmetic on spans of time."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

Span = tuple[float, float]
Spans = list[Span]
Event = dict[str, Any]  # of a Chrome trace

# Inner ranges come before those around them: time counts for the first phase that it is within.
PHASES = ("host_to_device", "optimizer", "backward", "forward", "data")
# What the table shows. All but the last two add up to the step: what is hidden is within backward.
ROWS = (
    "data", "host_to_device", "forward", "backward", "all_reduce_exposed", "optimizer", "other", "step",
    "all_reduce_hidden",
)  # fmt: skip
GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCHES = ("cuda_runtime", "cuda_driver")


def measure(events: Iterable[Event]) -> list[dict[str, float]]:
    """Milliseconds of each step of a trace by ROWS. Where a GPU works, its time is what counts, not that of the launches."""
    timed = [event for event in events if event.get("ph") == "X"]
    marks: dict[str, Spans] = {name: [] for name in ("step", "all_reduce", "gloo:all_reduce", *PHASES)}
    for event in timed:
        if event.get("cat") == "user_annotation" and event["name"] in marks:
            marks[event["name"]].append(to_span(event))
    steps = sorted(marks.pop("step"))
    waits = cut_late_ends(marks.pop("gloo:all_reduce"), marks)
    if any(event.get("cat") in GPU_WORK for event in timed):
        steps, marks = follow_launches(timed, steps, marks, waits)
    else:
        # Backward computes up to its last node; then DDP waits for what is not yet reduced. It computes neither in the sums of
        # batch norms nor while it hands a bucket over, which a busy machine makes as long as the all-reduce itself.
        ends = [to_span(event)[1] for event in timed if event["name"].startswith("autograd::engine::evaluate_function")]
        handing = [to_span(event) for event in timed if event["name"] == "c10d::allreduce_"]
        nodes = [
            (first, max((end for end in ends if first < end < last), default=first))
            for first, last in marks["backward"]
        ]
        marks["computing"] = subtract(nodes, marks["all_reduce"] + handing)
        marks["all_reduce"] += waits
    return [{name: length / 1000 for name, length in split(step, marks).items()} for step in steps]


def cut_late_ends(waits: Spans, marks: Mapping[str, Spans]) -> Spans:
    """The all-reduces that gloo's threads tell of. They tell of an end when they get to it, at worst long after this rank went on.

    Batch norms' sums are marked themselves; the others have ended when a phase begins that comes after a wait for them.
    """
    later = sorted(first for name in ("optimizer", "forward", "data") for first, _ in marks[name])
    cut = []
    for start, end in waits:
        if not any(first <= start <= last for first, last in marks["all_reduce"]):
            at = bisect.bisect_right(later, start)
            cut.append((start, min([end, *later[at : at + 1]])))
    return cut


def follow_launches(
    timed: list[Event], steps: Spans, marks: Mapping[str, Spans], waits: Spans
) -> tuple[Spans, dict[str, Spans]]:
    """The steps and marks of the CPU as a GPU has them: the spans of the work that was launched within each.

    A step lasts from its first work to the next step's. What the CPU waits for counts only while the GPU has nothing to do.
    """
    launches = {event["args"].get("correlation"): event["ts"] for event in timed if event.get("cat") in LAUNCHES}
    moved: dict[str, Spans] = {name: [] for name in ("all_reduce", "computing", *PHASES)}
    firsts = [last for _, last in steps]  # of a step that launches nothing
    busy: Spans = []
    for event in timed:
        launched = launches.get(event.get("args", {}).get("correlation"))
        if event.get("cat") not in GPU_WORK or launched is None:
            continue
        span = to_span(event)
        busy.append(span)
        step = next((number for number, (first, last) in enumerate(steps) if first <= launched <= last), None)
        if step is not None:
            firsts[step] = min(firsts[step], span[0])
        phase = next((name for name in PHASES if any(first <= launched <= last for first, last in marks[name])), None)
        if event["name"].startswith("nccl"):
            moved["all_reduce"].append(span)
        elif phase is not None:
            moved[phase].append(span)
    moved["computing"] = list(moved["backward"])
    moved["all_reduce"] += subtract(waits, busy)
    moved["data"] += subtract(marks["data"], busy)
    firsts.append(max(last for _, last in [*steps, *busy]))
    return list(itertools.pairwise(firsts)), moved


def split(step: Span, marks: Mapping[str, Spans]) -> dict[str, float]:
    """The lengths of a step's parts by ROWS, no moment in two of them; only what is hidden is within backward.

    Args:
        marks: spans of each of PHASES, of `all_reduce`, and of what this rank computes in backward: `computing`.
    """
    outside = [(-math.inf, step[0]), (step[1], math.inf)]
    reduces = subtract(marks["all_reduce"], outside)
    exposed = subtract(reduces, marks["computing"])
    found, taken = {"all_reduce_exposed": measure_length(exposed)}, outside + exposed
    for name in PHASES:
        own = subtract(marks[name], taken)
        found[name] = measure_length(own)
        taken = taken + own
    found["other"] = measure_length(subtract([step], taken))
    found["step"] = step[1] - step[0]
    found["all_reduce_hidden"] = measure_length(subtract(reduces, exposed))
    return {name: found[name] for name in ROWS}


def to_span(event: Event) -> Span:
    """When an event began and ended, µs."""
    return event["ts"], event["ts"] + event["dur"]


def unite(spans: Iterable[Span]) -> Spans:
    """The same moments as spans in order that do not touch; empty ones left out."""
    united: Spans = []
    for first, last in sorted(spans):
        if united and first <= united[-1][1]:
            united[-1] = (united[-1][0], max(last, united[-1][1]))
        elif first < last:
            united.append((first, last))
    return united


def subtract(spans: Iterable[Span], others: Iterable[Span]) -> Spans:
    """The moments of `spans` that are in none of the others, united."""
    left, holes = [], unite(others)
    for first, last in unite(spans):
        for start, end in holes[bisect.bisect_right(holes, first, key=lambda hole: hole[1]) :]:
            if start >= last:
                break
            if first < start:
                left.append((first, start))
            first = end
        if first < last:
            left.append((first, last))
    return left


def measure_length(spans: Iterable[Span]) -> float:
    """Of all moments together, each counted once."""
    return sum((last - first for first, last in unite(spans)), 0.0)
