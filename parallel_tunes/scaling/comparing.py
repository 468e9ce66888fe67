"""Two studies side by side: before and after a change, or on two clusters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parallel_tunes.scaling.intervals import Interval, Launches, median_interval, ratio_interval
from parallel_tunes.scaling.results import Row, load
from parallel_tunes.scaling.summary import counted, group
from parallel_tunes.schema import UserError

MACHINE = ("host", "cpu", "cores_a_rank", "threads")


def compare(folders: tuple[Path, ...], seed: int) -> dict[str, Any]:
    """How many times the rate of the first study each cell has in the second, and what else differs between them.

    Raises:
        UserError: they are not two, or not studies, or have no cell in common.
    """
    if len(folders) != 2:
        raise UserError(f"compare=[{','.join(map(str, folders))}]: expected the folders of two studies, compare=[A,B]")
    both = [load(folder) for folder in folders]
    found = [{name: rows for name, rows in group(each).items() if _rates(rows)} for each in both]
    shared = [name for name in found[0] if name in found[1]]
    if not shared:
        raise UserError(f"compare: {folders[0]} and {folders[1]} have no measured cell in common: nothing to compare")
    names = [folder.resolve().name for folder in folders]
    return {
        "a": names[0],
        "b": names[1] if names[0] != names[1] else str(folders[1]),
        "cells": [_compare_cell(name, found[0][name], found[1][name], seed) for name in shared],
        "only_in_a": [name for name in found[0] if name not in shared],
        "only_in_b": [name for name in found[1] if name not in shared],
        "differences": list_differences(*both),
    }


def _rates(rows: list[Row]) -> Launches:
    what = "samples_per_s" if rows[0]["kind"] == "train" else "tracks_per_s"
    return counted(rows, lambda row: row[what])


def _compare_cell(name: str, one: list[Row], other: list[Row], seed: int) -> dict[str, Any]:
    ratio = ratio_interval(_rates(other), _rates(one), paired=False, seed=seed)
    axes = {axis: one[0].get(axis) for axis in ("batch", "precision")}
    return {
        "name": name,
        "gpus": one[0].get("gpus") if one[0]["kind"] == "train" else one[0].get("engines"),
        **axes,
        "n": [len(_rates(one)), len(_rates(other))],
        "a": median_interval(_rates(one), seed=seed).to_plain(),
        "b": median_interval(_rates(other), seed=seed).to_plain(),
        "ratio": ratio.to_plain(),
        "words": judge(ratio),
    }


def judge(ratio: Interval) -> str:
    """What a ratio of rates says."""
    return "faster" if ratio.low > 1 else "slower" if ratio.high < 1 else "cannot be told apart"


def list_differences(one: list[Row], other: list[Row]) -> list[str]:
    """Versions, revisions and machines of the two that are not the same."""
    before, after = _facts(one), _facts(other)
    return [
        f"{name}: {' and '.join(sorted(before.get(name, {'none'})))} → {' and '.join(sorted(after.get(name, {'none'})))}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _facts(rows: list[Row]) -> dict[str, set[str]]:
    found = dict[str, set[str]]()
    for row in rows:
        if row["kind"] == "train" and row["status"] == "ok":
            machines = [(name, machine[name]) for machine in json.loads(row["machines"]) for name in MACHINE]
            for name, value in [*json.loads(row["versions"]).items(), ("revision", row["git"]), *machines]:
                found.setdefault(name, set()).add(str(value))
    return found
