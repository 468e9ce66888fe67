from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from fakes import TINY, corpus_of, door, ptunes

from parallel_tunes.schema import flatten
from parallel_tunes.train.disturbance import VARIABLE
from parallel_tunes.train.trackers import MLFLOW, require, status_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

pytestmark = [
    pytest.mark.extras,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("mlflow", "tensorboard"))),
        reason="an optional extra is not installed: pip install -e '.[tracking]'",
    ),
]
BOTH = "train.track=[tensorboard,mlflow]"
Curves = dict[str, dict[int, float]]  # by name and step


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", *MLFLOW):
        monkeypatch.setenv(name, "")  # so that what the training sets is taken back
        monkeypatch.delenv(name)


def words(workshop: Path, *more: str) -> list[str]:
    return ["train", *corpus_of(workshop), *TINY, "train.num_epochs=3", "run.name=one", *more]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "logs/train/one/metrics.jsonl").read_text().splitlines()]


def curves_of(rows: list[dict[str, Any]], *, names_seeds: bool = False) -> Curves:
    """What the trackers should have of the rows of metrics.jsonl."""
    curves: Curves = {}
    for row in rows:
        prefix = f"seed-{row['seed']}/" if names_seeds else ""
        for part in ("train", "valid"):
            for name in ("loss", "accuracy"):
                curves.setdefault(f"{prefix}{part}/{name}", {})[row["step"]] = row[part][name]
        curves.setdefault(f"{prefix}samples_per_s", {})[row["step"]] = row["samples_per_s"]
    return curves


def boarded(folder: Path) -> Curves:
    """What TensorBoard shows of the run; each step once."""
    from tensorboard.backend.event_processing import event_accumulator

    events = event_accumulator.EventAccumulator(
        str(folder / "logs/train/one/tensorboard"), {event_accumulator.SCALARS: 0}
    ).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert all(len(points) == len(dict(points)) for points in found.values())
    return {tag: dict(points) for tag, points in found.items()}


