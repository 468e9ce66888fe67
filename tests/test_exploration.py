"""The job explore through the door: of audio, of tables, and what is said where there is nothing to explore."""

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
from fakes import REAL, needs_real
from PIL import Image

from parallel_tunes.reports.scaling.look import LOOK

Door = Callable[..., int]
NASTY = "<script>alert(1)</script> $\\alpha_{ {{ 7*7 }} 日本 " + "w" * 60
EVERY = {"class_balance.png", "correlations.png", "scree.png", "pca.png", "pca_labels.png", "outliers.png"}
OF_AUDIO = {"groups.png", "durations.png", "level.png", "tempo.png", "spectrograms.png", "spectra.png", "loadings.png"}


@pytest.fixture(autouse=True)
def _coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of fewer pixels, which take less time."""
    monkeypatch.setitem(LOOK, "figure.dpi", 50)


class Page(HTMLParser):
    """Tags, pictures and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(folder: Path) -> tuple[dict[str, Any], Page]:
    """The report and the page of a run, whose pictures are all there."""
    page = Page(folder / "report.html")
    names = {path.name for path in folder.glob("*.png")}
    assert len(page.images) == len(names)
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in page.images)
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 100, name
            assert len(picture.convert("L").reduce(3).getcolors() or []) > 20, name  # no blank
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert report["status"] == "complete"
    return report, page


def write_table(path: Path, num: int = 90) -> Path:
    """Three labels, one of them awkward, six columns of numbers, a constant one and faults; an outlier in row 7."""
    rng = np.random.default_rng(0)
    labels = np.array(["plain", "b&b", NASTY], object)[np.arange(num) % 3]
    table = pd.DataFrame(rng.standard_normal((num, 6)), columns=[*"abcd", "tempo", NASTY])
    for column, label in zip("abc", ["plain", "b&b", NASTY], strict=True):
        table.loc[labels == label, column] += 4
    table = table.astype(str)
    table.loc[7, "d"], table.loc[8, "d"], table.loc[9, "d"] = "30", "", "nothing"
    table["same"], table["label"], table["filename"] = 1, labels, [f"{NASTY}{row}" for row in range(num)]
    table.to_csv(path, index=False)
    return path


