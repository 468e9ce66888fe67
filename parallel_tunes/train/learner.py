"""What the trainer asks of a learner and of its data, and the sums it keeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_tunes.schema import UserError

# Losses are added as integers of this fraction: integer sums do not depend on their order, so that neither the world
# size nor an interruption changes a bit of a curve. A sum may reach 2^31: a loss of 2 000 for each of a million samples.
LOSS_QUANTUM = 2.0**-32


@dataclass(frozen=True)
class Waveforms:
    """Crops as samples, whose log-mel spectrograms are computed where the model is."""

    samples: Tensor  # (num, num_samples), int16: all that the crops' frames reach, zeros where that is outside the clip
    gains: Tensor  # (num,), float32: factor on samples / 32768
    floors_db: Tensor  # (num,), float32: what the levels of the clip are floored at, dB
    num_frames: Tensor  # (num,), int64: those of the clip; the crop's later frames take the lowest level of these

    def to(self, device: torch.device) -> Waveforms:
        """The same on a device."""
        return Waveforms(*(getattr(self, entry.name).to(device, non_blocking=True) for entry in fields(self)))


@dataclass(frozen=True)
class Rows:
    """Listens: a user, a song, and what is the row's own; what is known of users and songs lies in the model."""

    codes: Tensor  # (num, 2 + num_row_columns), int32: which user, which song, codes of the row's own columns
    numbers: Tensor  # (num, num_numbers), float32: its features, standardised

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return _each(self, lambda tensor: tensor.to(device, non_blocking=True))


Inputs = Tensor | Waveforms | Rows  # (num, num_mels, num_frames), float16 dB; what that is computed from; or listens


@dataclass(frozen=True)
class Mixed:
    """What the samples of a batch are mixed with."""

    inputs: Inputs
    targets: Tensor  # as those of the batch
    shares: Tensor  # (num,), float32: of the sample itself
    keys: Tensor  # (num,), int64: theirs, so that each is altered as it is where it stands for itself


