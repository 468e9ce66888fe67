"""One training for each of train.seeds, whatever is learnt: each from where the run is, its best model judged by the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.data.batches import Ids
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import checkpoint, metrics, trackers, trainer
from parallel_tunes.train.gradient import scale_lr
from parallel_tunes.train.learner import Learner, Source
from parallel_tunes.train.profile import Profile, read_profile
from parallel_tunes.train.stopwatch import Stopwatch, describe_cost
from parallel_tunes.train.timing import read_timing


@dataclass(frozen=True)
class Fitted:
    """What the trainings of all seeds gave."""

    seeds: tuple[int, ...]
    bests: list[dict[str, Any]]  # the best checkpoint of each
    judged: list[metrics.Judged]  # its answers on the test split
    validated: list[metrics.Judged]  # and on the validation split, where they are wanted
    batch: int
    num_steps: int
    num_parameters: int
    precision: str

    @property
    def best(self) -> dict[str, Any]:
        """The best checkpoint of the best seed, by validation."""
        return self.bests[self.best_at]

    @property
    def summary(self) -> dict[str, Any]:
        """Of the training, for model.json."""
        seed, best = self.seeds[self.best_at], self.best
        return {"seeds": list(self.seeds), "seed": seed, "epoch": best["epoch"], "valid": best["valid"]}

    @property
    def best_at(self) -> int:
        """Which seed that is."""
        losses = [(best["valid"] or {"loss": 0.0})["loss"] for best in self.bests]
        return losses.index(min(losses))


class Begin(Protocol):
    """Makes the data and the learner of a training, before its first step."""

    def __call__(self, mesh: Mesh, *, batch: int, seed: int) -> tuple[Source, Learner]: ...


def fit_seeds(
    cfg: TrainConfig, mesh: Mesh, run: Run, watch: Stopwatch, *,
    name: str, digest: str, begin: Begin, find_batch: Callable[[int], int], test: Ids, valid: Ids | None = None,
) -> Fitted | None:  # fmt: skip
    """Train each seed from where the run is, and judge its best model by the test split; None when asked to stop.

    Args:
        name: of the model.
        digest: names the data in every checkpoint.
        find_batch: gives the global batch, of the one an earlier start of the run chose; 0 if this is the first.
        test: rows of the test split, of which there may be none.
        valid: those of the validation split, if its answers are wanted too.
    """
    state = checkpoint.resume(run, mesh, digest)
    progress = trainer.Progress(**state["progress"]) if state else trainer.Progress()
    progress.batch = find_batch(progress.batch)
    run.cut_rows(progress.num_rows)
    progress.run_ids = trackers.follow(cfg, run, mesh, progress.run_ids)
    profile = Profile(cfg, mesh, run, watch)
    bests, judged, validated = [], [], []
    for number, seed in enumerate(cfg.seeds):
        source, learner = begin(mesh, batch=progress.batch, seed=seed)
        if number == 0:
            num_parameters = learner.num_parameters
            told = f"{learner.precision} on {mesh.world_size} x {mesh.device_name}"
            run.log(f"{name}: {num_parameters} parameters; {told}")
        if number > progress.seed_at:
            progress, state = progress.next_seed(), None
        if number == progress.seed_at:
            fit = trainer.Trainer(
                learner, source, cfg, mesh, run, progress=progress, index_digest=digest, watch=watch, profile=profile
            ).fit
            if not fit(state["learner"] if state else None):
                return None
        best = mesh.on_first(partial(checkpoint.load, run, f"best-{seed}.pt"))
        if best is None:
            raise UserError(f"{run.folder}/checkpoints/best-{seed}.pt is damaged: train again under another run.name")
        learner.load_weights(best["weights"])
        bests.append(best)
        judged.append(_answer(learner, source, "test", test, mesh))
        if valid is not None:
            validated.append(_answer(learner, source, "valid", valid, mesh))
        watch.lap("eval")
    num_steps, precision = progress.total_step, learner.precision
    return Fitted(cfg.seeds, bests, judged, validated, progress.batch, num_steps, num_parameters, precision)


def _answer(learner: Learner, source: Source, split: str, rows: Ids, mesh: Mesh) -> metrics.Judged:
    return metrics.Judged(rows, trainer.judge(learner, source, split, mesh), source.targets(split))


def describe_training(cfg: TrainConfig, fitted: Fitted, mesh: Mesh, run: Run, watch: Stopwatch) -> dict[str, Any]:
    """What every report says of a training: rates, steps, learning rate, time, memory, profile and timing."""
    return {
        "samples_per_s": median_rate(run),
        "global_batch": fitted.batch,
        "steps": fitted.num_steps,
        "lr": {"rule": cfg.lr_rule, "highest": scale_lr(cfg, fitted.batch)},
        "num_parameters": fitted.num_parameters,
        "precision": fitted.precision,
        **describe_cost(watch, mesh),
        **read_profile(run),
        **read_timing(run),
        **({} if cfg.target is None else {"target": find_target(cfg.target, list(fitted.seeds), run)}),
    }


def find_target(wanted: float, seeds: list[int], run: Run) -> dict[str, Any]:
    """When each seed's validation accuracy had reached what was wanted: epochs and seconds of training; None where it never did."""
    found = dict[int, tuple[int, float]]()
    for row in run.rows():
        if row["valid"] and row["valid"]["accuracy"] >= wanted:
            found.setdefault(row["seed"], (row["epoch"] + 1, row["seconds"]))
    epochs, seconds = zip(*(found.get(seed, (None, None)) for seed in seeds), strict=True)
    return {"accuracy": wanted, "epochs": list(epochs), "seconds": list(seconds)}


def median_rate(run: Run) -> float | None:
    """Samples a second while training, the median of the epochs."""
    rates = [row["samples_per_s"] for row in run.rows()]
    return float(np.median(rates)) if rates else None
