"""THE loop: steps, exact sums across ranks, judging by validation, atomic checkpoints, a stop that all ranks agree on."""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_tunes.config_train import TrainConfig
from parallel_tunes.data.batches import make_ahead
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import checkpoint, metrics, timing
from parallel_tunes.train.disturbance import VARIABLE, Disturbance
from parallel_tunes.train.learner import Judge, Learner, Source, Sums
from parallel_tunes.train.profile import Profile
from parallel_tunes.train.stopwatch import Stopwatch

READ_EVERY = 50  # steps
NOTHING = (0,) * Sums.NUM


@dataclass
class Progress:
    """How far a run is: all that a checkpoint holds besides the learner."""

    seed_at: int = 0  # which of train.seeds
    epoch: int = 0
    step: int = 0  # within the epoch
    total_step: int = 0  # over all seeds
    num_rows: int = 0  # of metrics.jsonl
    best_loss: float = math.inf
    best_epoch: int = -1
    goal_loss: float = math.inf  # the validation loss that patience last saw beaten by train.min_delta, and its epoch
    goal_epoch: int = -1
    lr_factor: float = 1.0  # of train.schedule=plateau
    plateau_loss: float = math.inf  # what it last saw beaten, and for how many epochs it has waited since
    plateau_epochs: int = 0
    fitted: bool = False  # this seed is done
    batch: int = 0  # the global one; it stays what it was at the start, wherever the run goes on
    seconds: float = 0.0  # that this seed has been trained for, evaluations and checkpoints included, starts not
    sums: list[int] = field(default_factory=lambda: list(NOTHING))  # of the epoch so far, over all ranks
    run_ids: dict[str, str] = field(default_factory=dict)  # of the trackers' runs, which a requeued job goes on with

    def next_seed(self) -> Progress:
        """Where the training of the next seed starts."""
        return Progress(
            seed_at=self.seed_at + 1, total_step=self.total_step, num_rows=self.num_rows,
            batch=self.batch, run_ids=self.run_ids,
        )  # fmt: skip


