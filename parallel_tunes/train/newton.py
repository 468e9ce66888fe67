"""Newton's method for support vector machines: from few rows to all of them, which are seen about twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from parallel_tunes.models.hinge import Floats, Oracle, Rows, Sums, TiltedOracle
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.margin import LEAST_SMOOTHING, Limits, Progress, Solution, dual, is_done, primal, sum_over

FIRST_SMOOTHING = 4.0  # wide enough for every z of a first guess: the first step solves least squares
SAMPLE = (1024, 96)  # rows of the first rung: at least, and a weight
ROUGH = 32  # rows a weight that a rough Hessian is made of
RUNGS = 16  # how many times longer each rung is than the one before
MAX_CURVED = 16384  # rows that the Hessian is estimated from
ARMIJO = 1e-4
MAX_HALVINGS = 40
MAX_INNER = 20  # steps of a problem of near rows
REACH = 2.0  # standard deviations of a step: rows that it may carry over their corner
ASTRAY = 0.5  # a shorter step has met rows at their corner that were not near: from then on all rows are asked for directions
INNER = 0.5  # tolerances that a step of near rows need not gain
SMOOTH_SHARE = 0.5  # of the tolerance, that smoothing may cost
NARROWING = 0.2  # least factor on the smoothing in one step


def solve_newton(
    make: Callable[[Rows], Oracle],
    rows: Rows,
    mesh: Mesh,
    limits: Limits,
    *,
    start: Floats | None = None,
    seed: int = 0,
) -> Solution:
    """Newton's method on the smoothed hinge, from few rows to all of them (Keerthi & DeCoste 2005; Chapelle 2007).

    Each rung begins where a random sample sixteen times smaller has ended, and on the last one hinge problems are solved for the
    rows near their corner before all rows are seen again (shrinking, Joachims 1999): all rows are seen about twice. The
    smoothing narrows until what it costs is half of the tolerance.

    Args:
        make: the back end.
        rows: those of this rank.
        start: weights to begin with, on all rows.
    """
    progress, hessian = Progress(), None
    w, smoothing = (np.zeros(rows.num_weights), FIRST_SMOOTHING) if start is None else (start, 0.1)
    if start is None:
        num_total = int(sum_over(mesh, np.array([float(len(rows))]))[0])
        rng = np.random.Generator(np.random.Philox(key=seed))
        for num in list_rungs(num_total, rows.num_weights):
            part = draw_rows(rows, num_total, num, mesh, rng)
            rough = replace(
                limits,
                tolerance=max(limits.tolerance, rows.num_weights / num),
                max_iterations=30,
                max_s=limits.max_s - (time.perf_counter() - progress.began),
            )
            climb = Newton(make(part), mesh, rough, w, smoothing, enough=rough.tolerance)
            climb.run()
            w, smoothing, hessian = climb.w, climb.smoothing, climb.hessian
    final = Newton(make(rows), mesh, limits, w, smoothing, progress=progress, make_near=make, hessian=hessian)
    return Solution.of(final.run(), limits.tolerance)


def list_rungs(num_rows: int, num_weights: int) -> list[int]:
    """Sizes of the samples before all rows are taken."""
    sizes, num = [], max(SAMPLE[0], SAMPLE[1] * num_weights)
    while 2 * num < num_rows:
        sizes.append(num)
        num *= RUNGS
    return sizes


def draw_rows(rows: Rows, num_total: int, num: int, mesh: Mesh, rng: np.random.Generator) -> Rows:
    """This rank's part of a random sample of all ranks' rows, weighted to stand for all of them.

    Args:
        rows: those of this rank, each `world_size`-th.
        rng: in the same state on every rank.
    """
    # one of each stretch of rows: sorted as drawn, and fair to data in any order
    chosen = ((np.arange(num) + rng.random(num)) * (num_total / num)).astype(np.int64)
    mine = chosen[chosen % mesh.world_size == mesh.rank] // mesh.world_size
    return replace(part := rows.take(mine), weights=part.weights * part.weights.dtype.type(num_total / num))


class Newton:
    """Newton's method on one set of rows.

    Args:
        w, smoothing: where it begins.
        enough: share of the objective which no step need gain: a few rows make the Hessian then, and nothing is proven.
        progress: that of the whole solution.
        make_near: the back end for rows near their corner, if it is to solve their problem between passes.
        hessian: about that at `w`, from fewer rows; good enough to see which rows are near.
    """

    def __init__(
        self, oracle: Oracle, mesh: Mesh, limits: Limits, w: Floats, smoothing: float, *,
        enough: float | None = None, progress: Progress | None = None, make_near: Callable[[Rows], Oracle] | None = None,
        hessian: Floats | None = None,
    ) -> None:  # fmt: skip
        self.oracle, self.mesh, self.limits = oracle, mesh, limits
        self.w, self.smoothing, self.enough, self.hessian = w, smoothing, enough, hessian
        self.progress = progress or Progress()
        self.num_rows = int(sum_over(mesh, np.array([float(len(oracle.rows))]))[0])  # of all ranks
        is_long = oracle.rows.loss == "hinge" and self.num_rows > 4 * SAMPLE[0]
        self.make_near = make_near if is_long else None

    def run(self, sums: Sums | None = None) -> Progress:
        """Until the tolerance is reached; from `sums` where they are known already."""
        sums = sums or self._query(self.w)
        while True:
            self.progress.see(self.w, primal(self.w, sums.loss), dual(sums.linear, sums.square, sums.combined))
            if is_done(self.progress, self.limits, self.mesh):
                return self.progress
            gradient = self.w - sums.combined
            if self.make_near and self.hessian is not None:
                direction, self.hessian = -_solve(self.hessian, gradient), None
            else:
                direction = self._look_ahead(gradient, sums)
            gain = -float(gradient @ direction) / 2
            if self._is_enough(gain) and not self._is_to_narrow(sums, gain):
                self.w = self.w + direction
                return self.progress
            if is_done(self.progress, self.limits, self.mesh):
                return self.progress
            smooth = primal(self.w, sums.smooth_loss)
            if self.make_near:
                direction = self._shrink(direction, sums)
            self._narrow(sums, gain)
            w, size, slope = self.w, 1.0, float(gradient @ direction)
            for _ in range(MAX_HALVINGS):
                self.w = w + size * direction
                sums = self._query(self.w)
                if primal(self.w, sums.smooth_loss) <= smooth + ARMIJO * size * slope:
                    break
                size /= 2
            else:
                if self.make_near is None:
                    return self.progress  # the numbers have no more digits
                self.w, sums = w, self._query(w)
            if size < ASTRAY:
                self.make_near = None

    def _query(self, w: Floats) -> Sums:
        return Sums.of(sum_over(self.mesh, self.oracle.query(w, self.smoothing).flat()))

    def _is_enough(self, gain: float) -> bool:
        return self.enough is not None and gain < self.enough * self.progress.objective

    def _excess(self, sums: Sums) -> tuple[float, float]:
        """What the smoothing costs, and what it may cost."""
        return (
            sums.loss - sums.linear + float(self.w @ sums.combined), SMOOTH_SHARE * self.limits.tolerance * self.progress.objective
        )  # fmt: skip

    def _is_to_narrow(self, sums: Sums, left: float) -> bool:
        excess, allowed = self._excess(sums)
        return self.oracle.rows.loss == "hinge" and excess > max(allowed, left)

    def _narrow(self, sums: Sums, left: float) -> None:
        """Less smoothing, where it costs more than it may and than what is left to gain with it.

        Its cost grows with its square. Narrowed sooner, few rows are curved, and Newton's steps go astray.
        """
        if self._is_to_narrow(sums, left):
            excess, allowed = self._excess(sums)
            factor = min(max(np.sqrt(allowed / excess), NARROWING), 0.7)
            self.smoothing = max(self.smoothing * factor, LEAST_SMOOTHING)

    def _look_ahead(self, gradient: Floats, sums: Sums) -> Floats:
        """Newton's direction δ; on the way the dual of α as it will be, to first order, one step on.

        Only the curved rows' α change with a small step, so that this dual costs no pass: its w_α is w + δ but for what is
        clipped, and the gap is that of the objective, not of the gradient, which is far larger.
        """
        rows, slack = self.oracle.rows, self.oracle.slack
        num_curved = float(len(rows.curved(slack, self.smoothing)))
        most = ROUGH * rows.num_weights if self.enough else MAX_CURVED
        every = max(1, -(-int(sum_over(self.mesh, np.array([num_curved]))[0]) // most))
        self.hessian = sum_over(self.mesh, self.oracle.curve(self.smoothing, every))
        self.hessian[np.diag_indices_from(self.hessian)] += 1
        direction = -_solve(self.hessian, gradient)
        if self.enough is None:
            change = sum_over(self.mesh, self.oracle.shift(self.smoothing, direction))
            self.progress.prove(dual(sums.linear + change[0], sums.square + change[1], sums.combined + change[2:]))
        return direction

    def _shrink(self, direction: Floats, sums: Sums) -> Floats:
        """A better direction: to the solution of the rows near their corner, as if the others stayed on their side of it."""
        rows, slack, make, self.hessian = self.oracle.rows, self.oracle.slack, self.make_near, None
        seen = rows.thin(np.arange(len(rows)), max(self.num_rows // 1024, 1))
        some = np.take(rows.features, seen, axis=0) @ direction[:-1].astype(slack.dtype) + direction[-1]
        moved = sum_over(self.mesh, np.array([float(some @ some), float(len(some))]))
        reach = self.smoothing / 2 + REACH * float(np.sqrt(moved[0] / max(moved[1], 1)))
        near = np.flatnonzero(np.abs(slack) < reach)
        num_near = sum_over(self.mesh, np.array([float(len(near))]))[0]
        if make is None or num_near > self.num_rows / 2:
            return direction
        oracle = make(rows.take(near))
        # what the sums are short of without the others, which stay where they are
        rest = sums.flat() - sum_over(self.mesh, oracle.query(self.w, self.smoothing).flat())
        tilted = TiltedOracle(oracle, Sums.of(rest / self.mesh.world_size), self.w)
        limits = replace(self.limits, max_iterations=MAX_INNER)
        inner = Newton(tilted, self.mesh, limits, self.w, self.smoothing, enough=INNER * limits.tolerance)
        inner.run(sums)
        self.smoothing = inner.smoothing
        return inner.w - self.w


def _solve(hessian: Floats, gradient: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.solve(hessian, gradient))
    except np.linalg.LinAlgError as error:
        raise UserError("the features are so large that the SVM's Hessian has no inverse: standardise them") from error
