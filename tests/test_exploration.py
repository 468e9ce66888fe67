"""The job explore from the command line: of audio, of tables, and of bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from parallel_tunes.reports.scaling.look import LOOK

Door = Callable[..., int]
NASTY = "<script>alert(1)</script> $\\alpha_{ {{ 7*7 }} 日本 " + "w" * 60
EVERY = {"class_balance.png", "scree.png", "pca.png", "pca_labels.png"}
OF_AUDIO = {"groups.png", "durations.png", "level.png", "tempo.png", "spectrograms.png", "spectra.png", "loadings.png"}
OF_LABELS = {"class_balance.png", "pca_labels.png", "spectra.png"}


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of fewer pixels, which take less time."""
    monkeypatch.setitem(LOOK, "figure.dpi", 50)


class Page(HTMLParser):
    """Tags, pictures and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(folder: Path) -> tuple[dict[str, Any], set[str]]:
    """The report of a run and the names of its figures, none of them blank."""
    names = {path.name for path in folder.glob("*.png")}
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 80, name
            assert len(picture.convert("L").reduce(3).getcolors() or []) > 20, name
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert report["status"] == "complete"
    return report, names


def write_table(path: Path, num: int = 90) -> None:
    """Three labels, one of them awkward, six columns of numbers, a constant one, a missing cell and one that is no number."""
    rng = np.random.default_rng(0)
    labels = np.array(["plain", "b&b", NASTY], object)[np.arange(num) % 3]
    table = pd.DataFrame(rng.standard_normal((num, 6)), columns=[*"abcd", "tempo", NASTY]).astype(str)
    table.loc[8, "d"], table.loc[9, "d"] = "", "nothing"
    table["same"], table["label"], table["filename"] = 1, labels, [f"{NASTY}{row}" for row in range(num)]
    table.to_csv(path, index=False)


def test_a_folder_of_audio(furnished: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards are made first; copies and a file that is no audio are listed."""
    folders = sorted(path for path in (furnished / "logs/synth/corpus").iterdir() if path.is_dir())[:2]
    for folder in folders:
        shutil.copytree(folder, tmp_path / "music" / folder.name)
    shutil.copy(min(folders[0].glob("*.wav")), tmp_path / "music" / folders[1].name / "copy.wav")
    (tmp_path / "music" / folders[0].name / "broken.wav").write_text("this is no audio")
    by_artist = "data.group_regex=/([a-z]+(?:-[0-9]+)?)"
    words = ("explore", "data.root=music", by_artist, "run.name=e", "parallel.engines=0")
    assert run(*words) == 0
    first = capsys.readouterr().out
    assert "making them under logs/preprocess" in first
    folder = tmp_path / "logs/explore/e"
    report, figures = read(folder)
    assert figures == EVERY | OF_AUDIO
    metrics = report["metrics"]
    assert metrics["per_label"] == {folders[1].name: 9, folders[0].name: 8}
    assert metrics["num_groups"] == 9  # 4 artists of each label, and the copy
    assert metrics["duration_s"] == pytest.approx({"n": 17, "min": 2, "median": 2, "max": 2, "sum": 34}, abs=0.1)
    assert sum(metrics["pca"]["explained_variance"]) == pytest.approx(1, abs=1e-4)
    assert report["left_out"] == {}
    (copies,) = metrics["duplicates"]
    assert (copies["num_sets"], copies["num_labels_differ"]) == (1, 1)
    assert set(pd.read_csv(folder / "duplicates.csv")["path"]) == set(copies["sets"][0]["paths"])
    assert f"{folders[1].name}/copy.wav" in copies["sets"][0]["paths"]
    (failure,) = report["read"]["failed"]
    assert failure["path"] == f"{folders[0].name}/broken.wav"
    assert f"{failure['path']}: {failure['reason']}" in (folder / "report.html").read_text()
    assert report["verdict"] in first
    written = (folder / "report.html").stat().st_mtime_ns
    assert run(*words) == 0
    again = capsys.readouterr().out
    assert "complete already" in again
    assert report["verdict"] in again
    assert (folder / "report.html").stat().st_mtime_ns == written
    (shards,) = (tmp_path / "logs/preprocess").iterdir()
    assert run("explore", f"data.shards={shards}", "explore.label=none", "run.name=none") == 0
    report, figures = read(tmp_path / "logs/explore/none")
    assert figures == (EVERY | OF_AUDIO) - OF_LABELS
    assert (report["metrics"]["per_label"], report["metrics"]["num_unlabelled"]) == ({}, 17)
    assert report["left_out"].keys() == {"class balance"}
    assert report["front_end"] == json.loads((shards / "manifest.json").read_text())["fingerprint"]


def test_a_table_with_awkward_names(run: Door, tmp_path: Path) -> None:
    """Names are escaped on the page, every figure of which has a text; faults of the columns are counted."""
    write_table(tmp_path / "t.csv")
    assert run("explore", "data=spotify", "data.root=t.csv", "run.name=t") == 0
    folder = tmp_path / "logs/explore/t"
    report, figures = read(folder)
    assert figures == EVERY | {"tempo.png"}
    assert report["metrics"]["tempo_bpm"]["n"] == 90
    assert report["left_out"].keys() == {"durations", "loudness"}
    column = next(row for row in report["read"]["columns"] if row["name"] == "d")
    assert (column["num_missing"], column["num_bad"]) == (1, 1)
    page = Page((folder / "report.html").read_text())
    assert "script" not in page.tags
    assert any(NASTY in text for text in page.words)
    assert len(page.images) == len(figures)
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in page.images)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data.root=t.csv",), r"no column 'path'.*a table of numbers is explored with data=spotify"),
        (("data=spotify", "data.root=t.csv", "explore.label=lable"), r"no such column \(did you mean label\?\)"),
        (("data=spotify", "data.root=t.csv", "features.num_mels=64"), r"unknown key features\.num_mels"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], says: str, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "t.csv", 30)
    assert run("explore", *words, "run.name=x") == 2
    assert re.search(says, capsys.readouterr().err.strip().splitlines()[-1])
    assert not (tmp_path / "logs/explore/x/report.html").exists()
