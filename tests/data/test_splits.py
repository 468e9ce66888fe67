from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_tunes import schema
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import splits
from parallel_tunes.schema import UserError

DEFAULT = schema.build(SplitConfig, schema.defaults("split", "auto"))


def table(labels: list[str], groups: list[str | None] | None = None, hashes: list[str] | None = None) -> pd.DataFrame:
    num = len(labels)
    columns = {
        "path": [f"{label}/{number:04d}.wav" for number, label in enumerate(labels)],
        "label": labels,
        "group": groups or [None] * num,
        "split": [None] * num,
        "hash": hashes or [f"{number:032x}" for number in range(num)],
    }
    return pd.DataFrame(columns, dtype=object)


def draw(tracks: pd.DataFrame, **changed: Any) -> splits.Split:
    return splits.draw(tracks, dataclasses.replace(DEFAULT, **changed))


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), min_size=12, max_size=90),
    st.integers(0, 9),
    st.booleans(),
)
def test_every_track_lies_in_one_split_and_groups_stay_together(
    members: list[tuple[str, int]], seed: int, grouped: bool
) -> None:
    labels = [label for label, _ in members]
    groups: list[str | None] = [str(group) for _, group in members]
    tracks = table(labels, groups if grouped else None)
    split = draw(tracks, seed=seed)
    assert split.kind == ("grouped" if grouped else "stratified")
    assert sorted(np.concatenate(list(split.rows.values())).tolist()) == list(range(len(tracks)))
    if grouped:
        sides = [{groups[row] for row in rows} for rows in split.rows.values()]
        assert not (sides[0] & sides[1])
        assert not (sides[0] & sides[2])
        assert not (sides[1] & sides[2])
    again = draw(tracks, seed=seed)
    assert all((split.rows[name] == again.rows[name]).all() for name in splits.SPLITS)


def test_shares_are_met_label_by_label() -> None:
    labels = ["a"] * 100 + ["b"] * 50
    split = draw(table(labels))
    counts = {name: [sum(labels[row] == label for row in rows) for label in "ab"] for name, rows in split.rows.items()}
    assert counts == {"train": [70, 35], "valid": [10, 5], "test": [20, 10]}
    assert split.warnings == [splits.UNGROUPED]
    assert not draw(table(labels), kind="stratified").warnings  # as asked for


def test_grouped_shares_are_near_and_every_label_is_judged() -> None:
    labels = [label for label in "abcdefghij" for _ in range(120)]
    groups: list[str | None] = [f"{label}{number // 5}" for number, label in enumerate(labels)]
    split = draw(table(labels, groups))
    assert abs(len(split.rows["test"]) - 240) <= 10
    assert all(len({labels[row] for row in rows}) == 10 for rows in split.rows.values())


def test_the_seed_matters() -> None:
    tracks = table(["a"] * 50 + ["b"] * 50)
    assert (draw(tracks, seed=0).rows["test"] != draw(tracks, seed=1).rows["test"]).any()


def test_small_labels_train_first_and_are_named() -> None:
    split = draw(table(["a"] * 20 + ["solo"] + ["duo"] * 2 + ["trio"] * 3))
    train, valid, test = (set(split.rows[name]) for name in splits.SPLITS)
    assert 20 in train
    assert len({21, 22} & train) == 1
    assert len({21, 22} & test) == 1
    assert all(len({23, 24, 25} & side) == 1 for side in (train, valid, test))
    assert any("'solo' has 1 track: none is left for test and valid" in warning for warning in split.warnings)


def test_duplicates_across_the_split_are_found_and_dropped_on_request() -> None:
    hashes = [f"{number % 30}" for number in range(60)]
    tracks = table(["a"] * 30 + ["b"] * 30, hashes=hashes)
    split = draw(tracks)
    assert len(split.duplicates) == 30
    assert all(pair["labels_differ"] for pair in split.duplicates)
    assert any(pair["leaks"] for pair in split.duplicates)
    assert any("byte-identical" in warning for warning in split.warnings)
    single = draw(tracks, drop_duplicates=True)
    assert single.num_dropped == 30
    assert sum(len(rows) for rows in single.rows.values()) == 30
    assert not any(pair["leaks"] for pair in single.duplicates)


