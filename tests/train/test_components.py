from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA

from parallel_tunes.schema import UserError
from parallel_tunes.train.components import find_components

ROWS = np.random.default_rng(0).normal(size=(80, 6)) @ np.random.default_rng(1).normal(size=(6, 6))


@pytest.mark.parametrize("wanted", [4, 0.9])
def test_as_scikit_learn_finds_them(wanted: float) -> None:
    theirs = PCA(int(wanted) if wanted >= 1 else wanted, svd_solver="full").fit(ROWS)
    ours = find_components(ROWS, wanted)
    assert_allclose(np.abs(ours.directions @ theirs.components_.T), np.eye(theirs.n_components_), atol=1e-9)
    assert_allclose(ours.shares[: theirs.n_components_], theirs.explained_variance_ratio_)
    assert ours.shares.sum() == pytest.approx(1)
    largest = ours.directions[np.arange(len(ours.directions)), np.abs(ours.directions).argmax(1)]
    assert (largest > 0).all()


def test_a_feature_told_twice_is_one_component() -> None:
    twice = np.column_stack([ROWS[:, :2], ROWS[:, :2]])
    assert len(find_components(twice, 0.9999).directions) == 2


@pytest.mark.parametrize(
    ("wanted", "says"), [(7, r"learner.pca=7: 6 columns of 80 training tracks have 6"), (2.5, "whole number")]
)
def test_what_cannot_be_had_is_refused(wanted: float, says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_components(ROWS, wanted)
