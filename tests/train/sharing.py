"""Problems that several ranks solve together."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from margin_problems import Problem

from parallel_tunes import schema
from parallel_tunes.config_tracks import MarginConfig
from parallel_tunes.models.hinge import Floats, Rows, binary_rows
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.back_ends import solve


class Shared(NamedTuple):
    """A problem, and who solves it."""

    rows: Rows
    name: str = "numba"
    solver: str = "newton"


def few(num_rows: int, num_yes: int) -> Rows:
    """Rows of which so many are of the first class."""
    features = np.random.default_rng(0).standard_normal((num_rows, 2))
    return binary_rows(features, np.arange(num_rows) < num_yes, 1.0, "hinge")


SHARED = {
    "rungs": Shared(Problem(6_000, 4).rows("hinge")),
    "squared": Shared(Problem(6_000, 8).rows("squared_hinge"), "numpy"),
    "sorted": Shared(Problem(6_000, 4, order="class").rows("hinge")),
    "numbers": Shared(Problem(3_000, kind="regression").rows("hinge")),
    "unbalanced": Shared(Problem(1_000, 2, share=0.05, noise=0.3).rows("hinge")),
    "gradient": Shared(Problem(400, C=0.01).rows("squared_hinge"), "numba", "gradient"),
    "one of a class": Shared(few(5, 1)),
    "fewer rows than ranks": Shared(few(2, 1)),
}


def learner(**changed: object) -> MarginConfig:
    """Of conf/learner, with changes."""
    return schema.build(MarginConfig, schema.defaults("learner", str(changed.get("name", "numba"))) | changed)


def solve_all(mesh: Mesh) -> dict[str, Floats]:
    """The weights of all problems."""
    found = {}
    for key, (rows, name, solver) in SHARED.items():
        solution = solve(rows, learner(name=name, solver=solver, tolerance=1e-8, max_iterations=3000), mesh)
        assert solution.is_certified, f"{key}: {solution.gap}"
        found[key] = solution.w
    return found


def solve_here(mesh: Mesh, folder: Path) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(weights) for key, weights in solve_all(mesh).items()}
