"""All back ends end at the same answers, on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import Worlds
from margin_problems import Problem, answer
from numpy.testing import assert_allclose
from sharing import learner, solve_all

from parallel_tunes.models.hinge_cuda import find_gpu
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.back_ends import check_learner, number_type, solve

MESH = Mesh().apart()
WHO = (("numba", "newton"), ("numba", "gradient"), ("numpy", "newton"), ("numpy", "gradient"), ("sklearn", "linearsvc"))


@pytest.mark.parametrize(("kind", "loss"), [("binary", "hinge"), ("regression", "squared_hinge")])
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


def test_limits_are_taken() -> None:
    rows = Problem(3000, 57, C=0.01, noise=0.2).rows("hinge")
    found = solve(rows, learner(tolerance=1e-9, max_iterations=2), MESH)
    assert (found.iterations, found.is_certified) == (2, False)


def test_what_does_not_go_together_is_refused() -> None:
    for changed, says in (
        ({"name": "sklearn", "solver": "newton"}, "learner.solver=newton: learner=sklearn has linearsvc, svc, sgd"),
        ({"name": "numba", "solver": "svc"}, "learner.solver=svc: learner=numba has newton, gradient"),
        (
            {"precision": "fp32", "tolerance": 1e-5},
            "learner.precision=fp32: proves no gap below 0.0001; take fp64 for learner.tolerance=1e-05",
        ),
    ):
        with pytest.raises(UserError) as caught:
            check_learner(learner(**changed))
        assert str(caught.value) == says
    for name in ("numba", "numpy", "sklearn"):
        check_learner(learner(name=name))
        check_learner(learner(name=name, precision="fp64", tolerance=1e-9))


def test_without_a_gpu_cuda_is_refused() -> None:
    if find_gpu() is None:
        check_learner(learner(name="cuda"))
        return
    with pytest.raises(UserError, match="no GPU can be used here") as caught:
        check_learner(learner(name="cuda"))
    assert "\n" not in str(caught.value)


def test_numbers_are_as_long_as_the_tolerance_needs() -> None:
    for precision, tolerance, wanted in (
        ("auto", 1e-4, np.float32), ("auto", 9e-5, np.float64), ("fp32", 1e-3, np.float32), ("fp64", 1e-3, np.float64),
    ):  # fmt: skip
        assert number_type(learner(precision=precision, tolerance=tolerance)) is wanted


@pytest.mark.slow
def test_weights_are_the_same_on_three_ranks(worlds: Worlds) -> None:
    """Some problems leave a rank without a row, or without a row of a class; all ranks end with the same bits."""
    alone, ranks = solve_all(MESH), worlds(3, "solve_here")
    for key, wanted in alone.items():
        first, *others = (rank[key].numpy() for rank in ranks)
        assert_allclose(first, wanted, atol=1e-6 * np.abs(wanted).max(), err_msg=key)
        assert all(other.tobytes() == first.tobytes() for other in others), key
