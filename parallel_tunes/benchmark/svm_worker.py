"""python -m parallel_tunes.benchmark.svm_worker ROW NUM_ROWS NUM_FEATURES SEED: a process that solves one SVM, as often as told.

A line `try K` has it solve with its K-th setting, data in memory already; the answer is a line of JSON: seconds, the relative
duality gap that is certified, the objective, and whether there is no tighter setting. `start` is answered once all is ready.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.benchmark.hold import take_pipes
from parallel_tunes.models.hinge import Floats, NumpyOracle, Oracle, Rows, binary_rows
from parallel_tunes.models.hinge_numba import NumbaOracle
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.margin import Limits, primal, solve_gradient
from parallel_tunes.train.newton import solve_newton

TOLERANCE = 1e-3
C = 1.0
NUM_ARTISTS = 1000
REFERENCE = Limits(TOLERANCE / 1000, 10_000)  # of the lower bound that peers are held against

Answer = dict[str, Any]


class Trial(NamedTuple):
    """A row's settings from loose to tight, and what solves with one of them: seconds and weights."""

    num_settings: int
    solve: Callable[[int], tuple[float, Floats]]


def draw_problem(num_rows: int, num_features: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Correlated, standardised features in the order of artists, whose tracks are alike; labels from a plane and noise.

    Returns:
        (num_rows, num_features) and (num_rows,).
    """
    rng = np.random.Generator(np.random.Philox(key=seed))
    mix = (np.eye(num_features) + rng.standard_normal((num_features, num_features)) / np.sqrt(num_features)).astype(
        np.float32
    )
    artists = np.sort(rng.integers(0, NUM_ARTISTS, num_rows))
    features = rng.standard_normal((num_rows, num_features), np.float32)
    features += rng.standard_normal((NUM_ARTISTS, num_features), np.float32)[artists]
    features = features @ mix
    features -= features.mean(0)
    features /= features.std(0)
    plane = features @ rng.standard_normal(num_features).astype(np.float32)
    return features, plane / plane.std() + 0.7 * rng.standard_normal(num_rows, np.float32) > 0


def ours(make: Callable[[Rows], Oracle], rows: Rows, solver: str) -> Callable[[int], Answer]:
    """Our solvers certify themselves, and their certificate is in their time."""

    def answer(_: int) -> Answer:
        solve = solve_gradient if solver == "gradient" else solve_newton
        began = time.perf_counter()
        found = solve(make, rows, Mesh(), Limits(TOLERANCE, 1_000_000))
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "gap": found.gap,
            "objective": found.objective,
            "passes": found.iterations,
            "is_last": True,
        }

    return answer


def resident(rows: Rows) -> tuple[Callable[[Rows], Oracle], float]:
    """A back end whose rows are on the GPU before a solution begins; the seconds that took."""
    from parallel_tunes.models.hinge_cuda import CudaOracle

    whole = CudaOracle(rows)
    return lambda part: whole if part is rows else NumbaOracle(part), whole.transfer_s


def peers(trial: Trial, exact: Rows) -> Callable[[int], Answer]:
    """Peers bound nothing: their objective is held against the dual of a tighter solution of ours, out of their time."""
    bound = solve_newton(NumbaOracle, exact, Mesh(), REFERENCE).bound

    def answer(setting: int) -> Answer:
        seconds, w = trial.solve(setting)
        objective = primal(w, NumpyOracle(exact).query(w, 1.0).loss)
        gap, is_last = (objective - bound) / bound, setting == trial.num_settings - 1
        return {"seconds": seconds, "gap": gap, "objective": objective, "passes": None, "is_last": is_last}

    return answer


def try_sklearn(name: str, exact: Rows) -> Trial:
    """LinearSVC with a tighter and tighter tol; SGDClassifier over epochs and first steps."""
    from parallel_tunes.train.margin_sklearn import fit, list_settings

    settings = list(list_settings(exact, name, svc_rows=len(exact)))

    def solve(setting: int) -> tuple[float, Floats]:
        began = time.perf_counter()
        w = fit(settings[setting], exact, svc_rows=len(exact), seed=0)
        return time.perf_counter() - began, w

    return Trial(len(settings), solve)


def main(argv: Sequence[str]) -> None:
    """Solve until the lines end."""
    row, num_rows, num_features, seed = argv[0], *map(int, argv[1:])
    hold = take_pipes()
    features, targets = draw_problem(num_rows, num_features, seed)
    rows = binary_rows(features, targets, C, "hinge")
    transfer_s = None
    if row in ("linearsvc", "sgd"):
        exact = rows.astype(np.float64)
        answer = peers(try_sklearn(row, exact), exact)
    elif row == "cuda":
        make, transfer_s = resident(rows)
        make(rows).query(np.zeros(rows.num_weights), 1.0)
        answer = ours(make, rows, "newton")
    else:
        answer = ours(
            NumbaOracle if row == "numba" else NumpyOracle, rows, "gradient" if row == "numpy_gd" else "newton"
        )
    # compiled before the first solution is timed
    solve_newton(NumbaOracle, rows.take(np.arange(min(num_rows, 2000))), Mesh(), Limits(TOLERANCE))
    for line in hold.lines:
        word, _, setting = line.strip().partition(" ")
        found: Answer = {} if word == "start" else answer(int(setting)) | {"transfer_s": transfer_s}
        print(json.dumps(found), file=hold.answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
