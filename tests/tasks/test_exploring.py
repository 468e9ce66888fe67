"""What is planted is found: components, outliers, twins, wrong labels; on plain numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallel_tunes import schema
from parallel_tunes.config_explore import ExploreConfig
from parallel_tunes.data.material import Floats, Material, Matrix, draw_sample, list_labels
from parallel_tunes.tasks import doubting, exploring


def config(**changes: Any) -> ExploreConfig:
    return dataclasses.replace(schema.build(ExploreConfig, schema.defaults("explore", "default")), **changes)


def correlated(num: int = 4000, r: float = 0.6, seed: int = 0) -> Floats:
    """Three columns that correlate by exactly `r`, pair by pair, and two more that correlate with none."""
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal((num, 5))
    plain -= plain.mean(0)
    white = np.linalg.qr(plain)[0] * np.sqrt(num) if num > 5 else plain
    wanted = np.eye(5)
    wanted[:3, :3] = r + (1 - r) * np.eye(3)
    return np.asarray(white @ np.linalg.cholesky(wanted).T)


def clusters(num: int = 300, seed: int = 1, flipped: float = 0.06) -> tuple[Floats, list[str | None], set[int]]:
    """Three labels two standard deviations apart in six columns, some of them wrong; and which."""
    rng = np.random.default_rng(seed)
    truth = np.arange(num) % 3
    values = rng.standard_normal((num, 6))
    for label in range(3):
        values[truth == label, 2 * label : 2 * label + 2] += 3
    wrong = rng.choice(num, int(flipped * num), replace=False)
    given = truth.copy()
    given[wrong] = (truth[wrong] + rng.integers(1, 3, len(wrong))) % 3
    return values, [f"label {label}" for label in given], {int(row) for row in wrong}


def material(values: Floats, labels: list[str | None] | None = None, **changes: Any) -> Material:
    num = len(values)
    frame = pd.DataFrame({"path": [f"{row}.wav" for row in range(num)], "label": None, "group": None}, dtype=object)
    frame["label"] = pd.Series(labels or [None] * num, dtype=object)
    for name in ("duration_s", "level_db", "tempo_bpm"):
        frame[name] = np.arange(num, dtype=np.float64)
    names = [f"x{column}" for column in range(values.shape[1])]
    made = Material(frame, np.arange(num), Matrix(values, names), Matrix(values, names), {}, {})
    return dataclasses.replace(made, **changes)


def test_components_hold_the_planted_variances() -> None:
    """Of three columns that correlate by r and two that do not, the eigenvalues are 1 + 2 r, 1, 1 and twice 1 - r."""
    found = exploring.find_components(correlated(), list("abcde"))
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


@pytest.mark.parametrize("shape", ["one column", "breaks the correlation"])
def test_planted_outliers_come_first(shape: str) -> None:
    values, planted = correlated(600, 0.95), [3, 77, 200, 411, 599]
    if shape == "one column":
        values[planted, [0, 1, 2, 3, 4]] += 12
    else:  # each value alone is usual: only together are they not
        values[planted, :2] = [2.2, -2.2]
    findings = exploring.explore(material(values), config(), lambda line: None)
    assert findings.outliers is not None
    outliers = findings.outliers[findings.outliers["is_outlier"]]
    assert set(outliers["path"].head(5)) == {f"{row}.wav" for row in planted}
    assert len(outliers) <= 5 + 0.02 * 600
    if shape == "one column":
        by_path = outliers.set_index("path")["unusual"]
        assert all(by_path[f"{row}.wav"].startswith(f"x{column} +") for column, row in enumerate(planted))


def test_flipped_labels_are_doubted() -> None:
    """Of 18 flipped labels among 300 at least 16 are among the 18 least probable, and of candidates at least nine in ten are flipped."""
    values, labels, wrong = clusters()
    findings = exploring.explore(material(values, labels), config(), lambda line: None)
    assert findings.doubts is not None
    candidates = {int(path.partition(".")[0]) for path in findings.doubts.loc[findings.doubts["is_candidate"], "path"]}
    assert len(candidates & wrong) >= max(9, 0.9 * len(candidates))
    assert len({int(path.partition(".")[0]) for path in findings.doubts["path"].head(18)} & wrong) >= 16
    first = findings.doubts.head(9)
    truth = [f"label {int(path.partition('.')[0]) % 3}" for path in first["path"]]
    assert first["suggested"].tolist() == truth
    noise = findings.facts["label_noise"]
    assert (noise["n"], noise["num_candidates"], sum(noise["per_label"].values())) == (
        300,
        len(candidates),
        len(candidates),
    )
    assert noise["accuracy"] > 0.85
    assert noise["tracks"][0]["path"] == findings.doubts["path"][0]


def test_what_twins_share_does_not_vouch_for_their_label() -> None:
    """Copies of a track, were they in different folds, would each prove the other's label right."""
    values, labels, _ = clusters(90, flipped=0)
    copied = 12 * np.eye(6)  # far from all others, so that only copies can tell
    everything = np.concatenate([values, np.repeat(copied, 10, axis=0)])
    codes = np.array([*(int(str(label)[-1]) for label in labels), *np.repeat([1, 2, 0, 2, 0, 1], 10)])
    given = np.arange(90, 150), codes[90:]
    apart, judged = doubting.cross_validate(everything, codes, np.arange(150), 5, 0)
    together, _ = doubting.cross_validate(
        everything, codes, np.concatenate([np.arange(90), 90 + np.repeat(range(6), 10)]), 5, 0
    )
    assert judged.all()
    assert apart.sum(1) == pytest.approx(1)
    assert apart[given].mean() > 0.7
    assert together[given].mean() < 0.4


