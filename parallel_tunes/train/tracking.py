"""Passing on what a run records to TensorBoard and MLflow: from rank 0, behind the training's back."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, flatten
from parallel_tunes.train.trackers import OPEN, Point, Tracker, mlflow_uri

PATIENCE_S = 15.0  # at the end of a job, for a server that has not yet taken everything
UNTOLD = ("seed", "epoch", "step", "train.n", "valid.n", "seconds", "eval_s")  # what a row's curves do without


class Relay:
    """Passes on to a tracker what a run records, in a thread of its own: the training waits for no server.

    What a tracker does not take is kept, and tried again with the next row. One warning says so.
    """

    def __init__(self, name: str, tracker: Tracker, run: Run) -> None:
        self.name, self.tracker, self.run = name, tracker, run
        self._told: SimpleQueue[Point | Mapping[str, Any]] = SimpleQueue()  # the report comes last
        self._has_warned = False
        self._thread = threading.Thread(target=self._pass_on, name=name, daemon=True)
        self._thread.start()

    def row(self, row: Mapping[str, Any]) -> None:
        """Tell a row of metrics.jsonl, unless the tracker has it from an earlier start."""
        if row["step"] not in self.tracker.steps:
            prefix = f"seed-{row['seed']}/" if len(self.run.config["train"]["seeds"]) > 1 else ""
            self._told.put(Point(row["step"], time.time(), figures_of(row, prefix)))

    def end(self, report: Mapping[str, Any]) -> None:
        """Tell how the run has ended, and see that all is taken, unless that takes long."""
        self._told.put(report)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._warn(f"train.track=[{self.name}]: not all is told within {PATIENCE_S:g} s")

    def _pass_on(self) -> None:
        points: list[Point] = []
        report: Mapping[str, Any] | None = None
        while report is None:
            told = self._told.get()
            if isinstance(told, Point):
                points.append(told)
            else:
                report = told
                if test := report["metrics"].get("test"):
                    points.append(Point(report["steps"], time.time(), figures_of({"test": test})))
            try:
                if self._told.empty():
                    self.tracker.log(points)
                    points = []
                if report:
                    self.tracker.close(status_of(report))
            # whatever a server, a network or a disk can do; a training does not end for it
            except Exception as error:
                self._warn(explain(self.name, error))

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self.run.warn(f"{reason}; the training goes on, metrics.jsonl has all")


def figures_of(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row or report, and the ends of intervals, by names such as train/loss; without those of each class."""
    numbers: dict[str, float] = {}
    for name, value in flatten(tree).items():
        if name in UNTOLD or ".per_class." in name:
            continue
        named = prefix + name.replace(".", "/")
        if isinstance(value, int | float):
            numbers[named] = float(value)
        elif name.endswith("_ci95"):
            numbers |= {f"{named}_low": value[0], f"{named}_high": value[1]}
    return numbers


def status_of(report: Mapping[str, Any]) -> str | None:
    """MLflow's word for how a run ended; None where it is only preempted, and goes on."""
    if report["status"] != "preempted":
        return "FINISHED" if report["status"] == "complete" else "FAILED"
    cause = str(report["restarts"]["starts"][-1]["cause"])
    return "KILLED" if cause.startswith("SIGINT") or cause.endswith("cancelled") else None


def explain(name: str, error: BaseException) -> str:
    """What is behind a tracker's error, in a line without passwords."""
    root = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__ or root
    where = f"{mlflow_uri()}: " if name == "mlflow" else ""
    reason = " ".join(str(root if isinstance(root, OSError) else error).split())
    return re.sub(r"//[^@/\s]*@", "//", f"train.track=[{name}]: {where}{reason}")


def follow(cfg: TrainConfig, run: Run, mesh: Mesh, run_ids: Mapping[str, str]) -> dict[str, str]:
    """Let the trackers hear what a run records, and first what they have missed of it.

    Args:
        run_ids: of the trackers' runs to go on with.

    Returns:
        Those, and the ids of runs begun now.

    Raises:
        UserError: a tracker refuses or does not answer, and there is no run to go on with.
    """

    def begin() -> dict[str, str]:
        ids = dict(run_ids)
        for name in sorted(set(cfg.track)):
            try:
                tracker = OPEN[name](run, ids.get(name))
            # whatever it is, better said before a training than after; one that is under way does not end for it
            except Exception as error:
                if name not in ids:
                    raise UserError(explain(name, error)) from error
                run.warn(f"{explain(name, error)}; the training goes on without it, its next start tells it all")
                continue
            ids[name] = tracker.run_id
            relay = Relay(name, tracker, run)
            for row in run.rows():
                relay.row(row)
            run.listeners.append(relay)
        return ids

    return mesh.on_first(begin)