class Trainer:
    """Trains one seed of a run.

    The best model by validation loss (without a validation split, or with train.keep=last, the last) ends up in
    checkpoints/best-<seed>.pt.

    Args:
        progress: how far the run is; kept up to date.
        index_digest: names the data in every checkpoint.
        watch: counts seconds under data, compute, comm, eval and checkpoint.
        profile: of the first epoch that this process trains, if it is wanted.
    """

    def __init__(
        self, learner: Learner, source: Source, cfg: TrainConfig, mesh: Mesh, run: Run, *,
        progress: Progress, index_digest: str, watch: Stopwatch, profile: Profile,
    ) -> None:  # fmt: skip
        self.learner, self.source, self.cfg, self.mesh, self.run = learner, source, cfg, mesh, run
        self.progress, self.index_digest, self.watch, self.profile = progress, index_digest, watch, profile
        is_last = mesh.rank == mesh.world_size - 1
        self.disturbance = Disturbance(os.environ.get(VARIABLE, ""), is_first=mesh.is_first, is_last=is_last)
        self.writer = checkpoint.Writer(run, self.disturbance)
        self.saved_at, self.has_saved = time.monotonic(), progress.total_step > 0
        self.began = 0.0  # when it would have, had it not been interrupted

    def fit(self, state: dict[str, Any] | None) -> bool:
        """Train from a learner's `state`, or from the start; True when done, False when asked to stop."""
        if self.progress.fitted:
            return True
        try:
            done = self._fit_epochs(state)
            self.mesh.on_first(self.writer.wait)
            self.watch.lap("checkpoint")
        finally:
            self.writer.close()
        return done

    def _fit_epochs(self, state: dict[str, Any] | None) -> bool:
        self._prepare(state)
        self.began = time.perf_counter() - self.progress.seconds
        if self.progress.run_ids and not self.has_saved:
            self.save()  # so that a run killed before its first checkpoint leaves no half-begun one with its trackers
        for epoch in range(self.progress.epoch, self.cfg.num_epochs):
            began, from_step = time.perf_counter(), self.progress.step
            seen = Sums(torch.tensor(self.progress.sums if self.mesh.is_first else NOTHING))
            if self._train_epoch(epoch, seen):
                return False
            seen = Sums(self.mesh.sum(seen.values.cpu()))
            self.watch.lap("comm")
            share_done = 1 - from_step / max(self.progress.step, 1)
            if self._close_epoch(epoch, seen, seen.means()["n"] * share_done / (time.perf_counter() - began)):
                break
        return True

    def _train_epoch(self, epoch: int, seen: Sums) -> bool:
        """The rest of an epoch's steps, added to `seen`; True when all ranks have agreed to stop."""
        progress, num_steps = self.progress, self.source.num_steps
        made = make_ahead(self.source.train(epoch, progress.step))
        ahead = contextlib.closing(self.profile.follow(made, num_steps - progress.step))
        with ahead as batches, self.run.progress(f"epoch {epoch + 1}", num_steps, " steps", progress.step) as bar:
            for batch in batches:
                self.watch.lap("data")
                seen += self.learner.step(batch, epoch * num_steps + progress.step)
                self.watch.lap("compute")
                progress.step += 1
                progress.total_step += 1
                bar.update()
                self.run.history.beat(progress.total_step)
                self.disturbance.after_step(progress.total_step)
                bad = self._is_read(progress.step) and seen.has_diverged
                stop, due, bad = self.mesh.agree(self.run.should_stop, self._checkpoint_is_due(), bad)
                self.watch.lap("comm")
                if bad:
                    raise self._diverged("the loss")
                if stop or due:
                    progress.sums = self.mesh.sum(seen.values.cpu().clone()).tolist()
                    self.save()
                if stop:
                    return True
                if self._has_all_steps(epoch):
                    break
        return False

    def _has_all_steps(self, epoch: int) -> bool:
        most = self.cfg.max_steps
        return most is not None and epoch * self.source.num_steps + self.progress.step >= most

    def _is_read(self, step: int) -> bool:
        """Whether the sums are looked at after a step: a GPU is not made to wait for that each time."""
        return self.mesh.device.type == "cpu" or step % READ_EVERY == 0

    def _diverged(self, what: str) -> UserError:
        kept = "the checkpoint before it is kept" if self.has_saved else "there is no checkpoint before it"
        return UserError(
            f"step {self.progress.total_step}: {what} is not finite, the training diverged; {kept}: lower train.lr"
        )

    def _prepare(self, state: dict[str, Any] | None) -> None:
        """Bring the learner to where the run is, past what a fresh process does differently."""
        state = self.learner.state() if state is None else state
        is_timed = self.cfg.timing > 0 and not self.mesh.on_first(lambda: timing.read_timing(self.run))
        if self.mesh.world_size > 1 or self.cfg.compile or is_timed:
            state, began = checkpoint.snapshot(state), time.perf_counter()
            self.learner.settle(next(self.source.train(self.progress.epoch, 0)))
            self.watch.lap("compile" if self.cfg.compile else "compute")
        if is_timed:
            rehearsal = timing.Rehearsal(self.learner, self.source, self.cfg, self.mesh)
            rehearsal.carry_out(self.run, first_steps_s=time.perf_counter() - began)
            self.watch.lap("timing")
        self.learner.load(state)
        self.learner.lr_factor = self.progress.lr_factor
        self.disturbance.begin(self.progress.total_step)
        self.watch.lap("compute")

    def _checkpoint_is_due(self) -> bool:
        """By steps, on every rank alike, or by the clock of rank 0; the end of an epoch has a checkpoint anyhow."""
        every, minutes = self.cfg.checkpoint_every, self.cfg.checkpoint_minutes
        by_steps = bool(every) and self.progress.total_step % every == 0
        by_clock = self.mesh.is_first and minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes
        return (by_steps or by_clock) and self.progress.step < self.source.num_steps

    def _close_epoch(self, epoch: int, seen: Sums, rate: float) -> bool:
        """Judge by validation, keep the best model, say and record it, write a checkpoint; True when all is learnt."""
        progress, seed, judged = self.progress, self.cfg.seeds[self.progress.seed_at], None
        eval_before_s = self.watch.seconds["eval"]
        trained = seen.means()
        if self.source.num_tracks("valid"):
            self.learner.align()
            judged = metrics.score(judge(self.learner, self.source, "valid", self.mesh), self.source.targets("valid"))
            self.watch.lap("eval")
        loss = judged["loss"] if judged else -float(epoch)  # without validation the latest is the best
        is_best = loss < progress.best_loss
        if is_best:
            progress.best_loss, progress.best_epoch = loss, epoch
        if is_best or self.cfg.keep == "last":
            best = {"weights": self.learner.weights(), "epoch": epoch, "train": trained, "valid": judged}
            self.mesh.on_first(partial(self.writer.put, f"best-{seed}.pt", best))
        row = {"seed": seed, "epoch": epoch, "step": progress.total_step, "train": trained, "valid": judged}
        speed = {"samples_per_s": round(rate, 2), "eval_s": round(self.watch.seconds["eval"] - eval_before_s, 4)}
        seconds = round(time.perf_counter() - self.began, 3)
        self.run.record({**row, "samples": seen.fingerprint(), **speed, "seconds": seconds})
        line = f"seed {seed} epoch {epoch + 1:3}/{self.cfg.num_epochs}"
        for name, figures in (("train", trained), ("valid", judged)):
            line += f"  {name} loss {figures['loss']:.3f} accuracy {figures['accuracy']:.3f}" if figures else ""
            line += f" AUC {figures['auc']:.4f}" if figures and "auc" in figures else ""
        self.run.log(f"{line}  {rate:.0f} {self.source.unit}/s" + ("  best" if is_best else ""))
        progress.num_rows += 1
        if note_loss(progress, self.cfg, loss, epoch):
            self.run.log(
                f"no lower loss for {self.cfg.plateau_patience} epochs: learning rate x {progress.lr_factor:g}"
            )
        self.learner.lr_factor = progress.lr_factor
        is_target = judged is not None and self.cfg.target is not None and judged["accuracy"] >= self.cfg.target
        is_over = is_target or self._has_all_steps(epoch) or epoch + 1 == self.cfg.num_epochs
        progress.fitted = is_over or epoch - progress.goal_epoch >= self.cfg.patience
        progress.epoch, progress.step, progress.sums = epoch + 1, 0, list(NOTHING)
        self.save()
        return progress.fitted

    def save(self) -> None:
        """One checkpoint of everything; what went wrong with an earlier one is raised on every rank.

        Raises:
            UserError: so is this, if what was learnt is not finite.
        """
        if not self.learner.is_finite():
            raise self._diverged("a weight")
        self.has_saved, self.progress.seconds = True, time.perf_counter() - self.began
        state = {"learner": self.learner.state(), "progress": asdict(self.progress), "index_digest": self.index_digest}
        self.mesh.on_first(partial(self.writer.put, f"step-{self.progress.total_step}.pt", state))
        self.saved_at = time.monotonic()
        self.watch.lap("checkpoint")


