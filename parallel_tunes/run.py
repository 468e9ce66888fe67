"""A Run: its folder, resolved config, log, metrics.jsonl and report.json. Only rank 0's Run writes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

import yaml
from tqdm import tqdm

from parallel_tunes import files
from parallel_tunes.history import History
from parallel_tunes.schema import UserError, flatten, to_plain

# Keys that may differ when a run goes on: where it runs and for how long, not what it computes. Which data a run
# reads is told by the index's digest, not by a path.
RESOURCES = (
    "run.",
    "parallel.",
    "preprocess.",
    "train.num_epochs",
    "train.max_steps",
    "train.target",
    "train.timing",
    "train.device",
    "train.track",
    "train.profile",
    "scaling.launcher",
    "scaling.exclusive",
    "scaling.timeout_s",
    "scaling.print",
    "scaling.share",
    "resources.",
    "serve.",
    "report",
    "data.root",
    "data.shards",
    "data.kind",
    "data.strict",
    "data.verify",
    "data.leaks",  # what it drops is told by the digest in each checkpoint
)
PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "numba",
    "soundfile",
    "av",
    "soxr",
    "librosa",
    "ipyparallel",
    "hydra-core",
)


@dataclass
class Stop:
    """Whether this process was told to stop, and by which signal."""

    signal_name: str | None = None


def say(text: str, stream: TextIO | None = None, *, end: str = "\n") -> None:
    """Print for people, on standard output unless told otherwise; where nobody reads any more (`| head -1`), go on without."""
    stream = stream or sys.stdout
    text = text.encode(errors="backslashreplace").decode()  # a file's name may be no text
    try:
        print(text, file=stream, end=end, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else Python complains at its end
        os.close(nowhere)


class Listener(Protocol):
    """Who else is told what a run records, and how it ends."""

    def row(self, row: Mapping[str, Any]) -> None:
        """Hear of a row of metrics.jsonl."""

    def end(self, report: Mapping[str, Any]) -> None:
        """Hear of report.json."""


class Run:
    """One run of a job in one folder, whatever the world size.

    Args:
        job: name of the job.
        cfg: the job's config dataclass.
        folder: the run folder; made by `open`.
        is_writer: whether this is rank 0; every other rank's writes do nothing.
        started: when the job was started, seconds since 1970.
        stop: set by a signal.
        is_array_task: whether this is one task of a job array, in a folder of its own below that of the whole.
    """

    def __init__(
        self,
        job: str,
        cfg: Any,
        folder: Path,
        *,
        is_writer: bool,
        started: float,
        stop: Stop | None = None,
        is_array_task: bool = False,
    ) -> None:
        self.job = job
        self.folder = folder
        self.is_writer = is_writer
        self.stop = stop or Stop()
        self.is_array_task = is_array_task
        self.history = History(folder, self.write_bytes)
        self.listeners: list[Listener] = []
        self.config: dict[str, Any] = to_plain(cfg)
        self._started = min(started, time.time())
        self._token = secrets.token_hex(8)

    @property
    def should_stop(self) -> bool:
        """Whether this rank was told to stop."""
        return self.stop.signal_name is not None

    def open(self) -> dict[str, Any] | None:
        """Make or take over the folder; the report if the run is complete already.

        Raises:
            UserError: the folder holds something else, or a run with another config, or cannot be written.
        """
        before = self._read_before()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.remove_partials(self.folder)
            owner = {"token": self._token, "pid": os.getpid(), "host": platform.node()}
            slurm = {name: os.environ.get(f"SLURM_{name.upper()}") for name in ("job_id", "restart_count")}
            files.write_json(self.folder / "owner.json", owner | slurm)
            if before is None:
                text = yaml.safe_dump({"job": self.job, **self.config}, sort_keys=False, allow_unicode=True)
                files.write_text(self.folder / "config.yaml", text)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({files.explain(error)}); choose another run.dir"
            ) from error
        report = self.read_report()
        return report if report and report["status"] == "complete" else None

    def inspect(self) -> dict[str, Any] | None:
        """The report of the run that `open` would go on with, if there is one; raises what `open` would."""
        return self.read_report() if self._read_before() else None

    def _read_before(self) -> dict[str, Any] | None:
        if not self.folder.is_dir() or not any(map(_is_foreign, self.folder.iterdir())):
            return None
        before = self._read_config()
        self._check_same(before)
        return before

    def _read_config(self) -> dict[str, Any]:
        refused = (
            f"run.dir={self.folder} is not empty and holds no run of {self.job}: choose another run.dir or run.name"
        )
        try:
            tree = yaml.safe_load((self.folder / "config.yaml").read_text())
        except FileNotFoundError:
            raise UserError(refused) from None
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{refused} ({type(error).__name__} in config.yaml)") from error
        if not isinstance(tree, dict) or tree.get("job") != self.job:
            raise UserError(refused)
        return tree

    def _check_same(self, before: Mapping[str, Any]) -> None:
        old = flatten({name: value for name, value in before.items() if name != "job"})
        new = flatten(self.config)
        changed = [
            f"{name} was {old.get(name)}, is {new.get(name)}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name) and not name.startswith(RESOURCES)
        ]
        if changed:
            raise UserError(
                f"{self.folder} holds a {self.job} run with another config ({'; '.join(changed)}): choose another run.name"
            )

    def fence(self) -> None:
        """Raise if another process has taken this run over; called before every rename."""
        owner = json.loads((self.folder / "owner.json").read_text())
        if owner["token"] != self._token:
            raise UserError(
                f"{self.folder}: process {owner['pid']} on {owner['host']} has taken this run over; this one stops"
            )

    def write(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        """Write a file of the run folder, by rename, if this is rank 0 and the run is still its own."""
        if self.is_writer:
            try:
                files.write_file(self.folder / name, write, before_rename=self.fence)
            except OSError as error:
                reason = files.explain(error)
                raise UserError(f"{self.folder / name}: {reason}; what was there before stays good") from error

    def write_bytes(self, name: str, data: bytes) -> None:
        """`write` for what is in memory."""
        self.write(name, lambda stream: stream.write(data))

    def log(self, line: str) -> None:
        """Say a line on standard output and in log.txt."""
        if self.is_writer:
            say(line)
            with (self.folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def warn(self, line: str) -> None:
        """Say a line of warning on standard error and in log.txt."""
        if self.is_writer:
            say(f"ptunes: warning: {line}", sys.stderr)
            with (self.folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} warning: {line}\n")

    def progress(self, title: str, total: int, unit: str = " tracks", done: int = 0) -> tqdm[Any]:
        """A bar with rate and time left on standard error; nothing on other ranks or where that is no terminal."""
        hidden = None if self.is_writer else True
        return tqdm(total=total, initial=done, desc=title, unit=unit, disable=hidden, dynamic_ncols=True, leave=False)

    def record(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        if self.is_writer:
            self.fence()
            with (self.folder / "metrics.jsonl").open("a") as stream:
                stream.write(json.dumps(row, allow_nan=False) + "\n")
            for listener in self.listeners:
                listener.row(row)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        try:
            return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def cut_rows(self, num_rows: int) -> None:
        """Cut metrics.jsonl back to what a checkpoint knows; a torn last line goes too."""
        path = self.folder / "metrics.jsonl"
        if self.is_writer and path.exists():
            kept = path.read_text(errors="replace").splitlines()[:num_rows]
            self.write_bytes("metrics.jsonl", "".join(line + "\n" for line in kept).encode())

    def read_report(self) -> dict[str, Any] | None:
        """report.json, or None where there is none yet."""
        try:
            report = json.loads((self.folder / "report.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return report if isinstance(report, dict) and "status" in report else None

    def make_report(self, status: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """What every report has, and `facts`."""
        return {
            "job": self.job,
            "status": status,
            "name": self.folder.name,
            "seconds": round(time.time() - self._started, 3),
            "world_size": 1,
            "device": "cpu",
            "versions": versions(),
            "git": git_revision(),
            "metrics": {},
            **facts,
        }

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write report.json: the last file of a run, since it says that the others are there."""
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        self.write_bytes("report.json", text.encode())
        for listener in self.listeners:
            listener.end(report)


def _is_foreign(path: Path) -> bool:
    """Whether a file was there before a run, or array tasks that go before it, had written its config."""
    ours = (files.TEMPORARY, "owner.json", "tasks", "shard-", "plan.json", ".engines-")
    return not path.name.startswith(ours)


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in ("parallel_tunes", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Revision of the checkout this package runs from, with `+` if changed since; None outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
