"""The sums of a hinge problem, against finite differences and against what is true of any problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from parallel_tunes.models.hinge import (
    LOSSES,
    Floats,
    NumpyOracle,
    Rows,
    Sums,
    TiltedOracle,
    binary_rows,
    regression_rows,
)
from parallel_tunes.train.margin import dual, primal

SEEDS = st.integers(0, 10_000)
seeded = settings(deadline=None, max_examples=40, derandomize=True)


def draw_problem(seed: int, loss: str, *, is_regression: bool, num_rows: int = 40) -> tuple[Rows, Floats]:
    """Rows of which some count for nothing, and weights at which they lie on all sides of their corner."""
    rng = np.random.default_rng(seed)
    num_features = int(rng.integers(1, 6))
    features, w = rng.standard_normal((num_rows, num_features)), rng.standard_normal(num_features + 1)
    weights = rng.choice([0.0, 0.01, 1.0, 30.0], num_rows)
    target = features @ w[:-1] + rng.standard_normal(num_rows)
    if is_regression:
        return regression_rows(features, target, weights, loss, float(rng.choice([0.0, 0.1, 1.0]))), w
    return binary_rows(features, target > 0, weights, loss), w


def differ(function: NumpyOracle | TiltedOracle, w: Floats, smoothing: float, part: str = "smooth_loss") -> Floats:
    """Central differences of a sum, shape (num_weights,) or (num_weights, num_weights)."""
    found = []
    for step in 1e-6 * np.eye(len(w)):
        above, below = (getattr(function.query(w + side, smoothing), part) for side in (step, -step))
        found.append((above - below) / 2e-6)
    return np.array(found)


@seeded
@given(st.sampled_from(LOSSES), SEEDS, st.booleans(), st.sampled_from([0.3, 1.0, 4.0]))
def test_the_gradient_is_that_of_the_smoothed_objective(
    loss: str, seed: int, is_regression: bool, smoothing: float
) -> None:
    rows, w = draw_problem(seed, loss, is_regression=is_regression)
    oracle = NumpyOracle(rows)
    sums = oracle.query(w, smoothing)
    wanted = differ(oracle, w, smoothing)  # of ½‖w‖² they are w
    assert_allclose(w - sums.combined, w + wanted, rtol=1e-5, atol=1e-5 * (1 + np.abs(wanted).max()))


@seeded
@given(st.sampled_from(LOSSES), SEEDS, st.booleans())
def test_the_curve_is_the_slope_of_the_gradient(loss: str, seed: int, is_regression: bool) -> None:
    rows, w = draw_problem(seed, loss, is_regression=is_regression)
    oracle = NumpyOracle(rows)
    wanted = -differ(oracle, w, 1.5, "combined")
    oracle.query(w, 1.5)
    assert_allclose(oracle.curve(1.5, 1), wanted, rtol=1e-5, atol=1e-5 * (1 + np.abs(wanted).max()))


@seeded
@given(st.sampled_from(LOSSES), SEEDS, st.booleans())
def test_the_shift_is_what_a_small_step_does_to_the_dual(loss: str, seed: int, is_regression: bool) -> None:
    rows, w = draw_problem(seed, loss, is_regression=is_regression)
    step = 1e-6 * np.random.default_rng(seed).standard_normal(len(w))
    oracle = NumpyOracle(rows)
    after, before = oracle.query(w + step, 1.5), oracle.query(w, 1.5)
    wanted = (after.flat() - before.flat())[2:]
    assert_allclose(oracle.shift(1.5, step), wanted, rtol=1e-4, atol=1e-9)


@seeded
@given(st.sampled_from(LOSSES), SEEDS, st.booleans(), st.sampled_from([0.1, 10.0]))
def test_a_long_step_leaves_every_alpha_within_its_bounds(
    loss: str, seed: int, is_regression: bool, size: float
) -> None:
    rows, w = draw_problem(seed, loss, is_regression=is_regression)
    step = size * np.random.default_rng(seed).standard_normal(len(w))
    oracle, c = NumpyOracle(rows), rows.weights
    sums, slack = oracle.query(w, 1.5), rows.slack(w)
    rise = -rows.signs * (rows.features @ step[:-1] + step[-1])
    if loss == "hinge":
        alpha = c * np.clip(slack / 1.5 + 0.5, 0, 1)
        after = np.where(np.abs(slack) < 0.75, np.clip(alpha + c / 1.5 * rise, 0, c), alpha)
        square = 0.0
    else:
        after = np.where(slack > 0, np.maximum(2 * c * (slack + rise), 0), 0)
        square = float(np.sum(after[c > 0] ** 2 / (4 * c[c > 0])))
    wanted = np.concatenate([[after @ rows.offsets, square], rows.combine(after)])
    before = sums.flat()[2:]
    largest = max(np.abs(before).max(), np.abs(wanted).max())
    assert_allclose(before + oracle.shift(1.5, step), wanted, rtol=1e-10, atol=1e-10 * largest)


@seeded
@given(
    st.sampled_from(LOSSES),
    SEEDS,
    st.booleans(),
    st.sampled_from([1e-7, 0.01, 1.0, 100.0]),
    st.sampled_from([0.0, 0.1, 1.0, 10.0]),
)
def test_no_dual_is_above_any_objective(
    loss: str, seed: int, is_regression: bool, smoothing: float, size: float
) -> None:
    """Weak duality, at any two weights and however wide the smoothing; a long step's clipped shift is a dual, too."""
    rows, w = draw_problem(seed, loss, is_regression=is_regression)
    rng, oracle = np.random.default_rng(seed), NumpyOracle(rows)
    least = min(primal(v, oracle.query(v, smoothing).loss) for v in (w, 0 * w, *rng.standard_normal((5, len(w)))))
    sums = oracle.query(size * w, smoothing)
    change = oracle.shift(smoothing, rng.standard_normal(len(w)))
    for shift in (0 * change, change):
        linear, square, combined = sums.linear + shift[0], sums.square + shift[1], sums.combined + shift[2:]
        assert dual(linear, square, combined) <= least * (1 + 1e-12)
        assert linear - square - combined @ combined / 2 <= least * (1 + 1e-12)


