"""The page of task=popularity, from reports that the judging functions themselves fill."""

from __future__ import annotations

import html.parser
import io
from pathlib import Path

import matplotlib.image
import pytest
from tracks_of import Facts, make_evaluation, make_report

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports.popularity import write
from parallel_tunes.reports.popularity_words import (
    PANELS,
    beside_words,
    contrast_words,
    leak_words,
    overlap,
    place_words,
    time_words,
    verdict_words,
)
from parallel_tunes.run import Run

NASTY = "<script>alert(1)</script> $\\alpha_{ {{ 7*7 }} 日本 العربية " + "w" * 90
TARGETS = ("binary", "regression", "genre")
SECTIONS = {
    "Beside what is simpler": "baselines",
    "What the split and the year give away": "protocols",
    "Would more tracks help, and which features are used": "learning_curve",
    "How it was learnt": "solver",
}
FIGURES = {
    "baselines.png", "protocols.png", "coefficients.png", "learning_curve.png", "importances.png", "choice_of_c.png", "gap.png",
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """Tags, headings, pictures and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.tags and self.tags[-1] == "h2" and data.strip():
            self.headings.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def publish(folder: Path, report: Facts) -> tuple[Page, dict[str, bytes]]:
    """The page and the pictures beside it."""
    run = Run(report["job"], RunConfig(dir=None, name=None, max_restarts=1), folder, is_writer=True, started=0)
    run.open()
    if "solver" in report:
        for gap in (None, 3.0, 0.02, 3e-4):
            run.record({"column": 0, "seconds": 0.001, "objective": 46.0, "gap": gap})
    write(run, report)
    return Page((folder / "report.html").read_text()), {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("target", TARGETS)
def test_every_section_appears_for_every_target(target: str, tmp_path: Path) -> None:
    report = make_report(target)
    page, pictures = publish(tmp_path / "run", report)
    headings = [*SECTIONS, "To be kept in mind", "What was read", "Splits"]
    headings.append("What tells genres apart" if target == "genre" else "What makes a track popular")
    assert set(headings) <= set(page.headings)
    confused = {"binary": {"confusion_matrix.png", "calibration.png"}, "genre": {"confusion_matrix.png"}}
    assert set(pictures) == FIGURES | confused.get(target, set())
    assert len(page.images) == len(pictures)
    for name, picture in pictures.items():
        pixels = matplotlib.image.imread(io.BytesIO(picture))
        assert min(pixels.shape[:2]) > 200, name
        assert pixels[..., :3].std() > 0.02, name
    assert all(image["alt"] and (image["src"] or "").startswith("data:image/png;base64,") for image in page.images)
    test, text = report["metrics"]["test"], page.text
    assert (f"R² {test['r2']:.3f}" if target == "regression" else f"{100 * test['accuracy']:.1f} %") in text
    assert "n = 120 tracks of 40 groups" in text
    assert "percentile bootstrap over 40 groups, 40 resamples" in text
    for said in ("one group has 30 %", "tracks_a.csv line 7", "560 kept", "time, with year: the years of release are not known",
                 "no cause", "squared hinge", "chosen by cross-validation", "1980 to 2021"):  # fmt: skip
        assert said in text
    for sentence in [*verdict_words(report, test), *leak_words(report), *beside_words(report, test)]:
        assert sentence in text
    assert ("cannot be said" in text) == (target != "genre")  # there the heat map says it
    assert ("Under the time split" in text) == (target != "regression")


@pytest.mark.parametrize("target", TARGETS)
def test_an_evaluation_shows_what_it_has(target: str, tmp_path: Path) -> None:
    page, pictures = publish(tmp_path / "run", make_evaluation(target))
    assert not set(pictures) & FIGURES
    assert not {*SECTIONS, "Splits", "What makes a track popular"} & set(page.headings)
    assert ("Where it errs" in " ".join(page.headings)) == (target != "regression")
    assert "be they among those that the model learnt from or not" in page.text


def test_what_is_missing_leaves_its_section_out(tmp_path: Path) -> None:
    report = make_report("binary")
    report |= {"baselines": None, "importances": None, "learning_curve": [], "protocols": []}
    report["metrics"] |= {"valid": None, "test": None}
    report["split"] |= {"groups": None, "years": None, "warnings": []}
    report["solver"] |= {
        "candidates": [],
        "solutions": [report["solver"]["solutions"][0] | {"gap": None, "is_certified": False}],
    }
    page, pictures = publish(tmp_path / "run", report)
    assert set(pictures) == {"coefficients.png", "gap.png"}
    assert not {*SECTIONS, "To be kept in mind"} - {"How it was learnt"} & set(page.headings)
    for said in ("No test tracks", "none proven", "Not every solution is certified", "as was asked for"):
        assert said in page.text


def test_without_validation_the_training_curve_stays(tmp_path: Path) -> None:
    report = make_report("regression")
    for point in report["learning_curve"]:
        point["valid"] = None
    report |= {"importances": None}
    page, pictures = publish(tmp_path / "run", report)
    assert "learning_curve.png" in pictures
    assert "importances.png" not in pictures
    assert "training 0.700." in page.text


def test_labels_and_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    report = make_report("genre")
    classes = [f"{number}{NASTY}" for number in range(3)]
    report |= {"classes": classes, "name": NASTY}
    report["metrics"]["test"]["confusion"]["labels"] = classes
    for column, name in zip(report["coefficients"]["columns"], classes, strict=True):
        column["name"] = name
        column["coefficients"][0]["feature"] = NASTY
    report["importances"]["features"][0]["feature"] = NASTY
    report["cleaning"] |= {"files": [NASTY], "skipped": [NASTY], "columns_not_learnt_from": [NASTY]}
    report["cleaning"]["dropped"] = {NASTY: {"num": 1, "examples": [NASTY]}}
    report["split"]["warnings"] = [NASTY]
    report["protocols"][5]["reason"] = NASTY
    page, _ = publish(tmp_path / "run", report)
    assert "script" not in page.tags
    assert page.text.count(NASTY) >= 10


def test_words_tell_by_the_interval() -> None:
    assert place_words([0.6, 0.7], 0.5, "chance").startswith("Better than chance: the whole interval lies above")
    assert place_words([0.3, 0.4], 0.5, "chance").startswith("Worse than chance: the whole interval lies below")
    assert place_words([0.5, 0.7], 0.5, "chance").startswith("No better, as far as these tracks tell, than chance")
    assert place_words([8, 9], 12, "the mean", more_is_better=False).startswith(
        "Better than the mean: the whole interval lies below"
    )
    assert "cannot be said" in place_words(None, 0.5, "chance")
    assert overlap([0, 1], [1, 2])
    assert not overlap([2, 3], [0, 1])


@pytest.mark.parametrize(
    ("interval", "share_interval", "start", "doubted"),
    [
        ([0.62, 0.7], [0.55, 0.61], "Better", False),
        ([0.6, 0.7], [0.55, 0.63], "Better", True),
        ([0.55, 0.7], [0.55, 0.61], "No better", False),
        ([0.4, 0.5], [0.55, 0.61], "Worse", False),
    ],
)
def test_the_verdict_weighs_the_majority(
    interval: list[float], share_interval: list[float], start: str, doubted: bool
) -> None:
    report = make_report("binary")
    found = report["metrics"]["test"] | {
        "accuracy_ci95": interval, "majority_share": 0.58, "majority_share_ci95": share_interval, "auc": 0.6, "auc_ci95": [0.45, 0.7],
    }  # fmt: skip
    verdict, ranking = verdict_words(report, found)
    assert verdict.startswith(start)
    assert "58.0 %" in verdict
    assert ("overlaps" in verdict) == doubted
    assert ranking.startswith(
        "AUC 0.600, 95 % interval 0.450 to 0.700: no better, as far as these tracks tell, than ranking by chance"
    )


def test_the_leaks_are_measured_from_the_ladder() -> None:
    def row(split: str, year: bool, auc: float) -> Facts:
        test = {"auc": auc, "auc_ci95": [auc - 0.01, auc + 0.01], "majority_share": 0.85 if split == "time" else 0.58}
        return {"split": split, "year": year, "test": test, "threshold": 41.0 if split == "time" else 44.0}

    report = {"target": "binary", "protocols": [
        row("random", False, 0.646), row("random", True, 0.701), row("grouped", False, 0.633), row("grouped", True, 0.64),
        row("time", False, 0.551), {"split": "time", "year": True, "test": None, "reason": "none"},
    ]}  # fmt: skip
    grouped, random, artists = leak_words(report)
    assert "under the grouped split: with it the AUC, 0.640, is 0.007 higher than" in grouped
    assert grouped.endswith("the intervals overlap.")
    assert "under the random split: with it the AUC, 0.701, is 0.055 higher than" in random
    assert random.endswith("the intervals do not overlap.")
    assert "the AUC, 0.646, is 0.013 higher than that of the grouped split, 0.633; the intervals overlap." in artists
    shift = time_words(report) or ""
    assert "the threshold is 41 instead of 44" in shift
    assert "has 85.0 % of the later tracks, where it has 58.0 % under the grouped split" in shift
    lower = contrast_words(PANELS["binary"][0], {"auc": 0.5}, {"auc": 0.6}, "others")
    assert lower == "AUC, 0.500, is 0.100 lower than that of others, 0.600; the intervals are not known."
    assert contrast_words(PANELS["binary"][0], {"auc": None}, {"auc": 0.6}, "others") is None