def test_lists_by_file_and_by_column(tmp_path: Path) -> None:
    tracks = table(["a", "a", "b", "b", "b"])
    (tmp_path / "train.txt").write_text("a/0000.wav\n0001\n\nb/0002\n")
    (tmp_path / "test.txt").write_text("0003.au\n")
    split = draw(tracks, kind="lists", train_list=tmp_path / "train.txt", test_list=tmp_path / "test.txt")
    assert {name: rows.tolist() for name, rows in split.rows.items()} == {"train": [0, 1, 2], "valid": [], "test": [3]}
    assert split.num_excluded == 1
    tracks["split"] = ["train", "test", "valid", None, "train"]
    split = draw(tracks, kind="lists")
    assert {name: rows.tolist() for name, rows in split.rows.items()} == {"train": [0, 4], "valid": [2], "test": [1]}


def test_bad_settings() -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"train": 0.9}, "shares must add up to 1"),
        ({"train": 0.0, "valid": 0.5, "test": 0.5}, "train above 0"),
        ({"kind": "grouped"}, "no groups are known"),
        ({"kind": "lists"}, "split=lists: give"),
        ({"kind": "lists", "train_list": Path("/nowhere/list")}, "cannot be read"),
    ]
    for changed, says in bad:
        with pytest.raises(UserError, match=re.escape(says)):
            draw(table(["a"] * 5), **changed)


def test_lists_that_overlap_or_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0000\n")
    (tmp_path / "none.txt").write_text("9999\n")
    with pytest.raises(UserError, match="is in the lists of train and test"):
        draw(table(["a", "b"]), kind="lists", train_list=tmp_path / "a.txt", test_list=tmp_path / "a.txt")
    with pytest.raises(UserError, match="no track to learn from"):
        draw(table(["a", "b"]), kind="lists", train_list=tmp_path / "none.txt")
    tracks = table(["a", "b"])
    tracks["split"] = ["train", "tset"]
    with pytest.raises(UserError, match="'tset'"):
        draw(tracks, kind="lists")


def test_lists_with_folders_name_the_rows_of_a_table_without(tmp_path: Path) -> None:
    paths = {"path": ["a.wav", "b.wav", "c.wav"], "hash": list("abc")}
    tracks = pd.DataFrame({**paths, "label": "x", "group": None, "split": None})
    (tmp_path / "train.txt").write_text("blues/a.wav\nblues/c.wav\n")
    (tmp_path / "test.txt").write_text("rock/b.wav\n")
    rows = draw(tracks, kind="lists", train_list=tmp_path / "train.txt", test_list=tmp_path / "test.txt").rows
    assert [list(rows[name]) for name in ("train", "valid", "test")] == [[0, 2], [], [1]]


def test_a_lot_and_the_years_deal_by_shares() -> None:
    tracks = table(["x"] * 500).assign(year=np.repeat(np.arange(1970, 1990), 25))
    lot, again = (draw(tracks, kind="random").rows for _ in range(2))
    assert [len(lot[name]) for name in ("train", "valid", "test")] == [350, 50, 100]
    assert all(np.array_equal(lot[name], again[name]) for name in lot)
    assert not np.array_equal(lot["test"], draw(tracks, kind="random", seed=1).rows["test"])
    timed = draw(tracks, kind="time").rows
    assert list(timed["test"]) == list(range(400, 500))
    assert tracks["year"][timed["train"]].max() < tracks["year"][timed["valid"]].min()
    with pytest.raises(UserError, match="years of release are not known"):
        draw(tracks.drop(columns="year"), kind="time")
