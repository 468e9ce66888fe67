"""The same training as others write it: the seed projects' loop, a tuned loop without a harness, Lightning, Accelerate.

All take GenreCNN at its default widths, the crops of `tracks` and the same batch; and train until they are held for ever.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from parallel_tunes.benchmark.hold import Hold
from parallel_tunes.benchmark.tracks import DEVIATION_DB, MEAN_DB, NUM_LABELS, WINDOW
from parallel_tunes.config_train import ModelConfig, TrainConfig
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build, defaults
from parallel_tunes.train.gradient import GradientLearner
from parallel_tunes.train.model_folder import build_model

LR = 1e-3


@dataclass(frozen=True)
class Work:
    """What is trained on.

    Args:
        tracks: dB, float16, (num_tracks, num_frames, num_mels).
        labels: int64, (num_tracks,).
        batch: crops a step.
    """

    tracks: Tensor
    labels: Tensor
    batch: int

    def make_model(self) -> nn.Module:
        """The model, its weights drawn anew."""
        size = (self.tracks.shape[2], WINDOW)
        return build_model(build(ModelConfig, defaults("model", "genre_cnn"), "model."), NUM_LABELS, 0, size)

    def make_loader(self) -> DataLoader[Any]:
        """Crop by crop, as tutorials do; in this process.

        On few cores that is the quickest: 64 crops take 3 ms of a step of a second, and workers would take the model's cores.
        """
        return DataLoader(Crops(self), batch_size=self.batch, shuffle=True)


class Crops(Dataset[Any]):
    """A random crop of each track, standardised: float32 (1, num_mels, WINDOW); and its label."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __len__(self) -> int:
        return len(self.work.tracks)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        start = random.randint(0, self.work.tracks.shape[1] - WINDOW)
        crop = self.work.tracks[at, start : start + WINDOW].T.float()
        return ((crop - MEAN_DB) / DEVIATION_DB).unsqueeze(0), self.work.labels[at]


def seed_loop(work: Work, hold: Hold) -> None:
    """float32, Adam, and the loss of each step read, as in the projects before this one."""
    model, loader = work.make_model(), work.make_loader()
    optimizer, total = torch.optim.Adam(model.parameters(), lr=LR), 0.0
    model.train()
    while True:
        with hold:
            for inputs, targets in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets)
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.item()
                hold.step()


def bare_loop(work: Work, hold: Hold) -> None:
    """All that makes our training quick and nothing else: the learner prepares model, optimizer and precision, and is left.

    No order that can be resumed, no sums, marks or schedule, no run: what ours takes longer is the harness.
    """
    mesh, cfg = Mesh(), build(TrainConfig, defaults("train", "default"), "train.")
    mesh.start("cpu", timeout_s=60)
    learner = GradientLearner(
        work.make_model(), cfg, mesh, mean_db=MEAN_DB, deviation_db=DEVIATION_DB, total_steps=1, lr=LR
    )
    model, optimizer = learner.parallel, learner.optimizer
    amp = torch.autocast("cpu", torch.bfloat16) if learner.precision == "bf16" else contextlib.nullcontext()
    model.train()
    while True:
        with hold:
            for inputs, targets in cut_batches(work):
                optimizer.zero_grad(set_to_none=True)
                with amp:
                    logits = model(inputs)
                torch.autograd.backward(F.cross_entropy(logits.float(), targets))
                optimizer.step()
                hold.step()


def cut_batches(work: Work) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch of batches cut from memory: standardised float32 (batch, 1, num_mels, WINDOW), channels last; labels."""
    num_tracks, num_frames, _ = work.tracks.shape
    for ids in torch.split(torch.randperm(num_tracks), work.batch):
        starts = torch.randint(num_frames - WINDOW + 1, (len(ids),))
        places = zip(ids.tolist(), starts.tolist(), strict=True)
        crops = torch.stack([work.tracks[row, start : start + WINDOW] for row, start in places])
        inputs = crops.transpose(1, 2).float().unsqueeze(1).sub_(MEAN_DB).div_(DEVIATION_DB)
        yield inputs.contiguous(memory_format=torch.channels_last), work.labels[ids]


def lightning_loop(work: Work, hold: Hold) -> None:
    """A module for Lightning's Trainer, as its first pages show it: its defaults, and bf16-mixed."""
    lightning: Any = importlib.import_module("lightning")

    # an optional extra, imported when it is there: to mypy its classes are Any, which may not be inherited from
    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = work.make_model()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            del batch_idx
            loss = F.cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=LR)

    # as above: an optional extra's class, Any to mypy
    class Held(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, *_: Any) -> None:
            hold.__enter__()

        def on_train_batch_end(self, *_: Any) -> None:
            hold.step()

        def on_train_epoch_end(self, *_: Any) -> None:
            hold.__exit__()

    with tempfile.TemporaryDirectory() as folder:
        held = {"callbacks": [Held()], "max_epochs": -1, "default_root_dir": folder, "accelerator": "cpu"}
        lightning.Trainer(precision="bf16-mixed", **held).fit(Module(), work.make_loader())


def accelerate_loop(work: Work, hold: Hold) -> None:
    """The loop of Accelerate's quick tour: its defaults, and bf16."""
    accelerator = importlib.import_module("accelerate").Accelerator(mixed_precision="bf16", cpu=True)
    plain = work.make_model()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=LR)
    model, optimizer, loader = accelerator.prepare(plain, optimizer, work.make_loader())
    model.train()
    for _ in itertools.count():
        with hold:
            for inputs, targets in loader:
                optimizer.zero_grad()
                accelerator.backward(F.cross_entropy(model(inputs), targets))
                optimizer.step()
                hold.step()


LOOPS: dict[str, Callable[[Work, Hold], None]] = {
    "seed_loop": seed_loop,
    "bare_loop": bare_loop,
    "lightning": lightning_loop,
    "accelerate": accelerate_loop,
}
