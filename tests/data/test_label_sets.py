from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import label_sets, splits
from parallel_tunes.schema import build, defaults


def make_tracks(num: int = 400, group_size: int = 1, seed: int = 0) -> pd.DataFrame:
    """Tracks of one to four of eight labels, the first of which are common and the last rare."""
    rng = np.random.default_rng(seed)
    chances = 0.6 / np.arange(1, 9)
    sets = [np.flatnonzero(rng.random(8) < chances) for _ in range(num // group_size)]
    labels = ["|".join(f"label {number}" for number in held) or "label 0" for held in sets]
    return pd.DataFrame(
        {
            "path": [f"{number:04d}.wav" for number in range(num)],
            "label": np.repeat(np.array(labels, object), group_size),
            "group": np.repeat([f"artist {number}" for number in range(num // group_size)], group_size)
            if group_size > 1
            else None,
            "hash": [str(number) for number in range(num)],
            "split": None,
        }
    )


def shares(cfg: SplitConfig) -> dict[str, float]:
    return {"train": cfg.train, "valid": cfg.valid, "test": cfg.test}


CFG: SplitConfig = build(SplitConfig, defaults("split", "auto"), "split.")


def test_labels_are_taken_apart() -> None:
    cases: list[tuple[str, tuple[str, ...]]] = [
        ("b|a", ("a", "b")),
        ("a", ("a",)),
        (" a | b|a", ("a", "b")),
        ("a||b|", ("a", "b")),
        ("|", ()),
        ("a b|ü", ("a b", "ü")),
    ]
    for label, parts in cases:
        assert label_sets.take_apart(label) == parts
        assert label_sets.take_apart(label, multi_label=False) == (label,)


def test_a_table_says_which_labels_a_track_has() -> None:
    labels = np.array(["a|c", "b", "d", "c|d", "a|c"], object)
    held = label_sets.tabulate(labels, ["a", "b", "c"], multi_label=True)
    assert held.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert label_sets.list_classes(labels, multi_label=True) == ["a", "b", "c", "d"]
    assert label_sets.list_classes(labels, multi_label=False) == ["a|c", "b", "c|d", "d"]
    assert label_sets.tabulate(labels, ["a|c", "b"], multi_label=False)[:, 0].tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("group_size", [1, 4])
def test_each_label_comes_near_its_shares(group_size: int) -> None:
    tracks = make_tracks(400 * group_size, group_size)
    drawn = splits.draw(tracks, CFG, multi_label=True)
    labels = tracks["label"].to_numpy(object)
    held = label_sets.tabulate(labels, label_sets.list_classes(labels, multi_label=True), multi_label=True)
    rows = np.sort(np.concatenate(list(drawn.rows.values())))
    np.testing.assert_array_equal(rows, np.arange(len(tracks)))
    for name, share in shares(CFG).items():
        part = drawn.rows[name]
        assert abs(len(part) / len(tracks) - share) < 0.03
        off = np.abs(held[part].sum(0) - share * held.sum(0)) / group_size
        assert off.max() < 3, f"{name}: {off}"
        assert held[part].any(0).all()
    assert drawn.warnings == ([] if group_size > 1 else [splits.UNGROUPED])
    assert drawn.kind == ("grouped" if group_size > 1 else "stratified")
    if group_size > 1:
        sides = [set(tracks["group"].iloc[part]) for part in drawn.rows.values()]
        assert sum(map(len, sides)) == len(set.union(*sides))


def test_common_sets_are_dealt_by_themselves() -> None:
    """What is common enough is in every split, not its labels alone."""
    tracks = make_tracks()
    tracks["label"] = np.tile(["a", "b", "a|b", "b|c", "a|b|c"], 80)
    drawn = splits.draw(tracks, CFG, multi_label=True)
    for name, share in shares(CFG).items():
        assert set(tracks["label"].iloc[drawn.rows[name]].value_counts()) == {round(80 * share)}


def test_the_commonest_value_of_each_group() -> None:
    members, values = np.array([1, 0, 1, 0, 2, 1, 0]), np.array([3, 0, 5, 2, 1, 3, 0])
    assert label_sets.find_commonest(members, values).tolist() == [0, 3, 1]


def test_as_label_sets_of_their_own_they_would_not_be_dealt() -> None:
    """Sets that occur once all go to train: what splits of single labels make of these."""
    tracks = make_tracks()
    tracks["label"] = [f"{label}|only {number}" for number, label in enumerate(tracks["label"])]
    assert len(splits.draw(tracks, CFG).rows["train"]) == len(tracks)
    assert len(splits.draw(tracks, CFG, multi_label=True).rows["test"]) > 0


def test_a_label_too_rare_for_every_split_is_told() -> None:
    tracks = make_tracks()
    tracks.loc[7, "label"] = "label 0|once"
    warnings = splits.draw(tracks, CFG, multi_label=True).warnings
    assert warnings == [splits.UNGROUPED, "label 'once' is in 1 groups or tracks: none is left for test and valid"]
    assert 7 in splits.draw(tracks, CFG, multi_label=True).rows["train"]


def test_what_is_odd_is_said() -> None:
    joined, plain = np.array(["a|b", "a"], object), np.array(["a", "b"], object)
    assert "task.multi_label=true takes them apart" in str(label_sets.list_oddities(joined, multi_label=False))
    assert "no track has more than one label" in str(label_sets.list_oddities(plain, multi_label=True))
    assert label_sets.list_oddities(joined, multi_label=True) == []
    assert label_sets.list_oddities(plain, multi_label=False) == []


def test_labels_that_differ_in_spelling_alone_are_told_and_merged_when_asked() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    labels = ["jazz", "Jazz", "jazz", "hip  hop", "hip hop", composed, decomposed, "rock", "rock|JAZZ"]
    assert label_sets.find_alike(labels) == [["jazz", "JAZZ", "Jazz"], [decomposed, composed], ["hip  hop", "hip hop"]]
    told = label_sets.list_oddities(np.array(labels[:2], object), multi_label=False)
    assert told == ["the labels 'Jazz', 'jazz' count as 2; data.merge_labels=true makes them one"]
    merged = label_sets.merge_alike(labels)
    assert merged[:5] == ["jazz", "jazz", "jazz", "hip  hop", "hip  hop"]
    assert merged[5] == merged[6]
    assert merged[7:] == ["rock", "jazz|rock"]
    assert label_sets.find_alike(merged) == []
