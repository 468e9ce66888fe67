"""What the CUDA back end gives for small problems, as JSON. A script of its own: the simulator has to be chosen before numba loads.

NUMBA_ENABLE_CUDASIM=1 python tests/models/cuda_checks.py
"""

from __future__ import annotations

import json
import sys
import threading
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from parallel_tunes.models import hinge_cuda
from parallel_tunes.models.hinge import LOSSES, Floats, NumpyOracle, Rows, binary_rows
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.margin import Limits
from parallel_tunes.train.newton import solve_newton

BLOCK = 16  # threads, the fewest: those of the simulator are Python's
SMOOTHING = 0.5


class Case(NamedTuple):
    """A problem, small enough for a simulator."""

    num_rows: int
    num_features: int
    dtype: str
    loss: str


CASES = [
    Case(0, 5, "float64", "hinge"),
    Case(BLOCK, 5, "float32", "squared_hinge"),
    *(Case(3 * BLOCK + 7, 57, *kind) for kind in product(("float32", "float64"), LOSSES)),
    Case(BLOCK + 1, 130, "float64", "hinge"),
    Case(BLOCK + 1, 0, "float64", "hinge"),
]
THOROUGH = [case for case in CASES if case.num_features == 57 and case.dtype == "float64"]
SOLVED = Case(3 * BLOCK + 7, 4, "float64", "hinge")


def problem(case: Case) -> tuple[Rows, Floats]:
    """Rows, some of which count for nothing, and weights that separate most of them."""
    rng = np.random.default_rng(case.num_rows + case.num_features)
    features = rng.standard_normal((case.num_rows, case.num_features)).astype(case.dtype)
    w = rng.standard_normal(case.num_features + 1) / np.sqrt(case.num_features + 1)
    targets = features @ w[:-1] + rng.standard_normal(case.num_rows) > 0
    weights = rng.choice([0.0, 0.5, 2.0], case.num_rows)
    return binary_rows(features, targets, weights, case.loss), w


def permute(rows: Rows) -> Rows:
    """The same rows in another order."""
    return rows.take(np.random.default_rng(0).permutation(len(rows)))


def ask(oracle: NumpyOracle, w: Floats) -> dict[str, Any]:
    """All that an oracle tells of w."""
    sums = oracle.query(w, SMOOTHING).flat()
    return {"sums": sums, "curve": oracle.curve(SMOOTHING, every=2), "slack": oracle.slack}


def check(case: Case) -> dict[str, Any]:
    """At w; of some cases also at zero, then again at w, and there with the rows in another order."""
    rows, w = problem(case)
    oracle = hinge_cuda.CudaOracle(rows, threads_per_block=BLOCK)
    found = {"start": oracle.slack, "first": ask(oracle, w), "transfer_s": oracle.transfer_s}
    if case in THOROUGH:
        permuted = hinge_cuda.CudaOracle(permute(rows), threads_per_block=BLOCK)
        found |= {"zero": ask(oracle, 0 * w)}
        oracle.query(-w, SMOOTHING)  # nobody asks for its slack
        found |= {"again": ask(oracle, w), "permuted": permuted.query(w, SMOOTHING).flat()}
    return found


def solve() -> dict[str, Any]:
    """A whole solution, with its certificate."""
    found = solve_newton(
        partial(hinge_cuda.CudaOracle, threads_per_block=BLOCK), problem(SOLVED)[0], Mesh().apart(), Limits(1e-6)
    )
    return {"objective": found.objective, "gap": found.gap, "is_certified": found.is_certified}


LOCK = threading.Lock()


def share(self: Any, shape: Any, dtype: Any) -> Any:
    """cuda.shared.array of the simulator, which looks for a block's array and makes it without a lock: two threads made two."""
    line = sys._getframe(1)
    with LOCK:
        made: Any = self._allocations.setdefault((line.f_code.co_filename, line.f_lineno), np.empty(shape, dtype))
        return made


def main() -> None:
    """Print what all cases give."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    simulator: Any = FakeCUDAShared
    simulator.array = share
    sys.setswitchinterval(1e-4)  # the simulator's threads wait for each other all the time
    hinge_cuda.CHUNK = 100  # several of a matrix
    told = {"reason": hinge_cuda.find_gpu(), "is_simulated": hinge_cuda.is_simulated(), "solved": solve()}
    print(json.dumps(told | {"cases": [check(case) for case in CASES]}, default=np.ndarray.tolist))


if __name__ == "__main__":
    main()
