"""Proof that an interrupted training loses nothing: the same training undisturbed and disturbed, compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from parallel_tunes import history
from parallel_tunes.config import TrainJob, VerifyJob
from parallel_tunes.config_train import VerifyConfig
from parallel_tunes.parallel import launch
from parallel_tunes.parallel.slurm import Allocation
from parallel_tunes.schema import UserError, to_words
from parallel_tunes.train.checkpoint import steps_in
from parallel_tunes.train.disturbance import VARIABLE, parse


class Trial:
    """One training, started as often as it takes.

    Args:
        folder: its run folder.
        cfg: the training; its run folder is replaced.
    """

    def __init__(self, folder: Path, cfg: VerifyJob, allocation: Allocation | None) -> None:
        self.folder, self.allocation = folder, allocation
        run = replace(cfg.run, dir=folder, name=None, page=False)
        job = TrainJob(**{name: getattr(cfg, name) for name in TrainJob.__dataclass_fields__} | {"run": run})
        self.words = ["train", *to_words(job, "train")]

    def start(self, num_ranks: int, disturbance: str) -> str:
        """Start it on so many ranks until it ends; its status.

        Raises:
            UserError: it failed, and not because it was disturbed.
        """
        command = launch.ranks_command(self.words, num_ranks=num_ranks, allocation=self.allocation)
        environment = command.environment | {VARIABLE: disturbance}
        output = self.folder.with_suffix(".log")
        code = launch.run(replace(command, environment=environment), output)
        status = str(self.report().get("status", "killed"))
        if status != "complete" and not disturbance:
            raise UserError(f"the training itself does not end well (exit code {code}); see {output}")
        return status

    def report(self) -> dict[str, Any]:
        """The training's report; empty where there is none."""
        try:
            report: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return report


def run_trials(
    cfg: VerifyJob, folder: Path, allocation: Allocation | None, say: Callable[[str], None]
) -> tuple[Trial, Trial]:
    """The training undisturbed, then disturbed and resumed as often as `verify.kill_at` says.

    Raises:
        UserError: a disturbance is unknown, comes too late to happen, or the training itself fails.
    """
    for text in cfg.verify.kill_at:
        parse(text)
    num_ranks = cfg.verify.ranks or (allocation.num_ranks if allocation else 1)
    for ranks in filter(None, (num_ranks, cfg.verify.resume_ranks)):
        if allocation and ranks % len(allocation.nodes):
            raise UserError(f"{ranks} ranks on {len(allocation.nodes)} nodes: choose a multiple of the nodes")
    undisturbed, disturbed = (Trial(folder / name, cfg, allocation) for name in ("undisturbed", "disturbed"))
    undisturbed.start(num_ranks, "")
    num_steps = undisturbed.report()["steps"]
    say(f"undisturbed, {num_ranks} ranks: {num_steps} steps")
    kill_at = cfg.verify.kill_at or (f"step:{min(7, -(-num_steps // 2))}", "during:checkpoint", "signal:USR1")
    for kind, value in map(parse, kill_at):
        if kind == "step" and int(value) > num_steps:
            raise UserError(
                f"verify.kill_at: step:{value} cannot happen in {num_steps} steps: give it a smaller one, or more epochs"
            )
    if disturbed.report().get("status") != "complete":
        later = cfg.verify.resume_ranks or num_ranks
        happened = len(history.read_starts(disturbed.folder))  # before this job was itself interrupted
        for number, text in list(enumerate(kill_at))[happened:]:
            if disturbed.start(num_ranks if number == 0 else later, text) == "complete":
                if not cfg.verify.kill_at:
                    say(f"{text} comes too late: the training was over")
                    break
                raise UserError(
                    f"verify.kill_at: {text} never happened: the training was over; give it a smaller step or more epochs"
                )
            how = history.read_starts(disturbed.folder)[-1]
            say(f"disturbed by {text}: {how.get('status') or 'killed'}")
        if disturbed.report().get("status") != "complete":
            disturbed.start(later, "")
    report = disturbed.report()
    say(f"resumed to its end: {report['steps']} steps, {report['restarts']['lost_steps']} of them lost and done again")
    return undisturbed, disturbed


def compare(undisturbed: Path, disturbed: Path, cfg: VerifyConfig, *, exact: bool) -> dict[str, dict[str, Any]]:
    """What two runs came to, kind by kind: whether equal, and the largest relative difference.

    Args:
        exact: whether bits must be equal; else numbers may differ by `cfg.tolerance`. The samples must be the same anyhow.
    """
    one, other = (read_outcome(folder) for folder in (undisturbed, disturbed))
    found = {}
    for kind in one:
        differences = list(differ(one[kind], other[kind]))
        largest = max(differences, default=0.0)
        must = exact or kind == "samples"
        found[kind] = {
            "equal": largest <= (0.0 if must else cfg.tolerance),
            "largest_difference": finite(largest),
            "num_compared": len(differences),
        }
    return found


def read_outcome(folder: Path) -> dict[str, Any]:
    """Weights, optimizer, samples, losses and metrics of a complete run."""
    newest = folder / "checkpoints" / f"step-{steps_in(folder)[-1]}.pt"
    state = torch.load(newest, map_location="cpu", weights_only=True)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": load_file(folder / "model" / "model.safetensors"),
        "optimizer": state["learner"]["optimizer"],
        "samples": [(row["seed"], row["epoch"], row["samples"]) for row in rows],
        "losses": [(row["train"], row["valid"]) for row in rows],
        "metrics": json.loads((folder / "report.json").read_text())["metrics"],
    }


def differ(one: Any, other: Any) -> Iterator[float]:
    """Relative differences of two trees, leaf by leaf; infinite where they are no numbers, or have no like."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            yield from differ(one[name], other[name])
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for left, right in zip(one, other, strict=True):
            yield from differ(left, right)
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and one.shape == other.shape:
        if torch.equal(one, other):
            yield 0.0
        else:
            scale = max(float(one.double().norm()), 1e-12)
            yield max(float((one.double() - other.double()).norm()) / scale, math.ulp(0.0))
    elif one == other:
        yield 0.0
    elif isinstance(one, float) and isinstance(other, float):
        yield abs(one - other) / max(abs(one), 1e-12)
    else:
        yield math.inf


def finite(value: float) -> float | str:
    """`value` as JSON can hold it."""
    return value if math.isfinite(value) else "no comparison"
