from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import expit

from parallel_tunes.train.calibration import fit_sigmoid, to_probabilities


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.floats(-2.5, 2.5), st.floats(-1, 1), st.sampled_from([1e-3, 1.0, 100.0]), st.sampled_from([0.0, 3.0]))
def test_a_known_sigmoid_is_found(a: float, b: float, scale: float, shift: float) -> None:
    """From 50 000 draws, whatever the margins' unit and their mean; five standard errors are some 0.15."""
    rng = np.random.default_rng(0)
    margins = rng.standard_normal(50_000)
    targets = rng.random(50_000) < expit(a * margins + b)
    slope, offset = fit_sigmoid(scale * (margins + shift), targets)
    assert (slope * scale, offset + slope * scale * shift) == pytest.approx((a, b), abs=0.15)


def test_platts_targets_keep_separable_margins_off_certainty() -> None:
    margins = np.array([-2.0, -1.0, 1.0, 2.0])
    a, b = fit_sigmoid(margins, margins > 0)
    assert 0 < a < 10
    assert_allclose(expit(a * margins + b), [0.25, 0.25, 0.75, 0.75], atol=0.2)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 10_000), st.integers(20, 300))
def test_larger_margins_are_more_probable(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    margins = rng.standard_normal(num)
    a, b = fit_sigmoid(margins, rng.random(num) < expit(3 * margins))
    assert a > 0
    steps = np.linspace(-3, 3, 50)[:, None]
    found = to_probabilities(steps, np.array([[a, b]]))
    assert (np.diff(found[:, 1]) > 0).all()
    assert_allclose(found.sum(1), 1, rtol=1e-12)


def test_one_class_alone_gives_its_share_as_platt_counts_it() -> None:
    for num, is_yes in ((1, True), (2, False), (500, True)):
        margins = np.random.default_rng(0).standard_normal(num)
        a, b = fit_sigmoid(margins, np.full(num, is_yes))
        wanted = (num + 1) / (num + 2) if is_yes else 1 / (num + 2)
        assert_allclose(expit(a * margins + b), wanted, atol=0.01)


def test_margins_that_are_all_the_same_give_the_share() -> None:
    """0.1 a thousand times has no deviation of 0, but for rounding."""
    for margin in (0.0, 0.1, 1e-12):
        margins, targets = np.full(1000, margin), np.arange(1000) < 300
        a, b = fit_sigmoid(margins, targets)
        assert np.isfinite([a, b]).all()
        assert_allclose(expit(a * margins + b), 0.3, atol=0.01)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_several_classes_add_up_to_one(size: float) -> None:
    """Also where every sigmoid says no with certainty."""
    rng = np.random.default_rng(0)
    margins = size * np.vstack([rng.standard_normal((200, 4)), np.full(4, -1.0)])
    sigmoids = np.column_stack([rng.uniform(0.5, 2, 4), rng.standard_normal(4)])
    found = to_probabilities(margins, sigmoids)
    assert found.shape == margins.shape
    assert (found >= 0).all()
    assert_allclose(found.sum(1), 1, rtol=1e-12)
    if size == 1:
        parts = expit(margins * sigmoids[:, 0] + sigmoids[:, 1])
        assert_allclose(found, parts / parts.sum(1, keepdims=True))
    else:
        assert_allclose(found[-1], 0.25)


def test_two_classes_have_one_column() -> None:
    found = to_probabilities(np.array([[0.5], [-2.0]]), np.array([[2.0, 1.0]]))
    assert_allclose(found[:, 1], expit([2.0, -3.0]))
    assert_allclose(found.sum(1), 1)