@dataclass(frozen=True)
class Batch:
    """This rank's part of a global batch."""

    inputs: Inputs
    targets: Tensor  # (num,), int64; or of several labels a sample (num, num_classes), int8: 1 for each that it has
    weights: Tensor  # (num,), float32: 1, or 0 for the stand-in of a rank that has no sample of this batch
    marks: Tensor  # (num,), int64: a hash of step, sample and augmentation draws, to prove what was trained on
    num_global: int  # samples in the whole batch
    keys: Tensor  # (num,), int64: of (seed, epoch, sample), which all draws for a sample are made of
    mixed: Mixed | None = None

    def split(self, num: int, world_size: int) -> list[Batch]:
        """Its samples in `num` parts, or as many as the largest share of a rank has samples, the same number on every rank.

        Their sizes differ by at most one; a part without any has one that weighs nothing.
        """
        num = min(num, -(-self.num_global // world_size))
        if num == 1:
            return [self]
        whole, more = divmod(len(self.targets), num)
        ends = list(itertools.accumulate([whole + (part < more) for part in range(num)], initial=0))
        return [
            _cut(self, slice(first, last)) if first < last else _cut(self, slice(0, 1)).without_weight()
            for first, last in itertools.pairwise(ends)
        ]

    def repeat(self, num: int) -> Batch:
        """So many samples, these over and over."""
        return replace(_cut(self, torch.arange(num) % len(self.targets)), num_global=num)

    def pinned(self) -> Batch:
        """The same in memory that a GPU reads from while the CPU goes on."""
        return _each(self, lambda tensor: tensor if tensor.is_cuda else tensor.pin_memory())

    def without_weight(self) -> Batch:
        """The same, counting for nothing."""
        return replace(self, weights=torch.zeros_like(self.weights))


Part = TypeVar("Part", bound="Batch | Mixed | Waveforms | Rows")


def _each(whole: Part, act: Callable[[Tensor], Tensor]) -> Part:
    """The same, but for what `act` makes of each tensor in it."""
    parts: dict[str, Any] = {}
    for entry in fields(whole):
        value = getattr(whole, entry.name)
        if isinstance(value, Tensor):
            parts[entry.name] = act(value)
        elif isinstance(value, Mixed | Waveforms | Rows):
            parts[entry.name] = _each(value, act)
    return replace(whole, **parts)


def _cut(whole: Part, cut: slice | Tensor) -> Part:
    """The same of some of the samples."""
    return _each(whole, lambda tensor: tensor[cut])


class Sums:
    """Exact sums over samples: loss, number right, number, number with a loss that is not finite, and of their marks."""

    NUM = 5

    def __init__(self, values: Tensor | None = None) -> None:
        self.values = torch.zeros(self.NUM, dtype=torch.int64) if values is None else values

    @classmethod
    def of(cls, losses: Tensor, right: Tensor, weights: Tensor, marks: Tensor) -> Sums:
        """Sums over a batch: `losses` float, `right` bool, `weights` 0 or 1, `marks` int64, each of shape (num,)."""
        counted = weights > 0
        finite = torch.isfinite(losses)
        quanta = torch.where(finite & counted, losses, 0).double().div(LOSS_QUANTUM).round().long()
        marked = torch.where(counted, marks, 0).sum()  # wraps around, whatever the order
        return cls(
            torch.stack([quanta.sum(), (right & counted).sum(), counted.sum(), (~finite & counted).sum(), marked])
        )

    def __iadd__(self, other: Sums) -> Sums:
        self.values = self.values.to(other.values.device) + other.values
        return self

    @property
    def has_diverged(self) -> bool:
        """Whether a loss was not finite; waits for the device."""
        return int(self.values[3]) > 0

    def means(self) -> dict[str, Any]:
        """Loss, accuracy and n.

        Raises:
            UserError: a loss was not finite.
        """
        quanta, right, num, num_bad, _ = self.values.tolist()
        if num_bad:
            raise UserError(f"the loss is not finite for {num_bad} of {num} samples: training diverged; lower train.lr")
        return {"loss": quanta * LOSS_QUANTUM / num, "accuracy": right / num, "n": num}

    def fingerprint(self) -> str:
        """Of all samples summed over, the steps they were in and how they were cut: 16 hex digits, equal for equal sets."""
        return f"{int(self.values[4]) % 2**64:016x}"


class Judge(Protocol):
    """What answers: a model that is not, or no longer, learning."""

    def predict(self, inputs: Inputs) -> Tensor:
        """Probabilities, shape (num, num_classes), on the CPU; of several labels a sample each by itself."""
        ...


class Learner(Judge, Protocol):
    """What is trained: it steps on batches; its state is plain tensors and numbers."""

    precision: str
    num_parameters: int
    lr_factor: float  # of the learning rate, lowered where the validation loss no longer falls; not part of the state

    def step(self, batch: Batch, step: int, *, is_shared: bool = True) -> Sums:
        """Learn from this rank's part of a global batch; `step` counts from 0 over the whole training.

        Without `is_shared` gradients stay on their ranks, which then learn different things: to see what sharing them costs.
        """
        ...

    def waited_s(self) -> float:
        """Seconds that the steps so far have waited for other ranks, but for their gradients."""
        ...

    def settle(self, batch: Batch) -> None:
        """Go through whatever a fresh process does differently in its first steps; the state is loaded afterwards."""
        ...

    def align(self) -> None:
        """Make what ranks keep each for themselves the same on all of them."""
        ...

    def is_finite(self) -> bool:
        """Whether all that was learnt is a number."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, copied to the CPU."""
        ...

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over a model's tensors."""
        ...


class Source(Protocol):
    """The data of a training: batches to learn from and windows to judge by."""

    num_steps: int  # in an epoch
    num_classes: int
    unit: str  # what a batch is of, in the plural
    chunk: (
        int  # samples judged together; fixed, so that they share a forward pass with the same others on any world size
    )

    def train(self, epoch: int, from_step: int) -> Iterator[Batch]: ...

    def num_tracks(self, split: str) -> int: ...

    def targets(self, split: str) -> NDArray[np.integer]: ...  # as those of a batch

    def windows(self, split: str, first: int, last: int) -> Iterator[tuple[Tensor, Inputs]]:
        """Windows of tracks `first` to `last` in bounded parts: the track each belongs to (num,), and inputs (num, …)."""
        ...