def test_confident_joint() -> None:
    """Thresholds are the mean self-confidences, 0.7 and 0.6: only the third track counts off the diagonal."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.62], [0.45, 0.55], [0.35, 0.65]])
    codes = np.array([0, 0, 0, 1, 1])
    is_candidate, suggested = doubting.find_candidates(probabilities, codes)
    assert is_candidate.tolist() == [False, False, True, False, False]
    assert suggested.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([None] * 60, "no labels: there is no other to compare with"),
        (["a"] * 60, "one label: there is no other to compare with"),
        (["a"] * 57 + ["b"] * 3, "no two labels have 5 tracks"),
    ],
)
def test_labels_that_cannot_be_doubted(labels: list[str | None], why: str) -> None:
    findings = exploring.explore(material(correlated(60), labels), config(), lambda line: None)
    assert findings.doubts is None
    assert findings.left_out == {"label_noise": why}
    assert findings.facts["outliers"]["n"] == 60


def test_a_label_of_one_artist_is_not_judged() -> None:
    values, labels, _ = clusters(60)
    made = material(values, labels)
    made.frame["group"] = [f"artist {row % 3 if row % 3 == 0 else row}" for row in range(60)]
    made.frame["label"] = [f"label {row % 3}" for row in range(60)]
    findings = exploring.explore(made, config(), lambda line: None)
    assert findings.facts["label_noise"]["per_label"].keys() == {"label 1", "label 2"}
    assert findings.facts["label_noise"]["num_left"] == 20
    made.frame["group"] = made.frame["label"]
    assert (
        exploring.explore(made, config(), lambda line: None).left_out["label_noise"]
        == "no two labels have several groups"
    )


def test_columns_that_go_together_stand_together() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((500, 2))
    values = np.column_stack(
        [base[:, 0], base[:, 1], -base[:, 0] + 0.01 * rng.standard_normal(500), np.ones(500), base[:, 1]]
    )
    values[:7, 4] = np.nan
    found, names = exploring.correlate(values, list("abcde"))
    assert {tuple(sorted(names[:2])), tuple(sorted(names[2:]))} == {("a", "c"), ("b", "e")}
    assert found[names.index("a"), names.index("c")] < -0.99
    assert found[names.index("b"), names.index("e")] == pytest.approx(1)
    pairs = exploring.explore(material(values[:, :3]), config(), lambda line: None).facts["correlations"]
    assert [(pair["a"], pair["b"]) for pair in pairs] in ([("x0", "x2")], [("x2", "x0")])


def test_twins_are_listed_by_how_they_are_alike() -> None:
    values, labels, _ = clusters(30, flipped=0)
    hashes = [str(row) for row in range(30)]
    hashes[3], hashes[4], hashes[9] = "0", "1", "6"
    made = material(
        values, labels, twins={"byte-identical files": hashes, "rows of the same id": [str(row) for row in range(30)]}
    )
    found = exploring.explore(made, config(), lambda line: None).facts["duplicates"]
    assert [(row["how"], row["num_sets"], row["num_tracks"], row["num_labels_differ"]) for row in found] == [
        ("byte-identical files", 3, 6, 0)
    ]
    assert found[0]["sets"][0] == {"paths": ["0.wav", "3.wav"], "labels_differ": False}
    made.frame.loc[9, "label"] = "another"
    found = exploring.explore(made, config(num_shown=1), lambda line: None).facts["duplicates"]
    assert found[0]["sets"] == [{"paths": ["6.wav"], "labels_differ": True}]
    assert found[0]["num_labels_differ"] == 1


def test_few_tracks_and_few_features_are_said() -> None:
    findings = exploring.explore(material(correlated(4)), config(embedding="tsne"), lambda line: None)
    assert findings.left_out.keys() == {"outliers", "label_noise", "embedding"}
    assert findings.components is not None
    findings = exploring.explore(material(correlated(4)[:, :1]), config(), lambda line: None)
    assert findings.left_out["pca"] == "4 tracks and 1 features: too few of them vary"
    assert findings.correlations is None


def test_the_second_map_is_the_same_for_the_same_seed() -> None:
    values, labels, _ = clusters(60, flipped=0)
    maps = [
        exploring.explore(material(values, labels), config(embedding="tsne"), lambda line: None).embedding
        for _ in range(2)
    ]
    assert maps[0] is not None
    assert maps[1] is not None
    assert maps[0].tobytes() == maps[1].tobytes()
    centres = np.array([maps[0][np.array(labels) == f"label {at}"].mean(0) for at in range(3)])
    nearest = np.linalg.norm(maps[0][:, None] - centres, axis=2).argmin(1)
    assert (nearest == np.array([int(str(label)[-1]) for label in labels])).mean() > 0.85


def test_samples_and_lists_of_labels() -> None:
    assert draw_sample(5, 10, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_sample(1000, 10, 3)
    assert len(set(drawn.tolist())) == 10
    assert (np.diff(drawn) > 0).all()
    assert (drawn == draw_sample(1000, 10, 3)).all()
    assert (drawn != draw_sample(1000, 10, 4)).any()
    assert list_labels(pd.Series(["b", "a", None, "c", "c"], dtype=object), 2) == ["c", "a"]
