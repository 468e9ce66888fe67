from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from fake_tracks import read, spoilt, table

from parallel_tunes.data.track_features import AUDIO
from parallel_tunes.schema import UserError

NEXT_YEAR = datetime.datetime.now(datetime.UTC).year + 1
IMPOSSIBLE = {
    "energy": (["-0.01", "1.01"], ["0", "1"]),
    "valence": (["1.5"], ["1e-3"]),
    "tempo": (["0", "0.0", "-3", "401"], ["400", "0.5"]),
    "loudness": (["-80.5", "20.1"], ["-80", "20", "+1.5", " 3 "]),
    "duration_ms": (["0", "-5", "86400001"], ["1", "86400000"]),
    "popularity": (["-1", "101"], ["0", "100"]),
    "time_signature": (["-1", "8"], ["0", "7"]),
    "key": (["-2", "12"], ["-1", "11"]),
    "mode": (["2", "0.5"], ["0", "1"]),
    "release_date": (
        ["1859", str(NEXT_YEAR + 1), "", "unknown", "1999-13", "1999-01-32", "99", "19999", "1999-1", "01/02/1999"],
        ["1860", str(NEXT_YEAR), "1999-12", "1999-12-31", "1999-12-31T00:00:00Z"],
    ),
}


def test_what_cannot_be_true(tmp_path: Path) -> None:
    for column in IMPOSSIBLE:
        wrong, right = IMPOSSIBLE[column]
        for value in wrong:
            report = read(spoilt(tmp_path, 5, column, value), features=("all",)).report
            assert report["num_kept"] == 7, value
            (reason,) = report["dropped"]
            assert reason.startswith(column)
            assert report["dropped"][reason] == {"num": 1, "examples": [f"t.csv line 7: {column}={value}"]}
        for value in right:
            assert read(spoilt(tmp_path, 5, column, value), features=("all",)).report["num_kept"] == 8, value


def test_columns_of_other_names_may_hold_anything(tmp_path: Path) -> None:
    table().rename(columns={"tempo": "pulse"}).assign(pulse=["0", *"1234567"]).to_csv(tmp_path / "t.csv")
    tracks = read(tmp_path / "t.csv", features=("pulse", "energy"))
    assert tracks.features[:, 0].tolist() == list(range(8))


def test_all_columns_that_are_numbers(tmp_path: Path) -> None:
    made = table(24).assign(
        plays=[str(row) for row in range(24)], mood=["1", *["calm"] * 23], late=[*["1"] * 23, ""],
        explicit=["True", "False"] * 12, key=[str(row % 3 - 1) for row in range(24)], genre="rock",
    )  # fmt: skip
    made.to_csv(tmp_path / "t.csv")  # with a nameless column of row numbers
    tracks = read(tmp_path / "t.csv", features=("all",), year=True)
    assert set(tracks.names) == {
        *AUDIO, "explicit", "key_C", "key_C#", "mode", "time_signature", "plays", "year"
    }  # fmt: skip
    assert tracks.names[-1] == "year"
    assert tracks.features[:, -1].tolist() == tracks.frame["year"].tolist()
    assert tracks.report["columns_not_learnt_from"] == ["mood", "late"]
    assert list(tracks.frame["label"]) == ["rock"] * 24
    assert tracks.features[:4, tracks.names.index("explicit")].tolist() == [1, 0, 1, 0]
    # no key, C, C sharp
    keys = tracks.features[:3, [tracks.names.index(name) for name in ("key_C", "key_C#")]]
    assert keys.tolist() == [[0, 0], [1, 0], [0, 1]]
    # what Spotify measures is no text for one bad cell
    made.loc[3, "tempo"] = "fast"
    made.to_csv(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"t\.csv line 5: column tempo holds 'fast'"):
        read(tmp_path / "t.csv", features=("all",))


def test_bad_features(tmp_path: Path) -> None:
    cases: list[tuple[tuple[str, ...], str]] = [
        (
            ("tempo", "energyy"),
            r"task.features: no column 'energyy' in .*t\.csv \(did you mean energy\?\); it has id, ",
        ),
        (("year",), "task.features: year is learnt from with task.year=true"),
        (("popularity",), "popularity is what is learnt"),
        (("name",), r"t\.csv line 2: column name holds 'Song 0, \"live\"', which is no number"),
    ]
    for features, says in cases:
        table().to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(UserError, match=says):
            read(tmp_path / "t.csv", features=features)
