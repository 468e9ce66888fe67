from __future__ import annotations

import csv
import html.parser
import json
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
from fakes import TINY, tone, write_audio

NASTY = "<script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_whole_and_needs_no_network(workshop: Path) -> None:
    folder = workshop / "logs/train/tiny"
    page = Page((folder / "report.html").read_text())
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    text = " ".join(page.texts)
    test = json.loads((folder / "report.json").read_text())["metrics"]["test"]
    assert f"{100 * test['accuracy']:.1f} %" in text
    assert "n = 20 tracks" in text
    assert "95 % interval" in text
    assert all(genre in text for genre in test["per_class"])


@pytest.mark.parametrize(
    "name", ["loss_curves.png", "accuracy_curves.png", "confusion_matrix.png", "per_class.png", "mel_spectrograms.png"]
)
def test_figures_are_pictures_with_something_on_them(name: str, workshop: Path) -> None:
    pixels = matplotlib.image.imread(workshop / "logs/train/tiny" / name)
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.02


def test_every_answer_is_in_the_table(workshop: Path) -> None:
    folder = workshop / "logs/train/tiny"
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    test = json.loads((folder / "report.json").read_text())["metrics"]["test"]
    assert len(rows) == test["n"]
    assert sum(row["label"] == row["predicted"] for row in rows) == round(test["accuracy"] * test["n"])


def test_names_and_labels_are_text_whatever_they_hold(run: Callable[..., int], tmp_path: Path) -> None:
    labels = [NASTY.replace("/", "∕"), "$\\alpha_{", "日本 {{ 7*7 }}"]
    for number, label in enumerate(labels):
        for track in range(8):
            write_audio(
                tmp_path / "music" / label / f"<b>{track}</b>.wav".replace("/", "∕"),
                tone(200 + 700 * number + track, 1.2),
            )
    assert run("train", f"data.root={tmp_path}/music", *TINY, "train.num_epochs=1", "run.name=a", "run.page=true") == 0
    page = Page((tmp_path / "logs/train/a/report.html").read_text())
    assert "script" not in page.tags
    assert "b" not in [tag for tag in page.tags if tag == "b"][1:]
    text = " ".join(page.texts)
    assert all(label in text for label in labels)
