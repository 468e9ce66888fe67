"""Both solvers, on mild and hard problems: what they prove, and that it is what scikit-learn's solver finds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from margin_problems import Problem, objective_of
from numpy.testing import assert_allclose
from sklearn.svm import LinearSVC, LinearSVR

from parallel_tunes.models.hinge import LOSSES, Floats, NumpyOracle, Oracle, Rows
from parallel_tunes.models.hinge_numba import NumbaOracle
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.margin import Limits, Progress, Solution, Stopped, dual, solve_gradient
from parallel_tunes.train.newton import SAMPLE, draw_rows, list_rungs, solve_newton

Solver = Callable[..., Solution]
MESH = Mesh().apart()
BACK_ENDS: dict[str, Callable[[Rows], Oracle]] = {"numpy": NumpyOracle, "numba": NumbaOracle}
PROBLEMS = {
    "binary": Problem(4000),
    "numbers": Problem(3000, kind="regression"),
    "one row": Problem(1, 1),
    "unbalanced, zero weights": Problem(5000, share=0.02, zero_share=0.4),
    "separable": Problem(3000, noise=0, C=1),
    "two rungs, sorted by class": Problem(20_000, 8, order="class"),
}
SOAK = int(os.environ.get("PT_SOAK", "1"))
if SOAK > 1:
    PROBLEMS |= {
        "57 features": Problem(3000, 57, C=1e-3),
        "one feature": Problem(1500, 1),
        "five rows": Problem(5, 3),
        "little C": Problem(3000, C=1e-4),
        "five numbers": Problem(5, kind="regression", noise=0),
        "ill-conditioned": Problem(3000, condition=1e4),
        "ill-conditioned numbers": Problem(3000, condition=1e3, kind="regression"),
        "separable, larger C": Problem(3000, noise=0, C=100),
        "large C": Problem(3000, C=1e3),
        "numbers, large C": Problem(2000, C=1e3, kind="regression"),
        "five rows, large C": Problem(5, 3, C=1e3),
        "two rungs, sharp": Problem(20_000, 2, C=10, noise=0.1),
        "two rungs of numbers": Problem(10_000, kind="regression"),
        "sorted by a feature": Problem(20_000, 8, order="feature"),
        "numbers, sorted": Problem(10_000, order="class", kind="regression"),
    }


@cache
def rows_of(problem: Problem, loss: str, dtype: str = "float64") -> Rows:
    return problem.rows(loss, dtype)


def solve(solver: Solver, rows: Rows, tolerance: float, back_end: str = "numba", **more: Any) -> Solution:
    """Until it is certified; a few seconds at most."""
    return solver(BACK_ENDS[back_end], rows, MESH, Limits(tolerance, 20_000, 20), **more)


def assert_certified(found: Solution, rows: Rows, tolerance: float, digits: float) -> None:
    """That what it says of itself is so, up to rounding."""
    assert found.is_certified
    assert found.gap <= tolerance
    assert found.objective == pytest.approx(objective_of(rows, found.w), rel=digits)
    assert found.bound <= found.objective * (1 + digits)
    assert found.iterations >= 1


@pytest.mark.parametrize("name", PROBLEMS)
def test_both_back_ends_certify_what_newton_finds(name: str) -> None:
    """In either precision; no objective is below a bound of the others, which float64 proves most closely."""
    for loss in LOSSES:
        found = []
        for dtype, tolerance, digits in (("float32", 1e-3, 1e-4), ("float64", 1e-6, 1e-9)):
            for back_end in BACK_ENDS:
                rows = rows_of(PROBLEMS[name], loss, dtype)
                found.append(solve(solve_newton, rows, tolerance, back_end))
                assert_certified(found[-1], rows, tolerance, digits)
        bound = max(one.bound for one in found[-2:])
        for one in found:
            assert bound * (1 - 1e-6) <= objective_of(rows_of(PROBLEMS[name], loss), one.w) <= bound * (1 + 1.1e-3)


@pytest.mark.parametrize("seed", range(SOAK))
def test_separable_rows_at_any_price(seed: int) -> None:
    """In float64: where the losses on the way are a million times the least objective, float32 now and then has no digits left."""
    rows = rows_of(Problem(3000, noise=0, C=1e3, seed=seed), "hinge")
    assert_certified(solve(solve_newton, rows, 1e-6), rows, 1e-6, 1e-9)


@pytest.mark.parametrize(("kind", "loss"), [("binary", "hinge"), ("regression", "squared_hinge")])
def test_gradient_descent_ends_where_newton_does(kind: str, loss: str) -> None:
    rows = rows_of(Problem(3000, kind=kind), loss)
    sure = solve(solve_newton, rows, 1e-6)
    for back_end in BACK_ENDS:
        found = solve(solve_gradient, rows, 1e-3, back_end)
        assert_certified(found, rows, 1e-3, 1e-9)
        assert sure.bound * (1 - 1e-12) <= found.objective <= sure.objective * 1.001
        assert found.bound <= sure.objective * (1 + 1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_many_features_with_near_rows(loss: str) -> None:
    """Steps carry rows over their corner that no problem of near rows knows of."""
    rows = rows_of(Problem(5000, 40, C=1e-2, noise=0.2), loss)
    assert_certified(solve(solve_newton, rows, 1e-6), rows, 1e-6, 1e-9)


def scikit(rows: Rows) -> Floats:
    """What liblinear finds of the same objective."""
    kind: dict[str, Any] = {"C": 1.0, "tol": 1e-8, "max_iter": 1_000_000, "dual": True, "random_state": 0}
    if rows.offsets[0] == 1:
        fitted = LinearSVC(loss=rows.loss, **kind).fit(rows.features, rows.signs, sample_weight=rows.weights)
    else:
        half = len(rows) // 2
        epsilon = -(rows.offsets[:half] + rows.offsets[half:]) / 2
        loss = {"hinge": "epsilon_insensitive", "squared_hinge": "squared_epsilon_insensitive"}[rows.loss]
        targets = rows.offsets[:half] + epsilon
        fitted = LinearSVR(loss=loss, epsilon=epsilon[0], **kind)
        fitted.fit(rows.features[:half], targets, sample_weight=rows.weights[:half])
    return np.append(np.ravel(fitted.coef_), np.ravel(fitted.intercept_))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_liblinear_finds_the_same_weights(loss: str, kind: str) -> None:
    rows = rows_of(Problem(300, C=0.1, kind=kind, zero_share=0.4), loss)
    wanted, found = scikit(rows), solve(solve_newton, rows, 1e-7)
    assert np.linalg.norm(found.w - wanted) <= 1e-2 * np.linalg.norm(wanted)
    assert found.bound * (1 - 1e-9) <= objective_of(rows, wanted) <= found.objective * (1 + 1e-6)


def solve_finely(rows: Rows) -> Floats:
    found = solve(solve_newton, rows, 1e-8)
    assert found.is_certified
    return found.w


@pytest.mark.parametrize(("loss", "kind"), [("hinge", "binary"), ("squared_hinge", "regression")])
def test_what_changes_no_solution(loss: str, kind: str) -> None:
    """Rows in another order, or twice at half the price, or dear ones repeated; features turned, or none in a column."""
    rows = rows_of(Problem(600, C=0.03, kind=kind), loss)
    rng, num = np.random.default_rng(0), len(rows)
    w = solve_finely(rows)
    atol = 1e-3 * float(np.linalg.norm(w))

    def assert_same(other: Floats) -> None:
        assert_allclose(other, w, atol=atol)

    assert_same(solve_finely(rows.take(rng.permutation(num))))
    twice = rows.take(np.tile(np.arange(num), 2))
    assert_same(solve_finely(replace(twice, weights=twice.weights / 2)))
    dear = rng.integers(0, 4, num)
    counted, repeated = replace(rows, weights=rows.weights * dear), rows.take(np.repeat(np.arange(num), dear))
    assert_allclose(solve_finely(counted), solve_finely(repeated), atol=atol)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    turned = solve_finely(replace(rows, features=rows.features @ turn))
    assert_same(np.append(turn @ turned[:-1], turned[-1]))
    wider = solve_finely(replace(rows, features=np.column_stack([rows.features, np.zeros(num)])))
    assert wider[5] == 0
    assert_same(np.delete(wider, 5))
    mirrored = replace(rows, signs=-rows.signs)
    assert_same(-solve_finely(mirrored))


@pytest.mark.parametrize(("loss", "power"), [("hinge", 1), ("squared_hinge", 0)])
def test_numbers_in_other_units(loss: str, power: int) -> None:
    """Targets and what is forgiven ten times as large, and errors priced alike: weights are ten times as large."""
    rows = rows_of(Problem(600, C=0.03, kind="regression"), loss)
    larger = replace(rows, offsets=10 * rows.offsets, weights=10.0**power * rows.weights)
    w = solve_finely(rows)
    assert_allclose(solve_finely(larger), 10 * w, atol=1e-2 * float(np.linalg.norm(w)))


def test_an_order_of_rows_costs_no_more_than_the_tolerance() -> None:
    rows = rows_of(Problem(9000, 8), "hinge")
    first = solve(solve_newton, rows, 1e-3)
    for seed in range(2):
        other = solve(solve_newton, rows.take(np.random.default_rng(seed).permutation(len(rows))), 1e-3)
        assert other.bound <= first.objective <= other.objective * 1.001
        assert first.bound <= other.objective


def test_a_good_start_saves_passes() -> None:
    rows = rows_of(Problem(4000), "hinge")
    for solver in (solve_newton, solve_gradient):
        cold = solve(solver, rows, 1e-4)
        warm = solve(solver, rows, 1e-4, start=cold.w)
        assert_certified(warm, rows, 1e-4, 1e-9)
        assert warm.iterations <= cold.iterations


def test_seeds_draw_other_samples_and_prove_as_much() -> None:
    rows = rows_of(Problem(20_000, 8), "hinge")
    first, again, other = (solve(solve_newton, rows, 1e-3, seed=seed) for seed in (0, 0, 1))
    assert first.w.tobytes() == again.w.tobytes()
    assert first.w.tobytes() != other.w.tobytes()
    assert other.is_certified


@pytest.mark.parametrize(("solver", "loss"), [(solve_newton, "hinge"), (solve_gradient, "squared_hinge")])
def test_where_all_errors_are_forgiven_nothing_is_best(solver: Solver, loss: str) -> None:
    rows = rows_of(Problem(50, kind="regression"), loss)
    for free in (replace(rows, offsets=rows.offsets - 100), replace(rows, weights=0 * rows.weights)):
        found = solve(solver, free, 1e-6)
        assert found.is_certified
        assert (found.objective, found.bound, found.gap) == (0, 0, 0)
        assert not found.w.any()


def test_rungs_grow_from_a_sample_to_half_of_the_rows() -> None:
    assert list_rungs(2 * SAMPLE[0], 5) == []
    assert list_rungs(2 * SAMPLE[0] + 1, 5) == [SAMPLE[0]]
    assert list_rungs(20_000, 9) == [SAMPLE[0]]
    assert list_rungs(1_000_000, 58) == [58 * SAMPLE[1], 16 * 58 * SAMPLE[1]]


@pytest.mark.parametrize(("world_size", "num"), [(2, 1), (3, 1024)])
def test_a_sample_is_the_same_on_any_number_of_ranks_and_stands_for_all(world_size: int, num: int) -> None:
    rows = rows_of(Problem(3000, order="class"), "hinge")
    ids, total = [], 0.0
    for rank in range(world_size):
        mesh = Mesh().apart()
        mesh.rank, mesh.world_size = rank, world_size
        mine = rows.take(np.arange(rank, len(rows), world_size))
        part = draw_rows(mine, len(rows), num, mesh, np.random.default_rng(0))
        assert_allclose(part.features, rows.features[part.ids])
        ids += part.ids.tolist()
        total += part.weights.sum()
    alone = draw_rows(rows, len(rows), num, MESH, np.random.default_rng(0))
    assert sorted(ids) == alone.ids.tolist()
    assert (np.diff(alone.ids) < 2 * len(rows) / num + 1).all()  # one of each stretch
    assert total == pytest.approx(rows.weights.sum())


@pytest.mark.parametrize("solver", [solve_newton, solve_gradient])
def test_a_stop_is_heeded(solver: Solver) -> None:
    calls, num_calls = itertools.count(), 2
    with pytest.raises(Stopped):
        solver(
            NumbaOracle, rows_of(Problem(20_000, 8), "hinge"), MESH,
            Limits(1e-12, should_stop=lambda: next(calls) >= num_calls),
        )  # fmt: skip
    assert next(calls) == num_calls + 1


@pytest.mark.parametrize(("solver", "limits", "num"), [
    (solve_newton, Limits(1e-12, max_iterations=3), 3), (solve_gradient, Limits(1e-12, max_iterations=3), 3),
    (solve_newton, Limits(1e-12, max_s=0), 1), (solve_gradient, Limits(1e-12, max_s=0), 1),
])  # fmt: skip
def test_after_the_last_pass_it_says_how_far_it_is(solver: Solver, limits: Limits, num: int) -> None:
    rows = rows_of(Problem(3000, 57, C=1e-2, noise=0.2), "hinge")
    found = solver(NumbaOracle, rows, MESH, limits)
    assert found.iterations == num
    assert not found.is_certified
    assert found.gap > 1e-12
    assert found.objective == pytest.approx(objective_of(rows, found.w), rel=1e-12)


def test_progress_keeps_the_best_of_each() -> None:
    progress = Progress()
    assert progress.gap == np.inf
    w = np.ones(2)
    progress.see(w, 5.0, 1.0)
    w[:] = 7
    progress.see(w, 6.0, 4.0)
    progress.prove(2.0)
    assert progress.w.tolist() == [1, 1]
    assert (progress.objective, progress.bound, progress.gap) == (5.0, 4.0, 0.25)
    assert progress.iterations == 2


def test_the_best_dual_on_a_ray() -> None:
    """Hinge's α may shrink, squared hinge's grow as well; none is below 0, which α = 0 gives."""
    combined = np.array([2.0, 0.0])
    assert dual(1.0, 0.0, combined) == pytest.approx(1 / 8)  # half as long: ¼ − ½ 4/16
    assert dual(8.0, 0.0, combined) == 6.0  # twice would be better, were it allowed
    assert dual(8.0, 2.0, combined) == 4.0
    assert dual(12.0, 2.0, combined) == 9.0  # 1.5 times as long
    assert dual(-1.0, 0.0, combined) == 0.0
    assert dual(0.0, 0.0, 0 * combined) == 0.0
