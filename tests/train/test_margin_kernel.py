from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.svm import SVC
from test_margin_model import open_run

from parallel_tunes.schema import UserError
from parallel_tunes.train import margin_model
from parallel_tunes.train.margin_kernel import solve_radial
from parallel_tunes.train.margin_model import CHUNK, KernelModel

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(120, 4))
SIDES = [np.hypot(ROWS[:, 0], ROWS[:, 1]) > 1, ROWS[:, 2] * ROWS[:, 3] > 0]


def draw_model() -> KernelModel:
    solved = solve_radial(ROWS, [*SIDES, ~SIDES[0]], [np.full(120, 2.0)] * 3, 1.0)
    place = {"center": np.zeros(4), "scale": np.ones(4), "components": np.eye(4), "unit": np.array([0.0, 1.0])}
    return KernelModel("genre", list("abcd"), classes=list("xyz"), sigmoids=np.ones((3, 2)), **place, **solved)


def test_margins_are_those_of_scikit_learn() -> None:
    gamma = 0.3
    costs = [np.full(120, 2.0), np.where(SIDES[1], 1.0, 5.0)]
    solved = solve_radial(ROWS, SIDES, costs, gamma)
    place = {"center": np.zeros(4), "scale": np.ones(4), "components": np.eye(4), "unit": np.array([0.0, 1.0])}
    model = KernelModel("genre", list("abcd"), classes=["x", "y"], sigmoids=np.empty((0, 2)), **place, **solved)
    others = RNG.normal(size=(CHUNK + 5, 4))
    for number, (side, cost) in enumerate(zip(SIDES, costs, strict=True)):
        theirs = SVC(C=1.0, gamma=gamma / (4 * ROWS.var())).fit(ROWS, side, sample_weight=cost)
        assert_allclose(model.margins(others)[:, number], theirs.decision_function(others), atol=2e-3)
        assert (model.margins(others)[:, number] > 0).mean() == pytest.approx(theirs.predict(others).mean(), abs=2e-3)


def test_only_rows_that_are_leant_on_are_kept() -> None:
    solved = solve_radial(ROWS, SIDES[:1], [np.full(120, 10.0)], 0.3)
    assert 0 < len(solved["support"]) < 120
    assert solved["weights"].shape == (1, len(solved["support"]))


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = draw_model()
    margin_model.save(open_run(tmp_path), model, {"audio": None}, task="genre_svm")
    loaded, facts = margin_model.load(tmp_path / "model")
    assert isinstance(loaded, KernelModel)
    assert facts["task"] == "genre_svm"
    assert loaded.margins(ROWS).tobytes() == model.margins(ROWS).tobytes()
    assert margin_model.restore_audio(facts, tmp_path) is None


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    model = replace(draw_model(), gamma=np.ones(2))
    margin_model.save(open_run(tmp_path), model, {}, task="genre_svm")
    with pytest.raises(UserError, match="damaged"):
        margin_model.load(tmp_path / "model")


def test_descriptors_of_another_version_are_refused(tmp_path: Path) -> None:
    from parallel_tunes import schema

    facts = {"audio": schema.defaults("features", "descriptors"), "audio_fingerprint": "0"}
    with pytest.raises(UserError, match="other descriptors than this version makes"):
        margin_model.restore_audio(json.loads(json.dumps(facts)), tmp_path)
    with pytest.raises(UserError, match="damaged"):
        margin_model.restore_audio({"audio": {"kind": "descriptors", "colour": 1}}, tmp_path)
