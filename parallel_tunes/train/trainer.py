"""THE loop: steps, exact sums across ranks, judging by validation, atomic checkpoints, a stop that all ranks agree on."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_tunes.config import TrainConfig
from parallel_tunes.parallel.mesh import Mesh, Stopwatch
from parallel_tunes.run import Run
from parallel_tunes.train import checkpoint
from parallel_tunes.train.learner import Learner, Source, Sums

CHUNK = 8  # tracks judged together; fixed, so that windows share a forward pass with the same others on any world size


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
    fitted: bool = False  # this seed is done
    losses: list[int] = field(default_factory=lambda: [0, 0, 0, 0])  # the epoch's sums so far, over all ranks

    def next_seed(self) -> Progress:
        """Where the training of the next seed starts."""
        return Progress(seed_at=self.seed_at + 1, total_step=self.total_step, num_rows=self.num_rows)


def fit(
    learner: Learner, source: Source, cfg: TrainConfig, mesh: Mesh, run: Run,
    progress: Progress, state: dict[str, Any] | None, watch: Stopwatch,
) -> bool:  # fmt: skip
    """Train one seed from where `progress` and `state` are; True when done, False when asked to stop.

    The best model by validation loss (without a validation split, the last) ends up in checkpoints/best-<seed>.pt.
    """
    if progress.fitted:
        return True
    fresh = learner.state() if state is None else state["learner"]
    if mesh.world_size > 1:
        fresh = {name: _copy(part) for name, part in fresh.items()}
        learner.settle(next(source.train(progress.epoch, 0)))
    learner.load(fresh)
    seed = cfg.seeds[progress.seed_at]
    watch.lap("compute")
    for epoch in range(progress.epoch, cfg.num_epochs):
        began, from_step = time.perf_counter(), progress.step
        seen = Sums(torch.tensor(progress.losses if mesh.is_first else [0, 0, 0, 0]))
        for batch in source.train(epoch, from_step):
            watch.lap("data")
            seen += learner.step(batch, epoch * source.num_steps + progress.step)
            watch.lap("compute")
            progress.step += 1
            progress.total_step += 1
            stop = mesh.agree(run.should_stop)
            watch.lap("comm")
            due = cfg.checkpoint_every and progress.total_step % cfg.checkpoint_every == 0
            if stop or (due and progress.step < source.num_steps):
                progress.losses = mesh.sum(seen.values.cpu().clone()).tolist()
                save(learner, progress, run)
                watch.lap("checkpoint")
                if stop:
                    return False
        trained = Sums(mesh.sum(seen.values.cpu())).means()
        num_new = trained["n"] if not from_step else trained["n"] * (source.num_steps - from_step) // source.num_steps
        rate = num_new / (time.perf_counter() - began)
        watch.lap("comm")
        judged = None
        if source.num_tracks("valid"):
            learner.align()
            judged = score(judge(learner, source, "valid", mesh), source.targets("valid"))
        watch.lap("eval")
        loss = judged["loss"] if judged else -float(epoch)  # without validation the latest is the best
        if loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = loss, epoch
            best = {"weights": learner.weights(), "epoch": epoch, "train": trained, "valid": judged}
            run.write(f"checkpoints/best-{seed}.pt", lambda stream, best=best: torch.save(best, stream))
        row = {"seed": seed, "epoch": epoch, "step": progress.total_step, "train": trained, "valid": judged, "samples_per_s": round(rate, 2)}
        run.record(row)
        told = f"  valid loss {judged['loss']:.3f} accuracy {judged['accuracy']:.3f}" if judged else ""
        run.log(
            f"seed {seed} epoch {epoch + 1:3}/{cfg.num_epochs}  train loss {trained['loss']:.3f} accuracy {trained['accuracy']:.3f}"
            f"{told}  {rate:.0f} samples/s" + (" *" if progress.best_epoch == epoch else "")
        )
        progress.num_rows += 1
        progress.epoch, progress.step, progress.losses = epoch + 1, 0, [0, 0, 0, 0]
        progress.fitted = epoch - progress.best_epoch >= cfg.patience or epoch + 1 == cfg.num_epochs
        save(learner, progress, run)
        watch.lap("checkpoint")
        if progress.fitted:
            break
        if mesh.agree(run.should_stop):
            return False
    return True


def save(learner: Learner, progress: Progress, run: Run) -> None:
    """One checkpoint of everything."""
    checkpoint.save(run, {"learner": learner.state(), "progress": asdict(progress)}, progress.total_step)


def judge(learner: Learner, source: Source, split: str, mesh: Mesh) -> NDArray[np.float64]:
    """Mean probabilities over each track's windows, shape (num_tracks, num_classes), the same on every rank.

    Each track is judged by exactly one rank; the ranks' results are added into one table, and a count beside each row
    proves that no track is missing and none counted twice.
    """
    num_tracks = source.num_tracks(split)
    table = torch.zeros(num_tracks, source.num_classes, dtype=torch.float64)
    num_windows, count = torch.zeros(num_tracks, dtype=torch.int64), torch.zeros(num_tracks, dtype=torch.int64)
    for chunk in range(mesh.rank, -(-num_tracks // CHUNK), mesh.world_size):
        first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, num_tracks)
        for tracks, windows in source.windows(split, first, last):
            table.index_add_(0, tracks, learner.predict(windows).double())
            num_windows.index_add_(0, tracks, torch.ones_like(tracks))
        count[first:last] += 1
    if not bool((mesh.sum(count) == 1).all()):
        raise RuntimeError(f"{split}: a track was judged twice or not at all: {count.tolist()}")
    return np.asarray((mesh.sum(table) / mesh.sum(num_windows).unsqueeze(1)).numpy(), np.float64)


def score(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> dict[str, Any]:
    """Mean negative log-likelihood, accuracy and n."""
    likelihood = np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12)
    right = int((probabilities.argmax(1) == targets).sum())
    return {"loss": float(-np.log(likelihood).mean()), "accuracy": right / len(targets), "n": len(targets)}


def _copy(tree: Any) -> Any:
    """A deep copy of nested dicts and lists of tensors."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {name: _copy(part) for name, part in tree.items()}
    return [_copy(part) for part in tree] if isinstance(tree, list) else tree
