"""Figures of a training in TensorBoard and MLflow, besides metrics.jsonl: one run of each, whatever the number of starts."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, flatten

MODULES = {"mlflow": "mlflow.tracking", "tensorboard": "torch.utils.tensorboard"}
# by default MLflow tries for minutes, reports its use, prints, and refuses the file store; one thread keeps the order of rows
MLFLOW = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE": "1",
}
NO_FIGURES = ("seed", "epoch", "step", "train.n", "valid.n", "seconds", "eval_s")  # of a row


class Tracker(ABC):
    """One run of TensorBoard's or MLflow's. Its first failure is a warning; none ends the training."""

    name: ClassVar[str]
    run_id: str

    def __init__(self, run: Run) -> None:
        self.run, self._has_warned = run, False
        self.steps = set[int]()  # whose rows earlier starts have sent

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send figures in the background."""

    @abstractmethod
    def close(self, status: str | None) -> None:
        """Send the rest and end the run as FINISHED, FAILED or KILLED; None leaves it open."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Send a row of metrics.jsonl, once."""
        if row["step"] not in self.steps:
            prefix = f"seed-{row['seed']}/" if len(self.run.config["train"]["seeds"]) > 1 else ""
            self._try(self.log, row["step"], figures_of(row, prefix))

    def end(self, report: Mapping[str, Any]) -> None:
        """Send the figures of the test split, and how the run has ended."""
        if test := report["metrics"].get("test"):
            self._try(self.log, report["steps"], figures_of({"test": test}))
        self._try(self.close, status_of(report))

    def _try(self, send: Callable[..., None], *args: Any) -> None:
        try:
            send(*args)
        except Exception as error:  # whatever a server, a network or a disk can do
            if not self._has_warned:
                self._has_warned = True
                self.run.warn(f"{explain(self.name, error)}; the training goes on, metrics.jsonl has all")


class TensorBoard(Tracker):
    """Event files in the run folder. Each start sends all rows again, and its first event cancels what earlier ones sent."""

    name = "tensorboard"

    def __init__(self, run: Run, run_id: str | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(run)
        self.run_id = run_id or "tensorboard"
        self._writer = SummaryWriter(str(run.folder / self.run_id), purge_step=0, flush_secs=10)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self, status: str | None) -> None:
        del status
        self._writer.close()


class Mlflow(Tracker):
    """A run on the server that MLFLOW_TRACKING_URI names, else in logs/mlruns."""

    name = "mlflow"

    def __init__(self, run: Run, run_id: str | None) -> None:
        from mlflow.tracking import MlflowClient

        super().__init__(run)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # errors are raised too
        self._client: Any = MlflowClient(mlflow_uri())
        self._sending: Any = None
        self.run_id = run_id or self._create_run()
        self._resume()

    def _create_run(self) -> str:
        """Begin a run of the experiment, with the config; its id."""
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        name, folder = os.environ.get("MLFLOW_EXPERIMENT_NAME", "parallel_tunes"), self.run.folder
        try:
            experiment = self._client.create_experiment(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = self._client.get_experiment_by_name(name).experiment_id
        tags = {"folder": str(folder.absolute())}
        run_id = str(self._client.create_run(experiment, run_name=folder.name, tags=tags).info.run_id)
        settings = {name: v if isinstance(v, str) else json.dumps(v) for name, v in flatten(self.run.config).items()}
        self._client.log_batch(run_id, params=[Param(*setting) for setting in settings.items()])
        return run_id

    def _resume(self) -> None:
        """Mark the run as running, and look up which rows it has."""
        self._client.update_run(self.run_id, status="RUNNING")
        losses = [key for key in self._client.get_run(self.run_id).data.metrics if key.endswith("train/loss")]
        self.steps = {metric.step for key in losses for metric in self._client.get_metric_history(self.run_id, key)}

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, value, now_ms, step) for name, value in figures.items()]
        before, self._sending = self._sending, self._client.log_batch(self.run_id, metrics=metrics, synchronous=False)
        if before:  # sent an epoch ago: a server that hangs has two rows to answer at most
            before.wait()

    def close(self, status: str | None) -> None:
        try:
            if self._sending:
                self._sending.wait()
        finally:
            if status:
                self._client.set_terminated(self.run_id, status)


def figures_of(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a row or report, and the ends of intervals, by names such as train/loss; without those of each class."""
    numbers: dict[str, float] = {}
    for name, value in flatten(tree).items():
        if name in NO_FIGURES or ".per_class." in name:
            continue
        named = prefix + name.replace(".", "/")
        if isinstance(value, int | float):
            numbers[named] = float(value)
        elif name.endswith("_ci95"):
            numbers |= {f"{named}_low": value[0], f"{named}_high": value[1]}
    return numbers


def status_of(report: Mapping[str, Any]) -> str | None:
    """MLflow's word for how a run ended; None where it was only preempted, and goes on."""
    if report["status"] != "preempted":
        return "FINISHED" if report["status"] == "complete" else "FAILED"
    cause = str(report["restarts"]["starts"][-1]["cause"])
    return "KILLED" if cause.startswith("SIGINT") or cause.endswith("cancelled") else None


def explain(name: str, error: BaseException) -> str:
    """The reason behind a tracker's error, in one line without passwords."""
    root = error
    while root.__cause__ or root.__context__:
        root = root.__cause__ or root.__context__ or root
    where = f"{mlflow_uri()}: " if name == "mlflow" else ""
    reason = " ".join(str(root if isinstance(root, OSError) else error).split())
    return re.sub(r"//[^@/\s]*@", "//", f"train.track=[{name}]: {where}{reason}")


def mlflow_uri() -> str:
    """Where MLflow's runs are: a server, or a folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or Path("logs/mlruns").absolute().as_uri()


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


def follow(cfg: TrainConfig, run: Run, mesh: Mesh, run_ids: Mapping[str, str]) -> dict[str, str]:
    """Send to the trackers what a run records from now on, and first the rows that they lack.

    Args:
        run_ids: of the trackers' runs to go on with, as the checkpoint has them.

    Returns:
        Those, and the ids of runs begun now.

    Raises:
        UserError: a tracker refuses or does not answer, and there is no run to go on with.
    """

    def begin() -> dict[str, str]:
        ids = dict(run_ids)
        for name in sorted(set(cfg.track)):
            try:
                tracker = (Mlflow if name == "mlflow" else TensorBoard)(run, ids.get(name))
            except Exception as error:
                if name not in ids:  # better known before a training than after
                    raise UserError(explain(name, error)) from error
                run.warn(f"{explain(name, error)}; the training goes on without it, its next start sends all rows")
                continue
            ids[name] = tracker.run_id
            for row in run.rows():
                tracker.row(row)
            run.listeners.append(tracker)
        return ids

    return mesh.on_first(begin)
