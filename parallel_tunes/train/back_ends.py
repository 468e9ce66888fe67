"""Which solver and which back end a config means."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from parallel_tunes.config_tracks import MarginConfig
from parallel_tunes.models.hinge import Floats, NumpyOracle, Oracle, Rows
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.margin import Limits, Solution, solve_gradient
from parallel_tunes.train.newton import solve_newton

LOOSE = 1e-4  # the least tolerance that float32 can prove
SOLVERS = {"sklearn": ("linearsvc", "svc", "sgd")}
OURS = ("newton", "gradient")


def check_learner(learner: MarginConfig) -> None:
    """Refuse what does not go together.

    Raises:
        UserError: a solver that the back end has not, a precision that cannot prove the tolerance, or no GPU.
    """
    known = SOLVERS.get(learner.name, OURS)
    if learner.solver not in known:
        raise UserError(f"learner.solver={learner.solver}: learner={learner.name} has {', '.join(known)}")
    if learner.precision == "fp32" and learner.tolerance < LOOSE:
        raise UserError(
            f"learner.precision=fp32: proves no gap below {LOOSE:g}; take fp64 for learner.tolerance={learner.tolerance:g}"
        )
    if learner.name == "cuda":
        from parallel_tunes.models.hinge_cuda import find_gpu

        reason = find_gpu()
        if reason:
            raise UserError(f"learner=cuda: no GPU can be used here ({reason}); learner=numba needs none")


def number_type(learner: MarginConfig) -> type[np.floating[Any]]:
    """What features are kept in."""
    is_single = learner.precision == "fp32" or (learner.precision == "auto" and learner.tolerance >= LOOSE)
    return np.float32 if is_single else np.float64


def make_oracle(learner: MarginConfig) -> Callable[[Rows], Oracle]:
    """The back end of our own solvers."""
    if learner.name == "numpy":
        return NumpyOracle
    if learner.name == "cuda":
        from parallel_tunes.models.hinge_cuda import CudaOracle

        return CudaOracle
    from parallel_tunes.models.hinge_numba import NumbaOracle

    return NumbaOracle


def solve(
    rows: Rows,
    learner: MarginConfig,
    mesh: Mesh,
    should_stop: Callable[[], bool] = lambda: False,
    start: Floats | None = None,
) -> Solution:
    """Solve a problem as the config says; each rank of the mesh takes its share of the rows, which all ranks give.

    Raises:
        Stopped: a rank was told to stop.
    """
    limits = Limits(learner.tolerance, learner.max_iterations, learner.max_s, should_stop)
    if learner.name == "sklearn":
        from parallel_tunes.train.margin_sklearn import solve_sklearn

        return solve_sklearn(rows, learner.solver, limits, svc_rows=learner.svc_rows, seed=learner.seed)
    if mesh.world_size > 1:
        rows = rows.take(np.arange(mesh.rank, len(rows), mesh.world_size))
    make = make_oracle(learner)
    if learner.solver == "gradient":
        return solve_gradient(make, rows, mesh, limits, start=start)
    return partial(solve_newton, seed=learner.seed)(make, rows, mesh, limits, start=start)
