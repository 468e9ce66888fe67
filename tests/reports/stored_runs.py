"""Reports of real runs, kept in `stored/`, from which pages are rendered without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports.scaling.look import Picture
from parallel_tunes.run import Run

Facts = dict[str, Any]
STORED = Path(__file__).with_name("stored")


def read(name: str) -> Facts:
    """report: report.json; config: config.yaml; rows: metrics.jsonl."""
    stored: Facts = json.loads((STORED / f"{name}.json").read_text())
    return stored


def reopen(stored: Facts, folder: Path) -> Run:
    """The run that a stored report is of, in another folder."""
    run = Run(
        stored["report"]["job"],
        RunConfig(dir=None, name=None, page=True, max_restarts=1),
        folder,
        is_writer=True,
        started=0,
    )
    run.open()
    run.config = stored["config"]
    for row in stored["rows"]:
        run.record(row)
    return run


def drawn(picture: Picture, axes: int = 0) -> set[float]:
    """Values of all lines of one panel along x."""
    found: Any = [line.get_xdata() for line in picture.drawing.axes[axes].lines]
    plt.close("all")
    return {round(float(value), 6) for line in found for value in line}
