"""The gradient noise scale: above how large a batch further samples add little to a step (McCandlish et al. 2018)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.learner import Batch


class Slope(Protocol):
    """What is asked of a Learner."""

    def gradient(self, batch: Batch) -> Tensor: ...


def measure_noise(learner: Slope, batches: Iterator[Batch], mesh: Mesh, num_steps: int) -> dict[str, Any] | None:
    """Squared norms of gradients over few samples and over whole batches, from which `estimate_noise` has the scale.

    The few samples are a rank's share of a batch; a world of one takes halves. Nothing is learnt.

    Returns:
        `small` and `big`, the squared norms of each step, and `per_small` and `per_big`, one over the samples they are the
        mean of; None where batches have too few samples, or gradients are not finite.
    """
    rows = []
    for batch in itertools.islice(batches, num_steps):
        parts = batch.split(2, 1) if mesh.world_size == 1 else [batch]
        own = [learner.gradient(part) for part in parts]
        count = [int((part.weights > 0).sum()) for part in parts]
        whole = mesh.sum(torch.stack(own).sum(0)) / mesh.world_size
        # each is scaled so that their mean over the ranks is the whole batch's: to the mean over its own samples
        means = [part * (batch.num_global / mesh.world_size / num) for part, num in zip(own, count, strict=True) if num]
        few = torch.tensor(
            [sum(square(mean) for mean in means), sum(1 / num for num in count if num), len(means)], dtype=torch.float64
        )
        small, per_small, num_parts = mesh.sum(few).tolist()
        rows.append((small / num_parts, square(whole), per_small / num_parts, 1 / batch.num_global))
    small, big, per_small, per_big = zip(*rows, strict=True) if rows else ((), (), (), ())
    if (
        not rows
        or not all(map(math.isfinite, small + big))
        or any(a <= b for a, b in zip(per_small, per_big, strict=True))
    ):
        return None
    return {"small": small, "big": big, "per_small": per_small, "per_big": per_big}


def square(gradient: Tensor) -> float:
    """The squared norm of a flat gradient."""
    return float(torch.dot(gradient.double(), gradient.double()))
