"""How a support vector machine is learnt: what solvers end with, a certificate, and the plain one, gradient descent.

All stop on the same relative duality gap (P − D)/D, an upper bound of how far the objective is above the least one. The data
lie on the mesh's ranks, each with rows of its own; a query's sums are added over them, so that every rank takes the same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from parallel_tunes.models.hinge import Floats, Oracle, Rows, Sums, gram
from parallel_tunes.parallel.mesh import Mesh

LEAST_SMOOTHING = 1e-7


class Stopped(Exception):
    """A solver was asked to stop before it had reached its tolerance."""


@dataclass
class Progress:
    """What a solver has reached: the least objective and the greatest dual seen."""

    began: float = field(default_factory=time.perf_counter)
    w: Floats = field(default_factory=lambda: np.empty(0))
    objective: float = np.inf
    bound: float = 0.0
    iterations: int = 0

    @property
    def gap(self) -> float:
        """(P − D)/D; infinite where nothing is proven yet."""
        return relative_gap(self.objective, self.bound)

    def see(self, w: Floats, objective: float, bound: float) -> None:
        """A pass over the data has given the objective at w, and a dual; take what is better than before."""
        if objective < self.objective:
            self.w, self.objective = w.copy(), objective
        self.iterations += 1
        self.prove(bound)

    def prove(self, bound: float) -> None:
        """Another dual is known."""
        self.bound = max(self.bound, bound)


@dataclass(frozen=True)
class Solution:
    """Weights, the bias last, and what is proven of them."""

    w: Floats
    objective: float
    bound: float  # no w has a smaller objective
    gap: float
    iterations: int
    seconds: float
    is_certified: bool  # the gap is within the tolerance

    @classmethod
    def of(cls, progress: Progress, tolerance: float) -> Solution:
        """What a solver has reached in the end."""
        seconds = time.perf_counter() - progress.began
        return cls(
            progress.w, progress.objective, progress.bound, progress.gap, progress.iterations, seconds,
            bool(progress.gap <= tolerance),
        )  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """When a solver ends.

    Args:
        tolerance: relative duality gap that is enough.
        max_iterations: most passes over the data.
        max_s: most seconds.
        should_stop: whether this rank was told to stop.
    """

    tolerance: float = 1e-3
    max_iterations: int = 1000
    max_s: float = np.inf
    should_stop: Callable[[], bool] = lambda: False


def sum_over(mesh: Mesh, flat: Floats) -> Floats:
    """`flat` summed over the ranks."""
    if mesh.world_size == 1:
        return flat
    import torch

    return np.asarray(mesh.sum(torch.from_numpy(np.ascontiguousarray(flat, np.float64))).numpy())


def is_done(progress: Progress, limits: Limits, mesh: Mesh) -> bool:
    """Whether a solver has reached what it is to, or may not go on; the same answer on every rank.

    Raises:
        Stopped: a rank was told to stop.
    """
    late = progress.iterations >= limits.max_iterations or time.perf_counter() - progress.began > limits.max_s
    stop, late = mesh.agree(limits.should_stop(), late)
    if stop:
        raise Stopped
    return late or progress.gap <= limits.tolerance


def solve_gradient(
    make: Callable[[Rows], Oracle], rows: Rows, mesh: Mesh, limits: Limits, *, start: Floats | None = None
) -> Solution:
    """Accelerated gradient descent on all rows (Nesterov 1983; FISTA's steps; restarts of O'Donoghue & Candès 2015).

    What the seed projects' descent wants to be: the step is one over the gradient's Lipschitz constant instead of a guess,
    the smoothing is as narrow as the tolerance asks for, and the dual says when to stop.
    """
    oracle, progress = make(rows), Progress()
    w = np.zeros(rows.num_weights) if start is None else start
    largest = np.linalg.eigvalsh(sum_over(mesh, gram(rows.features, rows.weights)))[-1]
    smoothing = 1.0
    ahead, momentum = w, 1.0
    while True:
        sums = Sums.of(sum_over(mesh, oracle.query(ahead, smoothing).flat()))
        bound = dual(sums.linear, sums.square, sums.combined)
        progress.see(ahead, primal(ahead, sums.loss), bound)
        if is_done(progress, limits, mesh):
            return Solution.of(progress, limits.tolerance)
        gradient = ahead - sums.combined
        excess = sums.loss - sums.linear + float(ahead @ sums.combined)
        if rows.loss == "hinge" and excess > limits.tolerance * progress.objective / 2 and smoothing > LEAST_SMOOTHING:
            smoothing, momentum = smoothing / 2, 1.0
        lipschitz = 1 + largest * (1 / smoothing if rows.loss == "hinge" else 2)
        following = ahead - gradient / lipschitz
        if float(gradient @ (following - w)) > 0:
            momentum = 1.0
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + (momentum - 1) / faster * (following - w)
        w, momentum = following, faster


def relative_gap(objective: float, bound: float) -> float:
    """(P − D)/D. No objective is below 0: one of 0, where every error is forgiven, is the least, though D is 0 too."""
    if bound > 0:
        return (objective - bound) / bound
    return 0.0 if objective == 0 else np.inf


def primal(w: Floats, loss: float) -> float:
    """P."""
    return float(w @ w) / 2 + loss


def dual(linear: float, square: float, combined: Floats) -> float:
    """The greatest D on the ray through α: squared hinge's α may grow, hinge's only shrink."""
    norm = float(combined @ combined) + 2 * square
    scale = linear / norm if norm > 0 else 0.0
    if not square:
        scale = min(scale, 1.0)
    scale = max(scale, 0.0)
    return float(scale * linear - scale**2 * norm / 2)
