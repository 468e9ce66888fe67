from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, log_loss, roc_auc_score

from parallel_tunes.train import metrics, multi_label
from parallel_tunes.train.judging import Floats, Resamples

CLASSES = ["a", "b", "c", "d"]


def answers(num: int = 150, num_levels: int = 10**6, seed: int = 0) -> tuple[Floats, multi_label.Table]:
    """Probabilities that know something of the targets, with as many ties as there are few levels."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((num, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.int8)
    known = 0.3 * targets + 0.7 * rng.random((num, 4))
    return np.round(known * num_levels) / num_levels, targets


@pytest.mark.parametrize("num_levels", [4, 20, 10**6])
def test_figures_are_those_of_scikit_learn(num_levels: int) -> None:
    probabilities, targets = answers(num_levels=num_levels)
    thresholds = np.array([0.3, 0.5, 0.5, 0.6])
    found = multi_label.judge_sets(probabilities, targets, CLASSES, thresholds, None)
    told = probabilities >= thresholds
    wanted = {
        "map": average_precision_score(targets, probabilities, average="macro"),
        "macro_auc": roc_auc_score(targets, probabilities, average="macro"),
        "micro_auc": roc_auc_score(targets, probabilities, average="micro"),
        "macro_f1": f1_score(targets, told, average="macro"),
        "micro_f1": f1_score(targets, told, average="micro"),
        "hamming_loss": hamming_loss(targets, told),
        "accuracy": accuracy_score(targets, told),
    }
    assert set(wanted) == set(multi_label.HEADLINES)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
        low, high = found[f"{name}_ci95"]
        assert low < value < high
    for at, name in enumerate(CLASSES):
        row = found["per_class"][name]
        assert row["ap"] == pytest.approx(average_precision_score(targets[:, at], probabilities[:, at]), abs=1e-12)
        assert row["auc"] == pytest.approx(roc_auc_score(targets[:, at], probabilities[:, at]), abs=1e-12)
        assert row["f1"] == pytest.approx(f1_score(targets[:, at], told[:, at]))
        assert (row["support"], row["threshold"]) == (targets[:, at].sum(), thresholds[at])
    assert found["n"] == 150
    assert found["labels_per_track"] == pytest.approx(targets.sum() / 150)
    assert found["map_of_chance"] == pytest.approx(targets.mean())


@pytest.mark.parametrize("num_levels", [5, 10**6])
def test_resamples_count_as_scikit_learn_weighs(num_levels: int) -> None:
    probabilities, targets = answers(num_levels=num_levels)
    scores, held = probabilities[:, 0], targets[:, 0]
    groups = np.arange(150) // 3
    resamples = Resamples(150, groups, 30)
    average, area = multi_label.Ranking(scores, held, resamples.members).judge_drawn(resamples)
    for at, counts in enumerate(resamples.draw()):
        weights = counts[groups].astype(float)
        assert average[at] == pytest.approx(average_precision_score(held, scores, sample_weight=weights), abs=1e-9)
        assert area[at] == pytest.approx(roc_auc_score(held, scores, sample_weight=weights), abs=1e-9)


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = multi_label.judge_sets(*answers(), CLASSES, np.full(4, 0.5), None)
    monkeypatch.setattr(multi_label, "AT_ONCE", 1000)
    assert multi_label.judge_sets(*answers(), CLASSES, np.full(4, 0.5), None) == whole


def test_more_probabilities_have_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_label, "MOST_CELLS", 1000 * 600)
    found = multi_label.judge_sets(*answers(), CLASSES, np.full(4, 0.5), None)
    assert "1000 resamples" in found["ci95_method"]


@pytest.mark.parametrize("num_levels", [8, 10**6])
def test_thresholds_have_the_highest_f1_of_all(num_levels: int) -> None:
    probabilities, targets = answers(40, num_levels, seed=3)
    thresholds = multi_label.choose_thresholds(probabilities, targets)
    for scores, held, threshold in zip(probabilities.T, targets.T, thresholds, strict=True):
        best = max(f1_score(held, scores >= level) for level in np.unique(scores))
        assert f1_score(held, scores >= threshold) == pytest.approx(best)
        assert not np.isin(threshold, scores)


@pytest.mark.parametrize(
    ("scores", "held", "threshold"),
    [
        ([0.1, 0.2, 0.4, 0.8], [0, 0, 1, 1], 0.3),  # half-way between those it parts
        ([0.1, 0.2, 0.4, 0.8], [0, 0, 0, 0], 0.5),  # nothing can be learnt
        ([0.3, 0.7], [1, 1], 0.15),  # all have it
        ([0.1, 0.3, 0.4, 0.9], [1, 0, 0, 1], 0.65),  # F1 is 2/3 at 0.05 and at 0.65
        ([0.6, 0.6], [1, 0], 0.3),  # equal ones are not parted
    ],
)
def test_ties_and_labels_that_none_has_follow_the_rule(scores: list[float], held: list[int], threshold: float) -> None:
    found = multi_label.choose_thresholds(np.array(scores)[:, None], np.array(held)[:, None])
    assert found.tolist() == pytest.approx([threshold])


def test_without_a_validation_track_thresholds_are_one_half() -> None:
    assert multi_label.choose_thresholds(np.zeros((0, 3)), np.zeros((0, 3), np.int8)).tolist() == [0.5] * 3


def test_labels_that_none_or_all_have_do_not_count_in_the_means() -> None:
    probabilities, targets = answers()
    targets[:, 2], targets[:, 3] = 0, 1
    found = multi_label.judge_sets(probabilities, targets, CLASSES, np.full(4, 0.5), None)
    rows = found["per_class"]
    assert rows["c"]["ap"] is rows["c"]["ap_ci95"] is rows["c"]["auc"] is rows["d"]["auc"] is None
    assert rows["d"]["ap"] == 1
    assert rows["d"]["ap_ci95"] is None
    assert found["map"] == pytest.approx(np.mean([rows[name]["ap"] for name in "abd"]))
    assert found["macro_auc"] == pytest.approx(np.mean([rows[name]["auc"] for name in "ab"]))
    assert found["macro_f1"] == pytest.approx(np.mean([rows[name]["f1"] for name in "abd"]))


def test_groups_widen_the_intervals_when_their_tracks_agree() -> None:
    probabilities, targets = answers(40)
    probabilities, targets = probabilities.repeat(8, axis=0), targets.repeat(8, axis=0)
    groups = np.repeat(np.arange(40), 8)
    alone, together = (
        multi_label.judge_sets(probabilities, targets, CLASSES, np.full(4, 0.5), each) for each in (None, groups)
    )
    for name in multi_label.HEADLINES:
        (low, high), (lower, higher) = alone[f"{name}_ci95"], together[f"{name}_ci95"]
        assert higher - lower > 2 * (high - low), name
    assert together["num_groups"] == 40


def test_all_right_is_no_certainty() -> None:
    _, targets = answers(60)
    found = multi_label.judge_sets(np.where(targets, 0.9, 0.1), targets, CLASSES, np.full(4, 0.5), None)
    assert found["map"] == found["accuracy"] == found["micro_f1"] == 1
    assert found["map_ci95"] is found["macro_f1_ci95"] is found["hamming_loss_ci95"] is None
    assert found["accuracy_ci95"][0] < 0.96
    assert "Wilson" in found["accuracy_ci95_method"]


def test_validation_is_scored_at_one_half() -> None:
    probabilities, targets = answers()
    found = metrics.score(probabilities, targets)
    assert found["loss"] == pytest.approx(log_loss(targets.ravel(), probabilities.ravel()))
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, probabilities > 0.5))
    assert set(found) == {"loss", "accuracy", "n"}


def test_seeds_are_averaged_with_their_spread() -> None:
    single: list[dict[str, Any]] = [
        multi_label.judge_sets(*answers(seed=seed), CLASSES, np.full(4, 0.5), None) for seed in range(3)
    ]
    found = multi_label.over_seeds(single, (4, 5, 6))
    for name in multi_label.HEADLINES:
        assert found[name] == pytest.approx(np.mean([figures[name] for figures in single]))
        assert found[f"{name}_ci95"] == pytest.approx(np.mean([figures[f"{name}_ci95"] for figures in single], axis=0))
    assert found["map_by_seed"] == {str(4 + at): figures["map"] for at, figures in enumerate(single)}
    assert found["map_deviation"] == pytest.approx(np.std([figures["map"] for figures in single], ddof=1))
    assert found["per_class"] == single[0]["per_class"]
