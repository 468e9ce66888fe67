"""The compiled back end gives what the NumPy one gives, and the same bits on any number of threads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from parallel_tunes.models.hinge import LOSSES, Floats, NumpyOracle, Rows, binary_rows
from parallel_tunes.models.hinge_numba import BLOCK, SMALL, NumbaOracle

SMOOTHING = 1.3  # float32 holds another
TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def draw_problem(num_rows: int, num_features: int, kind: str, loss: str) -> tuple[Rows, Floats]:
    """Rows, some of which count for nothing, and weights that separate most of them."""
    rng = np.random.default_rng(num_rows + num_features)
    features = rng.standard_normal((num_rows, num_features)).astype(kind)
    w = rng.standard_normal(num_features + 1) / np.sqrt(num_features + 1)
    targets = features @ w[:-1] + rng.standard_normal(num_rows) > 0
    rows = binary_rows(features, targets, rng.choice([0.0, 0.5, 2.0], num_rows), loss)
    # no row within rounding of a corner, where one back end may count it and the other not
    is_near = np.abs(np.abs(rows.slack(w)) - np.array([[0], [SMOOTHING / 2]])).min(0) < 1e-4
    rows.offsets[is_near] += rows.features.dtype.type(0.01)
    return rows, w


def assert_close(found: Sequence[float] | NDArray[np.float64], wanted: Floats, tolerance: float) -> None:
    """Up to rounding of the largest number."""
    assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(initial=0))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    st.integers(0, 3 * BLOCK + 7), st.integers(1, 57), st.sampled_from(["float32", "float64"]), st.sampled_from(LOSSES)
)  # fmt: skip
@example(0, 9, "float64", "hinge")
@example(BLOCK, 8, "float32", "hinge")
@example(BLOCK + 1, 57, "float64", "squared_hinge")
def test_it_gives_what_numpy_gives(num_rows: int, num_features: int, kind: str, loss: str) -> None:
    rows, w = draw_problem(num_rows, num_features, kind, loss)
    ours, wanted, tolerance = NumbaOracle(rows), NumpyOracle(rows), TOLERANCES[kind]
    found, sums = ours.query(w, SMOOTHING), wanted.query(w, SMOOTHING)
    assert_allclose(found.flat()[:4], sums.flat()[:4], rtol=tolerance)
    assert_close(found.combined, sums.combined, tolerance)
    assert_close(ours.slack, wanted.slack, tolerance)
    for every in (1, 3):
        assert_close(ours.curve(SMOOTHING, every), wanted.curve(SMOOTHING, every), tolerance)
    for size in (0.3, 3.0):  # of short steps float32 leaves few digits
        step = size * np.random.default_rng(1).standard_normal(len(w))
        assert_close(ours.shift(SMOOTHING, step), wanted.shift(SMOOTHING, step), tolerance)


@pytest.mark.parametrize(
    ("num_rows", "kind", "loss"), [(BLOCK + 1, "float32", "hinge"), (9 * BLOCK + 3, "float64", "squared_hinge")]
)
def test_the_same_bits_on_any_number_of_threads(num_rows: int, kind: str, loss: str) -> None:
    rows, w = draw_problem(num_rows, 64, kind, loss)
    assert rows.features.size > SMALL
    found = []
    for num_threads in (1, 2, 3, 7, 1):
        oracle = NumbaOracle(rows, num_threads)
        sums = oracle.query(w, SMOOTHING).flat()
        parts = (oracle.curve(SMOOTHING, 1), oracle.curve(SMOOTHING, 3), oracle.shift(SMOOTHING, w))
        found.append((sums, oracle.slack, *parts))
    for other in found[1:]:
        for one, first in zip(other, found[0], strict=True):
            assert one.tobytes() == first.tobytes()


def test_a_query_leaves_nothing_behind() -> None:
    rows, w = draw_problem(2 * BLOCK + 5, 9, "float64", "hinge")
    oracle = NumbaOracle(rows)
    first = oracle.query(w, SMOOTHING).flat()
    oracle.query(-3 * w, 0.01)
    assert oracle.query(w, SMOOTHING).flat().tobytes() == first.tobytes()
