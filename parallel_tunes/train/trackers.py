"""Where figures can go besides metrics.jsonl: one run of TensorBoard's, in the run folder, or of MLflow's, on its server."""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, flatten

MODULES = {"mlflow": "mlflow.tracking", "tensorboard": "torch.utils.tensorboard"}
# MLflow's own defaults try for minutes, tell its makers of each use, print, and refuse the one store that needs no server
MLFLOW = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
}


@dataclass(frozen=True)
class Point:
    """Figures at a step; `at` is in seconds since 1970."""

    step: int
    at: float
    figures: Mapping[str, float]


class Tracker(Protocol):
    """One run of TensorBoard's or MLflow's."""

    run_id: str
    steps: set[int]  # whose rows it has already

    def log(self, points: list[Point]) -> None:
        """Take these figures."""

    def close(self, status: str | None) -> None:
        """End as FINISHED, FAILED or KILLED; None leaves the run open."""


class TensorBoard:
    """Event files in the run folder; those of rows that were cut from metrics.jsonl no longer count."""

    def __init__(self, run: Run, run_id: str | None) -> None:
        from tensorboard.backend.event_processing import event_accumulator
        from torch.utils.tensorboard import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)  # else it warns of each restart it reads of
        self.run_id = run_id or "tensorboard"
        folder, rows = run.folder / self.run_id, run.rows()
        folder.mkdir(exist_ok=True)
        found = event_accumulator.EventAccumulator(str(folder), {event_accumulator.SCALARS: 0}).Reload()
        losses = [tag for tag in found.Tags()["scalars"] if tag.endswith("train/loss")]
        self.steps = {event.step for tag in losses for event in found.Scalars(tag)} & {row["step"] for row in rows}
        self._writer = SummaryWriter(str(folder), purge_step=rows[-1]["step"] + 1 if rows else 0)

    def log(self, points: list[Point]) -> None:
        for point in points:
            for name, value in point.figures.items():
                self._writer.add_scalar(name, value, point.step, point.at)
        self._writer.flush()

    def close(self, status: str | None) -> None:
        del status
        self._writer.close()


class Mlflow:
    """A run on the server that MLFLOW_TRACKING_URI names, else in logs/mlruns."""

    def __init__(self, run: Run, run_id: str | None) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(mlflow_uri())
        if run_id is None:
            experiment = self._find_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "parallel_tunes"))
            tags = {"folder": str(run.folder.absolute())}
            run_id = str(self._client.create_run(experiment, run_name=run.folder.name, tags=tags).info.run_id)
            params = [
                Param(name, word(value)[:500]) for name, value in flatten(run.config).items()
            ]  # old servers' limit
            for first in range(0, len(params), 100):
                self._client.log_batch(run_id, params=params[first : first + 100])
        self.run_id = run_id
        self._client.update_run(run_id, status="RUNNING")
        losses = [key for key in self._client.get_run(run_id).data.metrics if key.endswith("train/loss")]
        self.steps = {metric.step for key in losses for metric in self._client.get_metric_history(run_id, key)}

    def _find_experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:
                found = self._client.get_experiment_by_name(name)  # another job may have been first
                if found is None:
                    raise
        return str(found.experiment_id)

    def log(self, points: list[Point]) -> None:
        metrics = [
            self._metric(name, value, int(point.at * 1000), point.step)
            for point in points
            for name, value in point.figures.items()
        ]
        for first in range(0, len(metrics), 1000):
            self._client.log_batch(self.run_id, metrics=metrics[first : first + 1000])

    def close(self, status: str | None) -> None:
        if status:
            self._client.set_terminated(self.run_id, status)


def word(value: object) -> str:
    """A value of a config as text."""
    return value if isinstance(value, str) else json.dumps(value)


def mlflow_uri() -> str:
    """Where MLflow's runs are: a server, or a folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or Path("logs/mlruns").absolute().as_uri()


OPEN: dict[str, Callable[[Run, str | None], Tracker]] = {"mlflow": Mlflow, "tensorboard": TensorBoard}


def require(track: tuple[str, ...]) -> None:
    """Load the packages of trackers.

    Raises:
        UserError: one is not installed.
    """
    for name in track:
        if name == "mlflow":
            os.environ.update({variable: value for variable, value in MLFLOW.items() if variable not in os.environ})
        try:
            importlib.import_module(MODULES[name])
        except ImportError as error:
            raise UserError(f"train.track=[{name}]: {error}: pip install -e '.[tracking]' in the checkout") from error
