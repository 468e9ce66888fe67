"""All back ends end at the same answers, on any number of ranks."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import PATIENCE_S, ROOT, launch
from margin_problems import Problem, answer
from numpy.testing import assert_allclose
from sharing import learner, solve_all

from parallel_tunes.models.hinge import LOSSES, Floats, NumpyOracle
from parallel_tunes.models.hinge_cuda import find_gpu
from parallel_tunes.models.hinge_numba import NumbaOracle
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.back_ends import check_learner, make_oracle, number_type, solve
from parallel_tunes.train.margin import Stopped

MESH = Mesh().apart()
WHO = (("numba", "newton"), ("numba", "gradient"), ("numpy", "newton"), ("numpy", "gradient"), ("sklearn", "linearsvc"))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_all_answer_alike(kind: str, loss: str) -> None:
    """On rows that none was fitted on, at a gap of 1e-6."""
    problem = Problem(1000, C=0.01, kind=kind)
    rows, others = problem.rows(loss), problem.held_out(8000)
    answers = {}
    for name, solver in WHO:
        found = solve(rows, learner(name=name, solver=solver, tolerance=1e-6, max_iterations=100_000), MESH)
        assert found.is_certified, (name, solver)
        answers[name, solver] = answer(others, found.w)
    first = answers["numba", "newton"]
    for who, other in answers.items():
        if kind == "binary":
            assert np.mean((other > 0) == (first > 0)) >= 0.999, who
        assert_allclose(other, first, atol=0.01 * first.std(), err_msg=str(who))


@pytest.mark.parametrize(("name", "solver"), WHO)
def test_a_stop_is_heeded_by_all(name: str, solver: str) -> None:
    calls = itertools.count()
    rows = Problem(2000).rows("hinge")
    with pytest.raises(Stopped):
        solve(rows, learner(name=name, solver=solver, tolerance=1e-9), MESH, lambda: next(calls) >= 2)


def test_a_start_is_taken() -> None:
    rows = Problem(4000).rows("hinge")
    for solver in ("newton", "gradient"):
        cold = solve(rows, learner(solver=solver, tolerance=1e-4), MESH)
        assert solve(rows, learner(solver=solver, tolerance=1e-4), MESH, start=cold.w).iterations < cold.iterations


def test_the_seed_draws_the_samples() -> None:
    rows = Problem(10_000).rows("hinge")
    first, other = (solve(rows, learner(seed=seed), MESH) for seed in (0, 1))
    assert first.w.tobytes() != other.w.tobytes()


def test_limits_are_taken() -> None:
    rows = Problem(3000, 57, C=0.01, noise=0.2).rows("hinge")
    found = solve(rows, learner(tolerance=1e-9, max_iterations=2), MESH)
    assert (found.iterations, found.is_certified) == (2, False)
    quick = solve(rows, learner(name="numpy", solver="gradient", tolerance=1e-12, max_s=0.05), MESH)
    assert not quick.is_certified
    assert 0.05 <= quick.seconds < 5


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "sklearn", "solver": "newton"}, "learner.solver=newton: learner=sklearn has linearsvc, svc, sgd"),
        ({"name": "numba", "solver": "svc"}, "learner.solver=svc: learner=numba has newton, gradient"),
        ({"name": "numpy", "solver": "sgd"}, "learner.solver=sgd: learner=numpy has newton, gradient"),
        ({"name": "cuda", "solver": "linearsvc"}, "learner.solver=linearsvc: learner=cuda has newton, gradient"),
        (
            {"precision": "fp32", "tolerance": 1e-5},
            "learner.precision=fp32: proves no gap below 0.0001; take fp64 for learner.tolerance=1e-05",
        ),
    ],
)
def test_what_does_not_go_together(changed: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        check_learner(learner(**changed))
    assert str(caught.value) == says


@pytest.mark.parametrize("name", ["numba", "numpy", "sklearn"])
def test_what_conf_names_goes_together(name: str) -> None:
    check_learner(learner(name=name))
    check_learner(learner(name=name, precision="fp32", tolerance=1e-4))
    check_learner(learner(name=name, precision="fp64", tolerance=1e-9))


def test_without_a_gpu_cuda_is_refused() -> None:
    if find_gpu() is None:
        check_learner(learner(name="cuda"))
        return
    with pytest.raises(UserError, match="no GPU can be used here") as caught:
        check_learner(learner(name="cuda"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("precision", "tolerance", "wanted"),
    [
        ("auto", 1e-3, np.float32), ("auto", 1e-4, np.float32), ("auto", 9e-5, np.float64),
        ("fp32", 1e-3, np.float32), ("fp64", 1e-3, np.float64),
    ],
)  # fmt: skip
def test_numbers_are_as_long_as_the_tolerance_needs(precision: str, tolerance: float, wanted: type) -> None:
    assert number_type(learner(precision=precision, tolerance=tolerance)) is wanted


def test_names_of_back_ends() -> None:
    assert make_oracle(learner(name="numpy")) is NumpyOracle
    assert make_oracle(learner(name="numba")) is NumbaOracle


@pytest.fixture(scope="module")
def alone() -> dict[str, Floats]:
    """Weights that one rank finds."""
    return solve_all(MESH)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3])
def test_weights_are_the_same_on_every_world_size(ranks: int, alone: dict[str, Floats], tmp_path: Path) -> None:
    """Some problems leave a rank without a row, or without a row of a class; all ranks end with the same bits."""
    script = str(Path(__file__).with_name("sharing.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", script]
    environment = launch()[1] | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests/train")))}
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [list(np.load(tmp_path / f"{rank}.npz").values()) for rank in range(ranks)]
    for (key, wanted), first, *others in zip(alone.items(), *found, strict=True):
        assert_allclose(first, wanted, atol=1e-6 * np.abs(wanted).max(), err_msg=key)
        assert all(other.tobytes() == first.tobytes() for other in others), key