@pytest.mark.parametrize("smoothing", [1e-6, 1.0, 10.0])
def test_the_smoothed_hinge_is_above_it_by_an_eighth_of_the_smoothing_at_most(smoothing: float) -> None:
    rows, w = draw_problem(3, "hinge", is_regression=False)
    sums = NumpyOracle(rows).query(w, smoothing)
    assert 0 <= sums.smooth_loss - sums.loss <= smoothing / 8 * rows.weights.sum() + 1e-12


@pytest.mark.parametrize(("loss", "power"), [("hinge", 1), ("squared_hinge", 2)])
def test_losses_as_they_are_defined(loss: str, power: int) -> None:
    rng = np.random.default_rng(0)
    features, target, counts = rng.standard_normal((30, 3)), rng.standard_normal(30), rng.random(30)
    w = rng.standard_normal(4)
    answers = features @ w[:-1] + w[-1]
    binary = NumpyOracle(binary_rows(features, target > 0, counts, loss)).query(w, 1.0)
    wanted = counts @ np.maximum(1 - np.where(target > 0, 1, -1) * answers, 0) ** power
    assert binary.loss == pytest.approx(wanted, rel=1e-12)
    numbers = NumpyOracle(regression_rows(features, target, counts, loss, 0.2)).query(w, 1.0)
    assert numbers.loss == pytest.approx(counts @ np.maximum(np.abs(target - answers) - 0.2, 0) ** power, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_tilted_part_stands_for_the_whole(loss: str) -> None:
    """With the others' sums as the tilt: the same where they were taken, and one function and its gradient elsewhere."""
    rows, w = draw_problem(5, loss, is_regression=False)
    whole, part = NumpyOracle(rows).query(w, 1.0), NumpyOracle(rows.take(np.arange(0, 40, 3)))
    tilted = TiltedOracle(part, Sums.of(whole.flat() - part.query(w, 1.0).flat()), w)
    assert_allclose(tilted.query(w, 1.0).flat(), whole.flat(), rtol=1e-12)
    there = w + 0.5
    assert_allclose(-differ(tilted, there, 1.0), tilted.query(there, 1.0).combined, rtol=1e-5, atol=1e-5)
    assert_allclose(tilted.curve(1.0, 1), part.curve(1.0, 1))
    assert_allclose(tilted.shift(1.0, w), part.shift(1.0, w))
    assert tilted.slack is part.slack


def test_rows_that_are_taken_and_their_types() -> None:
    rows, w = draw_problem(7, "hinge", is_regression=True)
    some = rows.take(np.array([3, 60, 5])).astype(np.float32)
    assert len(some) == 3
    assert some.num_weights == len(w)
    assert some.ids.tolist() == [3, 60, 5]
    assert {array.dtype for array in (some.features, some.signs, some.offsets, some.weights)} == {np.dtype("float32")}
    assert_allclose(some.slack(w), rows.slack(w)[[3, 60, 5]], rtol=1e-5, atol=1e-5)
    sideways = np.asfortranarray(np.zeros((4, 3)))
    for made in (
        binary_rows(sideways, np.ones(4, bool), 1.0, "hinge"),
        regression_rows(sideways, np.ones(4), 1.0, "hinge", 0),
    ):
        assert made.features.flags.c_contiguous


@pytest.mark.parametrize("loss", LOSSES)
def test_in_float64_all_digits_count(loss: str) -> None:
    """A smoothing that float32 cannot hold."""
    rows, w = draw_problem(9, loss, is_regression=False)
    oracle = NumpyOracle(replace(rows, weights=rows.weights * 0.1))
    oracle.query(w, 1.3)
    slack, ones = rows.slack(w), np.column_stack([rows.features, np.ones(len(rows))])
    second = np.where(np.abs(slack) < 0.65, 1 / 1.3, 0) if loss == "hinge" else 2.0 * (slack > 0)
    assert_allclose(
        oracle.curve(1.3, 1), (ones * (0.1 * rows.weights * second)[:, None]).T @ ones, rtol=1e-12, atol=1e-12
    )
