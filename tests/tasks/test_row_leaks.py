from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from parallel_tunes.data.splits import Split
from parallel_tunes.run import Run
from parallel_tunes.tasks.leaks import LeakError
from parallel_tunes.tasks.row_leaks import NEAR, find_pairs, guard

NUM = 3000


def plant(seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], set[tuple[int, int]]]:
    """Numbers of recordings, the side of each, and the pairs that are one recording, the earlier side first."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((NUM, 8)) * rng.uniform(0.01, 1000, 8) + 5
    sides = rng.choice(3, NUM, p=(0.7, 0.1, 0.2))
    spread, planted = features.std(axis=0), set()
    rows = rng.permutation(NUM)[:80].reshape(2, 40)
    for number, (row, other) in enumerate(rows.T.tolist()):
        error = 0.0 if number % 2 else 0.9 * NEAR * rng.uniform(-1, 1, 8)
        features[other] = features[row] + error * spread
        if sides[row] != sides[other]:
            planted.add((row, other) if sides[row] < sides[other] else (other, row))
    return features, sides, planted


def split_of(sides: NDArray[np.int64]) -> Split:
    return Split(
        "random", {name: np.flatnonzero(sides == side) for side, name in enumerate(("train", "valid", "test"))}
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_is_listed_twice_is_found_and_nothing_else(seed: int) -> None:
    features, sides, planted = plant(seed)
    found = find_pairs(features, sides)
    assert found is not None
    assert {(row, other) for row, other, _ in found} == planted
    assert 5 < sum(not apart for *_, apart in found) < len(found)


def test_rows_that_agree_in_few_columns_may_be_of_different_recordings() -> None:
    features, sides, _ = plant(0)
    assert find_pairs(np.round(features[:, :5] / features.std(axis=0)[:5]), sides) is None
    assert find_pairs(features[:, :3], sides) is None


def test_the_action_is_taken(tmp_path: Path) -> None:
    features, sides, planted = plant(1)
    frame = pd.DataFrame({"path": [f"t{number}" for number in range(NUM)]})
    run = Run("train", {}, tmp_path, is_writer=False, started=0.0)
    warned = split_of(sides)
    same, found = guard(warned, features, frame, "warn", run)
    assert same is warned
    assert found["num_exact"] + found["num_near"] == len(planted)
    (line,) = warned.warnings
    assert line.startswith(
        f"{found['num_exact']} pairs of rows with the same numbers and {found['num_near']} with nearly the same"
    )
    with pytest.raises(LeakError, match=r"data\.leaks=fail: .* data\.leaks=drop leaves them out"):
        guard(split_of(sides), features, frame, "fail", run)
    left, found = guard(split_of(sides), features, frame, "drop", run)
    assert not {row for row, _ in planted} & set(np.concatenate([left.rows["train"], left.rows["valid"]]).tolist())
    assert left.rows["test"].tolist() == np.flatnonzero(sides == 2).tolist()
    assert sum(found["num_dropped"].values()) == left.num_dropped == len({row for row, _ in planted})
    drawn = left.rows["train"], left.rows["valid"], left.rows["test"]
    again = np.full(NUM, -1)
    for side, rows in enumerate(drawn):
        again[rows] = side
    assert find_pairs(features, again) == []


def test_recordings_under_other_names_are_told_and_left_out(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("synth", "kind=tracks", "num_tracks=600", "num_artists=20", "run.name=t") == 0
    path = tmp_path / "logs/synth/t/tracks.csv"
    table = pd.read_csv(path, dtype=str)
    copies = table.sample(30, random_state=0).assign(artists=[f"['Other {n}']" for n in range(30)])
    copies["id"] = [f"copy{number}" for number in range(30)]
    copies["id_artists"] = [f"['other{number}']" for number in range(30)]
    pd.concat([table, copies[table.columns]]).to_csv(tmp_path / "t.csv", index=False)
    words = ("train", "task=popularity", "data.root=t.csv", "model.C=0.1", "task.refits=20", "task.resamples=20")
    assert run(*words, "run.name=warned") == 0
    assert "pairs of rows with the same numbers and" in capsys.readouterr().err
    assert run(*words, "data.leaks=drop", "run.name=dropped") == 0
    assert "data.leaks=drop: " in capsys.readouterr().out
    reports = [json.loads((tmp_path / f"logs/train/{name}/report.json").read_text()) for name in ("warned", "dropped")]
    assert reports[0]["leaks"]["num_exact"] == reports[1]["leaks"]["num_exact"] > 5
    num_dropped = sum(reports[1]["leaks"]["num_dropped"].values())
    before, after = (sum(report["split"]["tracks"].values()) for report in reports)
    assert before - after == num_dropped > 5
    assert "on both sides of the split" in (tmp_path / "logs/train/dropped/report.html").read_text()
    assert run(*words, "data.leaks=fail", "run.name=failed") == 2