def mlflow_run(folder: Path) -> tuple[MlflowClient, Run]:
    """MLflow's one and only run."""
    require(("mlflow",))
    from mlflow.tracking import MlflowClient

    client = MlflowClient((folder / "logs/mlruns").as_uri())
    experiment = client.get_experiment_by_name("parallel_tunes")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def flowed(folder: Path) -> Curves:
    """What MLflow has of the run; each step once."""
    client, run = mlflow_run(folder)
    found = {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    assert all(len(points) == len(dict(points)) for points in found.values())
    return {name: dict(points) for name, points in found.items()}


def assert_has(found: Curves, rows: list[dict[str, Any]], *, names_seeds: bool = False) -> None:
    """A tracker has the rows, no others, and the test's figures at the last step."""
    curves = {name: points for name, points in found.items() if not name.startswith("test/")}
    wanted = curves_of(rows, names_seeds=names_seeds)
    assert curves.keys() == wanted.keys()
    for name, points in curves.items():
        assert points == pytest.approx(wanted[name], rel=1e-6), name  # TensorBoard keeps float32
    assert set(found["test/accuracy"]) == {rows[-1]["step"]}


def test_both_have_the_figures_the_config_and_the_end(
    workshop: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert door(*words(workshop, BOTH, "train.seeds=[3,4]", "train.num_epochs=2"), cwd=tmp_path) == 0
    said = capfd.readouterr()
    assert said.err == ""
    words_first = {line.split()[0] for line in said.out.splitlines()}  # nothing of the trackers' own
    assert words_first <= {"grouped", "genre_cnn:", "seed", "accuracy", "model:", "page:", "report:"}
    report = json.loads((tmp_path / "logs/train/one/report.json").read_text())
    test = report["metrics"]["test"]
    for found in (boarded(tmp_path), flowed(tmp_path)):
        assert_has(found, rows_of(tmp_path), names_seeds=True)
        last = {name: points[report["steps"]] for name, points in found.items() if name.startswith("test/")}
        assert last["test/accuracy"] == pytest.approx(test["accuracy"])
        assert last["test/n"] == 20
        ends = [last[f"test/accuracy_ci95_{end}"] for end in ("low", "high")]
        assert ends == pytest.approx(test["accuracy_ci95"])
        assert last["test/ensemble/loss"] == pytest.approx(test["ensemble"]["loss"])
        assert not [name for name in last if "per_class" in name]
    _, run = mlflow_run(tmp_path)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "one")
    last = torch.load(tmp_path / "logs/train/one/checkpoints/step-20.pt", weights_only=True)
    assert last["progress"]["run_ids"] == {"mlflow": run.info.run_id, "tensorboard": "tensorboard"}
    assert run.data.tags["folder"] == str(tmp_path / "logs/train/one")
    config = flatten(yaml.safe_load((tmp_path / "logs/train/one/config.yaml").read_text()))
    assert run.data.params.keys() == config.keys() - {"job"}
    assert run.data.params["train.lr"] == "0.002"
    assert run.data.params["model.widths"] == "[4, 8]"
    assert run.data.params["task.name"] == "genre"


def test_a_run_that_is_stopped_goes_on_as_one_run(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row once; a tracker that is named only later gets the rows from before too."""
    monkeypatch.setenv(VARIABLE, "signal:TERM")
    for _ in range(2):  # to step 6
        assert door(*words(workshop, "train.track=[mlflow]"), cwd=tmp_path) == 0
    _, first = mlflow_run(tmp_path)
    assert first.info.status == "RUNNING"
    assert set(flowed(tmp_path)["train/loss"]) == {5}
    monkeypatch.delenv(VARIABLE)
    assert door(*words(workshop, BOTH), cwd=tmp_path) == 0
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert_has(boarded(tmp_path), rows)
    assert_has(flowed(tmp_path), rows)
    _, last = mlflow_run(tmp_path)
    assert (last.info.run_id, last.info.status) == (first.info.run_id, "FINISHED")


@pytest.mark.slow
def test_a_run_that_is_killed_and_stopped_stays_one_run(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its first epoch, stopped twice; then checkpoints are lost, and a row that was sent is computed again."""
    given = words(workshop, BOTH)
    checkpoints, kept = tmp_path / "logs/train/one/checkpoints", tmp_path / "kept"
    ptunes(*given, cwd=tmp_path, check=False, PT_DISTURB="step:4")
    _, first = mlflow_run(tmp_path)
    assert first.info.status == "RUNNING"
    monkeypatch.setenv(VARIABLE, "signal:TERM")
    assert door(*given, cwd=tmp_path) == 0
    assert mlflow_run(tmp_path)[1].info.status == "RUNNING"
    shutil.copytree(checkpoints, kept)
    monkeypatch.setenv(VARIABLE, "signal:INT")
    assert door(*given, cwd=tmp_path) == 0
    assert mlflow_run(tmp_path)[1].info.status == "KILLED"
    assert set(boarded(tmp_path)["train/loss"]) == set(flowed(tmp_path)["train/loss"]) == {5}
    monkeypatch.delenv(VARIABLE)
    shutil.rmtree(checkpoints)
    kept.rename(checkpoints)
    assert door(*given, cwd=tmp_path) == 0
    rows, on_board, in_mlflow = rows_of(tmp_path), boarded(tmp_path), flowed(tmp_path)
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert_has(on_board, rows)
    in_mlflow["samples_per_s"][5] = rows[0]["samples_per_s"]  # it keeps what came first: all else is the same
    assert_has(in_mlflow, rows)
    _, last = mlflow_run(tmp_path)
    assert (last.info.run_id, last.info.status) == (first.info.run_id, "FINISHED")


def test_the_status_says_how_the_run_ended() -> None:
    def ended(status: str, cause: str | None = None) -> str | None:
        return status_of(
            {"status": status, "restarts": {"starts": [{"cause": "killed without notice"}, {"cause": cause}]}}
        )

    assert ended("complete") == "FINISHED"
    assert ended("failed", "UserError: no loss") == "FAILED"
    assert ended("preempted", "SIGINT") == "KILLED"
    assert ended("preempted", "SIGTERM: the job was cancelled") == "KILLED"
    assert ended("preempted", "SIGTERM: preempted by Slurm") is None  # it goes on


@pytest.mark.parametrize(("name", "module"), [("mlflow", "mlflow.tracking"), ("tensorboard", "tensorboard")])
def test_a_missing_package_is_one_line_before_anything_else(
    name: str, module: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)  # what Python does where it is not installed
    given = [word for word in words(workshop, f"train.track=[{name}]") if not word.startswith("data.shards=")]
    assert door(*given, cwd=tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ptunes: train.track=[{name}]: ")
    assert line.endswith("pip install -e '.[tracking]' in the checkout")
    assert not (tmp_path / "logs/preprocess").exists()


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A port of this machine that is taken, where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken


@pytest.mark.parametrize(("listens", "reason"), [(False, "Connection refused"), (True, "timed out")])
def test_a_server_that_does_not_answer_is_one_line(
    listens: bool, reason: str, port: socket.socket, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    number = port.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{number}")
    if listens:
        port.listen()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # what is set stays so
    assert door(*words(workshop, BOTH), cwd=tmp_path) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"ptunes: train.track=[mlflow]: http://127.0.0.1:{number}: ")
    assert reason in line
    assert "secret" not in line
    assert not list(tmp_path.rglob("step-*.pt"))


class Server:
    """As much of MLflow's server as a client's requests need; keeps what it was sent.

    Another job has made the experiment.

    Args:
        refuses: the number of the batch of metrics that is refused.
        dies_after: the number of the batch that is answered last.
    """

    def __init__(self, refuses: int = 0, dies_after: int = 0) -> None:
        self.metrics: list[tuple[str, int]] = []
        self.num_batches = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = outer.answer(self.path.partition("?")[0].rpartition("mlflow/")[2], json.loads(body or "{}"))
                refusal = {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "no room"}
                text = json.dumps(refusal if answer is None else answer).encode()
                self.send_response(200 if answer is not None else 400)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.refuses, self.dies_after = refuses, dies_after
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,)).start()

    def answer(self, what: str, told: dict[str, Any]) -> dict[str, Any] | None:
        run = {"run": {"info": {"run_id": "7"}, "data": {}}}
        if what == "runs/log-batch" and "metrics" in told:
            self.num_batches += 1
            if self.num_batches == self.refuses:
                return None
            self.metrics += [(metric["key"], metric["step"]) for metric in told["metrics"]]
            if self.num_batches == self.dies_after:
                self.close()
        if what == "experiments/create":
            return None
        if what.startswith("experiments/"):
            return {"experiment": {"experiment_id": "1"}}
        return run if what in ("runs/create", "runs/get") else {}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_server_that_refuses_a_row_and_dies_later_costs_one_warning(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = Server(refuses=1, dies_after=2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert door(*words(workshop, "train.track=[mlflow]"), cwd=tmp_path) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"ptunes: warning: train.track=[mlflow]: {server.uri}: ")
    assert "no room" in line
    assert line.endswith("; the training goes on, metrics.jsonl has all")
    assert [step for name, step in server.metrics if name == "train/loss"] == [10]
    assert [row["step"] for row in rows_of(tmp_path)] == [5, 10, 15]
    assert json.loads((tmp_path / "logs/train/one/report.json").read_text())["status"] == "complete"


def test_a_server_that_is_gone_does_not_end_a_training_under_way(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = Server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv(VARIABLE, "signal:TERM")
    assert door(*words(workshop, "train.track=[mlflow]"), cwd=tmp_path) == 0
    server.close()
    assert door(*words(workshop, "train.track=[mlflow]"), cwd=tmp_path) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"ptunes: warning: train.track=[mlflow]: {server.uri}: ")
    assert line.endswith("the training goes on without it, its next start sends all rows")
    last = torch.load(tmp_path / "logs/train/one/checkpoints/step-6.pt", weights_only=True)
    assert last["progress"]["run_ids"] == {"mlflow": "7"}
