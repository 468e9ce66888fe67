from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks_of import make_job, read_planted

from parallel_tunes.data import synthetic_tracks
from parallel_tunes.data.tracks import Tracks, read_tracks
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks.margin_fit import fit
from parallel_tunes.tasks.protocols import Case, climb_ladder, judge_baselines, make_case, resamples_of

SEEDS = 2 * int(os.environ.get("PT_SOAK", "1"))


def silent(folder: Path) -> Run:
    """A run that writes and says nothing."""
    return Run("train", make_job(), folder, is_writer=False, started=0.0)


def planted(folder: Path, *words: str, seed: int = 0, **more: Any) -> Tracks:
    """A small table with 25 artists."""
    made = synthetic_tracks.make(num_tracks=1500, num_artists=25, seed=seed, **more)
    return read_planted(made, folder / f"table-{seed}", *words)


def cut(tracks: Tracks, folder: Path, kind: str, *words: str, year: bool = False) -> Case:
    job = make_job(*words)
    return make_case(job, tracks, Mesh(), silent(folder), split=replace(job.split, kind=kind), year=year)


def test_groups_lie_on_one_side_and_years_in_order(tmp_path: Path) -> None:
    tracks = planted(tmp_path)
    frame = tracks.frame
    grouped = cut(tracks, tmp_path, "grouped").rows
    sides = [set(frame["group"].iloc[grouped[name]]) for name in ("train", "valid", "test")]
    assert not sides[0] & (sides[1] | sides[2])
    assert not sides[1] & sides[2]
    timed = cut(tracks, tmp_path, "time").rows
    years = {name: frame["year"].iloc[rows] for name, rows in timed.items()}
    assert years["train"].max() < years["valid"].min() <= years["valid"].max() < years["test"].min()
    random = cut(tracks, tmp_path, "random").rows
    assert sorted(np.concatenate(list(random.values()))) == list(range(len(frame)))
    assert len(random["test"]) == pytest.approx(0.2 * len(frame), abs=2)


def test_the_threshold_is_that_of_the_training_tracks(tmp_path: Path) -> None:
    tracks = planted(tmp_path)
    before = cut(tracks, tmp_path, "grouped")
    popularity = tracks.frame["popularity"].to_numpy(copy=True)
    popularity[before.rows["test"]] = 100 - popularity[before.rows["test"]]
    other = replace(tracks, frame=tracks.frame.assign(popularity=popularity))
    after = cut(other, tmp_path, "grouped")
    assert after.goal.threshold == before.goal.threshold == np.median(popularity[before.rows["train"]])
    models = [fit(case.ground, case.goal, case.rows["train"], case.rows["valid"]).model for case in (before, after)]
    assert np.array_equal(models[0].weights, models[1].weights)
    assert np.array_equal(models[0].sigmoids, models[1].sigmoids)


def test_genres_are_the_most_frequent_of_the_training_tracks(tmp_path: Path) -> None:
    words = ("task.target=genre", "task.num_genres=3")
    made = synthetic_tracks.make(num_tracks=1500, num_artists=25)
    tracks = read_planted(made, tmp_path / "t", *words)
    made.artists.to_csv(tmp_path / "t" / "artists_with_genres.csv", index=False)
    case = cut(tracks, tmp_path, "grouped", *words, f"data.root={tmp_path / 't' / 'tracks.csv'}")
    assert len(case.goal.classes) == 3
    known = np.concatenate(list(case.rows.values()))
    assert (case.goal.values[known] >= 0).all()
    assert case.num_left == int((case.goal.values < 0).sum()) > 0
    families = [made.truth["families"][name] for name in tracks.frame["artist"].iloc[known]]
    assert [case.goal.classes[int(value)] for value in case.goal.values[known]] == families


def test_splits_by_artist_show_what_artists_give_away(tmp_path: Path) -> None:
    """Planted artist effects: lower than at random; none planted: the same within the intervals."""
    for effect in (1.0, 0.0):
        gaps, overlaps = [], []
        for seed in range(SEEDS):
            folder = tmp_path / f"{effect}"
            tracks = planted(folder, seed=seed, artist_effect=effect, noise=0.3)
            ladder = climb_ladder(make_job("task.resamples=200", "model.C=0.1"), tracks, Mesh(), silent(tmp_path))
            scores = {row["split"]: row["test"] for row in ladder if not row["year"]}
            gaps.append(scores["random"]["accuracy"] - scores["grouped"]["accuracy"])
            low, high = scores["grouped"]["accuracy_ci95"]
            overlaps.append(
                low <= scores["random"]["accuracy_ci95"][1] and scores["random"]["accuracy_ci95"][0] <= high
            )
        if effect:
            assert np.mean(gaps) > 0.03
        else:
            assert abs(np.mean(gaps)) < 0.03
            assert np.mean(overlaps) >= 0.6


def test_the_year_gives_away_what_was_planted(tmp_path: Path) -> None:
    tracks = planted(tmp_path, artist_effect=0.0, year_effect=1.5)
    ladder = climb_ladder(make_job("task.resamples=100", "model.C=0.1"), tracks, Mesh(), silent(tmp_path))
    scores = {(row["split"], row["year"]): row["test"]["auc"] for row in ladder}
    assert scores["random", True] > scores["random", False] + 0.1
    assert scores["grouped", True] > scores["grouped", False] + 0.1


def test_what_cannot_be_drawn_says_why(tmp_path: Path) -> None:
    made = synthetic_tracks.make(num_tracks=400, num_artists=25)
    folder = tmp_path / "t"
    folder.mkdir()
    made.tracks.drop(columns=["release_date", "artists", "id_artists"]).to_csv(folder / "tracks.csv", index=False)
    job = make_job(f"data.root={folder}", "task.resamples=50", "model.C=1")
    ladder = climb_ladder(job, read_tracks(job.data, job.task), Mesh(), silent(tmp_path))
    reasons = {(row["split"], row["year"]): row.get("reason", "") for row in ladder}
    assert reasons["random", False] == ""
    assert "years of release are not known" in reasons["time", False]
    assert "years of release are not known" in reasons["random", True]
    assert "0 artist" in reasons["grouped", False]


def test_baselines_learn_from_training_tracks_alone(tmp_path: Path) -> None:
    tracks = planted(tmp_path)
    case = cut(tracks, tmp_path, "grouped")
    test = case.rows["test"]
    found = judge_baselines(case, tracks, resamples_of(case, tracks, test, 100))
    majority = int(np.bincount(case.goal.values[case.rows["train"]].astype(int)).argmax())
    assert found["majority"] is not None
    assert found["majority"]["accuracy"] == pytest.approx((case.goal.values[test] == majority).mean())
    numbers = cut(tracks, tmp_path, "grouped", "task.target=regression")
    found = judge_baselines(numbers, tracks, resamples_of(numbers, tracks, test, 100))
    assert found["mean"] is not None
    assert found["mean"]["r2"] <= 0  # no better than the mean of the test tracks themselves
    assert found["linear_regression"] is not None
    assert found["linear_regression"]["n"] == len(test)


def test_one_artist_cannot_be_split_by_artist(tmp_path: Path) -> None:
    tracks = planted(tmp_path)
    alone = replace(tracks, frame=tracks.frame.assign(group="only"))
    with pytest.raises(UserError, match="all tracks are by 1 artist or group"):
        cut(alone, tmp_path, "grouped")
