"""What both sides of a split have: found, listed, and acted on as data.leaks says; through the door."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import TINY
from numpy.typing import NDArray

from parallel_tunes import schema
from parallel_tunes.audio import fingerprints
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import splits
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks import leaks

Door = Callable[..., int]


@pytest.fixture(scope="module")
def corpus(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workshop's corpus, each track in the split that a list gives it, and five more: byte-identical and changed copies."""
    folder = tmp_path_factory.mktemp("corpus")
    shutil.copytree(workshop / "logs/synth/corpus", folder, dirs_exist_ok=True)
    with (folder / "tracks.csv").open() as file:
        tracks = sorted((row["path"], row["label"], row["artist"]) for row in csv.DictReader(file))
    # by artist: two learn, one chooses, one judges
    sides = {0: "train", 1: "train", 2: "valid", 3: "test"}
    rows = [(path, label, artist, sides[int(artist[-3:])]) for path, label, artist in tracks]
    judged, learnt = (_paths(rows, side) for side in ("test", "train"))
    planted: dict[
        str, tuple[str, str, Callable[[NDArray[np.int16]], NDArray[np.int16]]]
    ] = {  # of what, for which split
        "twin": (judged[0], "train", lambda samples: samples),
        "quiet": (judged[4], "train", lambda samples: samples // 3),
        "late": (judged[8], "valid", lambda samples: samples[11025:]),
        "again": (judged[8], "train", lambda samples: samples[11025:] // 2),
        "own": (learnt[0], "train", lambda samples: samples // 2),  # no leak
    }
    for name, (path, side, change) in planted.items():
        label = path.partition("/")[0]
        samples, rate_hz = soundfile.read(folder / path, dtype="int16")
        soundfile.write(folder / label / f"{name}.wav", change(samples), rate_hz)
        if name == "twin":
            shutil.copy(folder / path, folder / label / f"{name}.wav")
        rows.append((f"{label}/{name}.wav", label, "", side))
    with (folder / "tracks.csv").open("w") as file:
        csv.writer(file).writerows([("path", "label", "artist", "split"), *rows])
    return folder


def _paths(rows: list[tuple[str, str, str, str]], side: str) -> list[str]:
    return [path for path, *_, goes_to in rows if goes_to == side]


def words(corpus: Path, *more: str) -> list[str]:
    quick = [*TINY, "train.num_epochs=1", "split=lists", "run.page=true"]
    return ["train", "data=synthetic", f"data.root={corpus}", *quick, *more]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_copies_are_listed_dropped_or_refused(
    corpus: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words(corpus, "run.name=warned")) == 0
    said = capsys.readouterr().err
    assert "4 pairs of copies of one recording lie on both sides of the split" in said
    report = read(tmp_path / "logs/train/warned/report.json")
    found = report["leaks"]
    pairs = {(pair["kind"], Path(pair["paths"][0]).stem, *pair["splits"]): pair for pair in found["pairs"]}
    assert set(pairs) == {
        ("exact", "twin", "train", "test"),
        ("near", "quiet", "train", "test"),
        ("near", "late", "valid", "test"),
        ("near", "again", "train", "test"),
        ("near", "again", "train", "valid"),
    }
    assert abs(abs(pairs["near", "late", "valid", "test"]["shift_s"]) - 0.5) < 0.06
    assert all(found["threshold"] <= pair["score"] <= 1 for pair in found["pairs"])
    assert (found["groups"], found["num_dropped"]) == ([], {"train": 0, "valid": 0, "test": 0})
    assert [(fit["name"], fit["num_outside_train"]) for fit in found["fits"]] == [("standardise", 0), ("classes", 0)]
    assert [fit["n"] for fit in found["fits"]] == [report["split"]["tracks"]["train"]] * 2
    assert any("copies of one recording" in warning for warning in report["split"]["warnings"])
    page = (tmp_path / "logs/train/warned/report.html").read_text()
    assert all(f"/{name}.wav" in page for name in ("twin", "quiet", "late", "again"))

    assert run(*words(corpus, "data.leaks=fail", "run.name=refused")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.leaks=fail: 1 pair of byte-identical files and 4 pairs of copies of one recording" in line
    failed = read(tmp_path / "logs/train/refused/report.json")
    assert failed["status"] == "failed"
    assert failed["leaks"]["pairs"] == found["pairs"]
    assert not (tmp_path / "logs/train/refused/metrics.jsonl").exists()

    assert run(*words(corpus, "data.leaks=drop", "run.name=refused")) == 0  # the same folder: nothing was done in it
    dropped = read(tmp_path / "logs/train/refused/report.json")
    assert dropped["leaks"]["num_dropped"] == {"train": 3, "valid": 1, "test": 0}
    before, after = report["split"]["tracks"], dropped["split"]["tracks"]
    assert after == {"train": before["train"] - 3, "valid": before["valid"] - 1, "test": before["test"]}
    assert dropped["split"]["num_dropped"] == 4
    assert not any("both sides" in warning for warning in dropped["split"]["warnings"])
    assert not any(twins["leaks"] for twins in dropped["split"]["duplicates"])
    assert "3 train, 1 valid" in (tmp_path / "logs/train/refused/report.html").read_text()

    model = f"model={tmp_path}/logs/train/refused/model"
    data = ["data=synthetic", f"data.root={corpus}", "evaluate.split=valid"]
    assert run("evaluate", model, *data, "run.name=e") == 0
    judged = read(tmp_path / "logs/evaluate/e/report.json")
    assert (judged["metrics"]["valid"]["n"], judged["num_unknown"]) == (after["valid"], 0)


def look(
    shards: ShardSet, tmp_path: Path, kind: str, action: str = "warn", **changed: Any
) -> tuple[splits.Split, splits.Split, dict[str, Any]]:
    """A split as it was drawn, as it is trained on, and what was found."""
    cfg = replace(schema.build(SplitConfig, schema.defaults("split", "auto")), kind=kind, **changed)
    run = Run("train", {}, tmp_path / "run", is_writer=True, started=0.0)
    run.open()
    drawn = splits.draw(shards.index, cfg)
    return drawn, *leaks.guard(shards, drawn, action, Mesh(), run)


def test_what_was_found_is_kept_and_what_is_damaged_is_found_again(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(workshop / "logs/preprocess/corpus", tmp_path / "shards")
    for stale in folder.glob("near-*"):
        stale.unlink()
    shards = ShardSet(folder)
    monkeypatch.setattr(fingerprints, "THRESHOLD", 0.5)  # tracks of one artist are copies then
    _, _, first = look(shards, tmp_path, "stratified")
    assert first["pairs"]
    (kept,) = folder.glob("near-*.json")
    whole = kept.read_text()
    for text in ("{}", '{"pairs": [[0, 9999, 1, 0, 0]]}', '{"pairs": [[0, 1, "x", 0, 0]]}'):
        kept.write_text(text)
        assert look(shards, tmp_path, "stratified")[2] == first
    assert kept.read_text() == whole
    with monkeypatch.context() as changed:
        changed.setattr(fingerprints, "find_pairs", lambda *_, **__: pytest.fail("looked for again"))
        assert look(shards, tmp_path, "stratified")[2] == first
    look(shards, tmp_path, "stratified", seed=1)
    assert len(list(folder.glob("near-*.json"))) == 2


def test_shards_of_waveforms_are_looked_at_too(
    workshop: Path, run: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ["data=synthetic", f"data.root={workshop}/logs/synth/corpus"]
    assert run("preprocess", *data, "features=waveform", "run.name=w") == 0
    monkeypatch.setattr(fingerprints, "THRESHOLD", 0.5)
    folders = (workshop / "logs/preprocess/corpus", tmp_path / "logs/preprocess/w")
    drawn, heard = (look(ShardSet(folder), tmp_path, "stratified")[2]["pairs"] for folder in folders)
    assert [pair["paths"] for pair in drawn] == [pair["paths"] for pair in heard] != []
    assert [pair["score"] for pair in drawn] == pytest.approx([pair["score"] for pair in heard], abs=0.01)


@pytest.mark.parametrize("kind", ["stratified", "random"])
def test_artists_on_both_sides(kind: str, workshop: Path, tmp_path: Path) -> None:
    shards = ShardSet(workshop / "logs/preprocess/corpus")
    artist = shards.index["group"].to_numpy(object)
    drawn, same, found = look(shards, tmp_path, kind)
    assert same is drawn
    sides = {name: set(artist[rows]) for name, rows in drawn.rows.items()}
    shared = (sides["train"] & sides["valid"]) | (sides["train"] & sides["test"]) | (sides["valid"] & sides["test"])
    assert {group["group"] for group in found["groups"]} == shared != set()
    assert f"{len(shared)} groups (artists) lie on both sides of the split" in " ".join(drawn.warnings)
    with pytest.raises(leaks.LeakError, match=rf"^data.leaks=fail: {len(shared)} groups"):
        look(shards, tmp_path, kind, "fail")
    drawn, left, found = look(shards, tmp_path, kind, "drop")
    assert np.array_equal(left.rows["test"], drawn.rows["test"])
    kept = {name: set(artist[rows]) for name, rows in left.rows.items()}
    assert not (kept["train"] & (kept["valid"] | kept["test"])) | (kept["valid"] & kept["test"])
    assert kept["valid"] == sides["valid"] - sides["test"]
    assert kept["train"] == sides["train"] - sides["test"] - kept["valid"]
    assert left.num_dropped == sum(found["num_dropped"].values()) == 80 - sum(map(len, left.rows.values()))


def test_a_split_by_artist_has_none_on_both_sides(workshop: Path, tmp_path: Path) -> None:
    found = read(workshop / "logs/train/tiny/report.json")["leaks"]
    assert found["groups"] == found["pairs"] == found["suspects"] == []
    shards = ShardSet(workshop / "logs/preprocess/corpus")
    assert look(shards, tmp_path, "grouped", "fail")[1].kind == "grouped"


def test_nothing_left_to_learn_from_is_said(workshop: Path, tmp_path: Path) -> None:
    shards = ShardSet(workshop / "logs/preprocess/corpus")
    with pytest.raises(UserError, match="drop leaves no track to learn from; split=grouped"):
        look(shards, tmp_path, "stratified", "drop", train=0.125, valid=0.0, test=0.875)


def test_what_was_fitted_outside_train_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run("train", {}, tmp_path / "run", is_writer=Mesh().is_first, started=0.0)
    run.open()
    train, fits = np.arange(10), {"standardise": np.arange(8, 13), "classes": np.arange(10)}
    found: dict[str, Any] = {"action": "warn", "pairs": [], "groups": []}
    leaks.check_fits(found, fits, train, run)
    assert "standardise was fitted on 3 tracks outside train" in capsys.readouterr().err
    assert [(fit["n"], fit["num_outside_train"]) for fit in found["fits"]] == [(5, 3), (10, 0)]
    with pytest.raises(leaks.LeakError, match="3 tracks outside train") as refused:
        leaks.check_fits(found | {"action": "fail"}, fits, train, run)
    assert refused.value.facts["leaks"]["fits"] == found["fits"]
