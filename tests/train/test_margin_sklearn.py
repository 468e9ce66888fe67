"""scikit-learn's solvers, held to the certificate of ours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from margin_problems import Problem, objective_of

from parallel_tunes.models.hinge import NumpyOracle
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train.margin import Limits, Solution, Stopped
from parallel_tunes.train.margin_sklearn import epsilon_of, is_regressing, solve_sklearn
from parallel_tunes.train.newton import solve_newton


def solve(problem: Problem, loss: str, name: str, limits: Limits, svc_rows: int = 10_000) -> Solution:
    return solve_sklearn(problem.rows(loss), name, limits, svc_rows=svc_rows, seed=0)


def assert_honest(found: Solution, problem: Problem, loss: str, tolerance: float) -> None:
    """The bound is one of the least objective, and certified is what is near it."""
    rows = problem.rows(loss)
    sure = solve_newton(NumpyOracle, rows, Mesh().apart(), Limits(1e-8, 10_000))
    assert found.bound <= sure.objective * (1 + 1e-9)
    assert found.objective >= sure.bound * (1 - 1e-9)
    assert found.objective == pytest.approx(objective_of(rows, found.w), rel=1e-9)
    assert found.gap == pytest.approx((found.objective - found.bound) / found.bound)
    assert found.is_certified == (found.gap <= tolerance)
    assert found.iterations >= 1


@pytest.mark.parametrize(
    ("problem", "loss"),
    [
        (Problem(500, zero_share=0.4), "hinge"), (Problem(5, 3), "squared_hinge"),
        (Problem(500, zero_share=0.4, kind="regression"), "squared_hinge"), (Problem(5, kind="regression"), "hinge"),
    ],
)  # fmt: skip
def test_linearsvc_is_certified(problem: Problem, loss: str) -> None:
    for tolerance in (1e-3, 1e-6):
        found = solve(problem, loss, "linearsvc", Limits(tolerance))
        assert found.is_certified
        assert_honest(found, problem, loss, tolerance)


def test_tighter_settings_are_tried_until_one_is_enough() -> None:
    problem = Problem(500, C=1)
    loose, tight = (solve(problem, "hinge", "linearsvc", Limits(tolerance)) for tolerance in (0.1, 1e-6))
    assert loose.iterations < tight.iterations
    assert tight.gap <= 1e-6 < loose.gap <= 0.1


def test_svc_is_near_though_its_bias_costs_nothing() -> None:
    problem = Problem(400, C=0.1)
    found = solve(problem, "hinge", "svc", Limits(1e-3))
    assert_honest(found, problem, "hinge", 1e-3)
    assert found.iterations == 1
    assert found.gap < 0.01
    fewer = solve(problem, "hinge", "svc", Limits(1e-3), svc_rows=100)
    assert_honest(fewer, problem, "hinge", 1e-3)
    assert found.gap < fewer.gap < 1  # a quarter of the rows, at four times the price


def test_sgd_is_certified_or_the_best_of_its_settings() -> None:
    problem, loss = Problem(400, C=0.01), "hinge"
    found = solve(problem, loss, "sgd", Limits(0.02))
    assert_honest(found, problem, loss, 0.02)
    assert found.is_certified
    best = solve(problem, loss, "sgd", Limits(1e-9))
    assert_honest(best, problem, loss, 1e-9)
    assert not best.is_certified
    assert best.iterations == 40
    assert best.objective <= found.objective


def test_a_stop_is_heeded_between_two_settings() -> None:
    problem, calls = Problem(400), itertools.count()
    solve(problem, "hinge", "sgd", Limits(1e-9, should_stop=lambda: next(calls) < 0))
    num_calls = next(calls)
    again = itertools.count()
    with pytest.raises(Stopped):
        solve(problem, "hinge", "sgd", Limits(1e-9, should_stop=lambda: next(again) == num_calls - 10))
    assert next(again) == num_calls - 9


def test_time_ends_the_search() -> None:
    found = solve(Problem(400), "hinge", "sgd", Limits(1e-9, max_s=0))
    assert found.iterations == 1
    assert not found.is_certified


def test_what_a_solver_has_not_is_refused() -> None:
    for name in ("svc", "sgd"):
        with pytest.raises(UserError, match=rf"learner\.solver={name}: it classifies"):
            solve(Problem(20, kind="regression"), "hinge", name, Limits())
    with pytest.raises(UserError, match=r"learner\.solver=svc: its loss is the hinge"):
        solve(Problem(20), "squared_hinge", "svc", Limits())


def test_where_all_errors_are_forgiven() -> None:
    rows = Problem(50, kind="regression").rows("hinge")
    rows.offsets[:] -= 100
    found = solve_sklearn(rows, "linearsvc", Limits(), svc_rows=10, seed=0)
    assert found.is_certified
    assert (found.objective, found.gap) == (0, 0)


def test_what_a_problem_is() -> None:
    assert not is_regressing(Problem(20).rows("hinge"))
    for dtype, digits in ((np.float32, 1e-6), (np.float64, 1e-14)):
        rows = Problem(20, kind="regression").rows("hinge", dtype)
        assert is_regressing(rows)
        assert epsilon_of(rows) == pytest.approx(0.1, abs=digits)