def note_loss(progress: Progress, cfg: TrainConfig, loss: float, epoch: int) -> bool:
    """Note what early stopping waits for; under train.schedule=plateau True when the learning rate becomes lower.

    That follows PyTorch's ReduceLROnPlateau, with its relative threshold of 1e-4.
    """
    if loss < progress.goal_loss - cfg.min_delta:
        progress.goal_loss, progress.goal_epoch = loss, epoch
    if cfg.schedule != "plateau":
        return False
    if loss < progress.plateau_loss * (1 - 1e-4):
        progress.plateau_loss, progress.plateau_epochs = loss, 0
        return False
    progress.plateau_epochs += 1
    if progress.plateau_epochs <= cfg.plateau_patience:
        return False
    progress.lr_factor *= cfg.plateau_factor
    progress.plateau_epochs = 0
    return True


def judge(learner: Judge, source: Source, split: str, mesh: Mesh) -> NDArray[np.float64]:
    """Mean probabilities over each track's windows, shape (num_tracks, num_classes), the same on every rank.

    Each track is judged by exactly one rank; the ranks' results are added into one table, and a count beside each row
    proves that no track is missing and none counted twice.
    """
    num_tracks, size = source.num_tracks(split), source.chunk
    table = torch.zeros(num_tracks, source.num_classes, dtype=torch.float64)
    num_windows, count = torch.zeros(num_tracks, dtype=torch.int64), torch.zeros(num_tracks, dtype=torch.int64)
    for chunk in range(mesh.rank, -(-num_tracks // size), mesh.world_size):
        first, last = chunk * size, min((chunk + 1) * size, num_tracks)
        for tracks, windows in source.windows(split, first, last):
            table.index_add_(0, tracks, learner.predict(windows).double())
            num_windows.index_add_(0, tracks, torch.ones_like(tracks))
        count[first:last] += 1
    if not bool((mesh.sum(count) == 1).all()):
        raise RuntimeError(f"{split}: a track was judged twice or not at all: {count.tolist()}")
    return np.asarray((mesh.sum(table) / mesh.sum(num_windows).unsqueeze(1)).numpy(), np.float64)
