"""Planted components and duplicates are found; on plain numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallel_tunes.data.material import Floats, Material, Matrix, draw_sample, list_labels
from parallel_tunes.tasks import exploring


def correlated(num: int = 4000, r: float = 0.6, seed: int = 0) -> Floats:
    """Three columns that correlate by exactly `r`, pair by pair, and two more that correlate with none."""
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal((num, 5))
    plain -= plain.mean(0)
    white = np.linalg.qr(plain)[0] * np.sqrt(num) if num > 5 else plain
    wanted = np.eye(5)
    wanted[:3, :3] = r + (1 - r) * np.eye(3)
    return np.asarray(white @ np.linalg.cholesky(wanted).T)


def material(values: Floats, labels: list[str | None] | None = None, **changes: Any) -> Material:
    num = len(values)
    frame = pd.DataFrame({"path": [f"{row}.wav" for row in range(num)], "label": None, "group": None}, dtype=object)
    frame["label"] = pd.Series(labels or [None] * num, dtype=object)
    for name in ("duration_s", "level_db", "tempo_bpm"):
        frame[name] = np.arange(num, dtype=np.float64)
    features = Matrix(values, [f"x{column}" for column in range(values.shape[1])])
    made = Material(frame=frame, rows=np.arange(num), features=features, duplicates={}, facts={}, unknown={})
    return dataclasses.replace(made, **changes)


def test_components_hold_the_planted_variances() -> None:
    """Of three columns that correlate by r and two that do not, the eigenvalues are 1 + 2 r, 1, 1 and twice 1 - r."""
    found = exploring.find_components(correlated() * [1, 10, 0.1, 1, 100], list("abcde"))  # scales do not matter
    assert found is not None
    assert found.explained == pytest.approx(np.array([2.2, 1, 1, 0.4, 0.4]) / 5, abs=1e-9)
    assert np.abs(found.loadings[0]) == pytest.approx([3**-0.5] * 3 + [0, 0], abs=1e-9)
    assert found.scores.var(0) / 5 == pytest.approx(found.explained, abs=1e-9)
    assert [exploring.count_components(found.explained, share) for share in (0.4, 0.5, 0.9, 1.0)] == [1, 2, 4, 5]


def test_constant_columns_are_no_features() -> None:
    values = np.column_stack([correlated(50), np.full(50, 7.1)])
    found = exploring.find_components(values, list("abcdef"))
    assert found is not None
    assert found.names == list("abcde")
    assert exploring.find_components(values[:, 4:], list("ef")) is None
    assert exploring.find_components(values[:2], list("abcdef")) is None


def test_duplicates_are_listed_by_kind_those_of_differing_labels_first() -> None:
    hashes = [str(row) for row in range(30)]
    hashes[3], hashes[4], hashes[9] = "0", "1", "6"
    labels: list[str | None] = [f"label {row % 3}" for row in range(30)]
    labels[4], labels[9] = labels[1], "another"
    made = material(
        correlated(30),
        labels,
        duplicates={"byte-identical files": hashes, "rows of the same id": [str(row) for row in range(30)]},
    )
    findings = exploring.explore(made, 1)
    (found,) = findings.metrics["duplicates"]
    assert found == {
        "kind": "byte-identical files", "num_sets": 3, "num_tracks": 6, "num_labels_differ": 1,
        "sets": [{"paths": ["6.wav"], "labels_differ": True}],
    }  # fmt: skip
    assert findings.duplicates.groupby("set")["path"].apply(list).tolist() == [
        ["0.wav", "3.wav"], ["1.wav", "4.wav"], ["6.wav", "9.wav"],
    ]  # fmt: skip
    verdict = exploring.summarise(findings.metrics, 1)
    assert verdict == "30 tracks, 4 labels, 3 sets of byte-identical files, 1 unreadable file"


def test_what_cannot_be_shown_has_a_reason() -> None:
    made = material(correlated(4)[:, :1], unknown={"tempo_bpm": "no column tempo"})
    made.frame["tempo_bpm"], made.frame["level_db"] = np.nan, np.nan
    findings = exploring.explore(made, 10)
    assert findings.components is None
    assert findings.left_out == {
        "loudness": "known of no track",
        "tempo": "no column tempo",
        "class balance": "no labels",
        "principal components": "too few features vary: 1 features of 4 tracks",
    }
    assert exploring.explore(material(correlated(4), ["a"] * 4), 10).left_out == {}


def test_samples_and_lists_of_labels() -> None:
    assert draw_sample(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_sample(1000, 10, 3)
    assert len(set(drawn.tolist())) == 10
    assert (np.diff(drawn) > 0).all()
    assert (drawn == draw_sample(1000, 10, 3)).all()
    assert (drawn != draw_sample(1000, 10, 4)).any()
    assert list_labels(pd.Series(["b", "a", None, "c", "c"], dtype=object), 2) == ["c", "a"]