def test_a_corpus(workshop: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(workshop / "logs/preprocess/corpus", tmp_path / "shards")
    words = ("explore", "data.shards=shards", "run.name=e", "explore.num_shown=3", "explore.folds=3")
    assert run(*words) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "logs/explore/e"
    report, page = read(folder)
    assert {path.name for path in folder.glob("*.png")} == EVERY | OF_AUDIO
    metrics = report["metrics"]
    assert (metrics["num_tracks"], metrics["num_labels"], metrics["num_groups"]) == (80, 10, 40)
    assert set(metrics["per_label"].values()) == {8}
    assert metrics["duration_s"]["sum"] == pytest.approx(160, abs=0.1)
    assert sum(metrics["pca"]["explained_variance"]) == pytest.approx(1, abs=1e-4)
    assert report["front_end"] == json.loads((tmp_path / "shards/manifest.json").read_text())["fingerprint"]
    assert report["left_out"] == {}
    assert len(metrics["outliers"]["tracks"]) == len(metrics["label_noise"]["tracks"]) == 3
    assert all(row["suggested"] != row["label"] for row in metrics["label_noise"]["tracks"])
    for name in ("outliers.csv", "label_noise.csv"):
        assert set(pd.read_csv(folder / name)["path"]) == set(
            pd.read_parquet(tmp_path / "shards/index.parquet")["path"]
        )
    for words_of_it in ("80 tracks", "no two files are byte-identical", "near 120 in steps of 5.6", "n = 40 groups"):
        assert words_of_it in page.text
    assert "80 tracks, 10 labels, 40 groups" in said
    assert f"page: {Path('logs/explore/e/report.html')}" in said
    written = (folder / "report.html").stat().st_mtime_ns
    assert run(*words) == 0
    again = capsys.readouterr().out
    assert "complete already" in again
    assert "80 tracks, 10 labels, 40 groups" in again
    assert (folder / "report.html").stat().st_mtime_ns == written


def test_shards_are_made_first_and_one_label_will_do(
    workshop: Path, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = workshop / "logs/synth/corpus"
    label = next(path for path in sorted(corpus.iterdir()) if path.is_dir())
    shutil.copytree(label, tmp_path / "music" / label.name)
    shutil.copy(next(iter(sorted(label.glob("*.wav")))), tmp_path / "music" / label.name / "copy.wav")
    (tmp_path / "music" / label.name / "broken.wav").write_text("this is no audio")
    assert run("explore", "data.root=music", "run.name=one", "parallel.engines=0") == 0
    assert "making them under logs/preprocess" in capsys.readouterr().out
    report, page = read(tmp_path / "logs/explore/one")
    assert report["metrics"]["num_labels"] == 1
    assert report["left_out"]["label_noise"] == "one label: there is no other to compare with"
    assert "There is one label" in page.text
    assert "broken.wav: no audio" in page.text
    (twins,) = report["metrics"]["duplicates"]
    assert (twins["how"], twins["num_sets"]) == ("byte-identical files", 1)
    assert f"{label.name}/copy.wav" in twins["sets"][0]["paths"]
    assert not (tmp_path / "logs/explore/one/pca_labels.png").exists()


def test_a_table_with_awkward_names(run: Door, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv")
    assert run("explore", "data=spotify", "data.root=t.csv", "run.name=t", "explore.embedding=tsne") == 0
    folder = tmp_path / "logs/explore/t"
    report, page = read(folder)
    assert {path.name for path in folder.glob("*.png")} == EVERY | {"tempo.png", "tsne.png"}
    assert "script" not in page.tags
    assert "<script>alert(1)</script> $\\alpha_{ {{ 7*7 }} 日本" in page.text
    for said in (
        "Durations are not known",
        "Loudness is not known",
        "constant: 1 throughout",
        "2 cells of 1 column missing or no number",
    ):
        assert said in page.text
    assert report["metrics"]["outliers"]["tracks"][0]["path"] == f"{NASTY}7"
    assert report["metrics"]["outliers"]["tracks"][0]["unusual"].startswith("d +")
    assert report["metrics"]["label_noise"]["accuracy"] > 0.9
    assert report["metrics"]["tempo_bpm"]["n"] == 90


def test_a_table_without_labels(run: Door, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv")
    assert run("explore", "data=spotify", "data.root=t.csv", "run.name=t", "explore.label=none") == 0
    report, page = read(tmp_path / "logs/explore/t")
    assert not {path.name for path in (tmp_path / "logs/explore/t").glob("*.png")} & {
        "class_balance.png",
        "pca_labels.png",
    }
    assert not (tmp_path / "logs/explore/t/label_noise.csv").exists()
    assert "No labels are known" in page.text
    assert report["metrics"]["per_label"] == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), r"data\.root: say where the tracks are"),
        (("data.root=nowhere",), "no such folder"),
        (("data.root=t.csv",), r"no column 'path'.*a table of numbers is explored with data=spotify"),
        (("data=spotify", "data.root=words.csv"), "no column of numbers"),
        (("data=spotify", "data.root=t.csv", "explore.label=lable"), r"no such column \(did you mean label\?\)"),
        (("data=spotify", "data.root=t.csv", "explore.embedding=umap"), "expected one of none, tsne"),
        (("data=spotify", "data.root=t.csv", "features.num_mels=64"), r"unknown key features\.num_mels"),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], says: str, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "t.csv", 30)
    (tmp_path / "words.csv").write_text("a,b\nx,y\n")
    assert run("explore", *words, "run.name=x") == 2
    assert re.search(says, capsys.readouterr().err.strip().splitlines()[-1])
    assert not (tmp_path / "logs/explore/x/report.html").exists()


@needs_real
def test_real_tracks(run: Door, tmp_path: Path) -> None:
    words = (
        "data=spotify",
        f"data.root={REAL / 'spotify/tracks_g.csv'}",
        "run.name=g",
        "explore.max_tracks=400",
        "explore.folds=2",
    )
    assert run("explore", *words) == 0
    report, page = read(tmp_path / "logs/explore/g")
    assert report["metrics"]["num_tracks"] > 6000
    assert report["metrics"]["pca"]["n"] == report["metrics"]["outliers"]["n"] == 400
    assert "a random sample of 400 tracks (explore.max_tracks)" in page.text
    assert "energy" in {row["feature"] for row in report["metrics"]["pca"]["loadings"][0]}
