"""The page of task=popularity, from a stored report."""

from __future__ import annotations

import re
from pathlib import Path

import stored_runs
from stored_runs import Facts, drawn

from parallel_tunes.reports import popularity
from parallel_tunes.reports.popularity import list_protocols, tabulate, write

FIGURES = {
    "baselines.png", "protocols.png", "coefficients.png", "confusion_matrix.png", "calibration.png", "choice_of_c.png",
}  # fmt: skip


def report() -> Facts:
    found: Facts = stored_runs.read("popularity")["report"]
    return found


def publish(found: Facts, folder: Path) -> tuple[str, set[str]]:
    """The text of the page, and the names of its figures."""
    run = stored_runs.reopen(stored_runs.read("popularity"), folder)
    write(run, found)
    page = (folder / "report.html").read_text()
    return " ".join(re.sub("<[^>]*>", " ", page).split()), {path.name for path in folder.glob("*.png")}


def test_the_verdict_has_figure_interval_n_and_baseline(tmp_path: Path) -> None:
    text, figures = publish(report(), tmp_path / "run")
    test = report()["metrics"]["test"]
    low, high = (f"{100 * end:.1f} %" for end in test["accuracy_ci95"])
    verdict = (
        f"{100 * test['accuracy']:.1f} % accuracy on test tracks; 95 % interval {low} to {high}; "
        f"n = {test['n']} tracks of {test['num_groups']} groups of artists; baseline, the commonest class: "
        f"{100 * test['majority_share']:.1f} %."
    )
    assert verdict in text
    assert figures == FIGURES


def test_figures_are_drawn_with_the_numbers_of_the_report() -> None:
    found = report()
    pictures = popularity.draw(found, "test", found["metrics"]["test"])
    judged = [found["metrics"]["test"], *filter(None, found["baselines"].values())]
    aucs = {round(scores["auc"], 6) for scores in judged if scores.get("auc") is not None}
    assert len(aucs) > 3
    assert aucs <= drawn(pictures["baselines.png"])
    rows = found["coefficients"]["columns"][0]["coefficients"]
    ends = {round(value, 6) for row in rows for value in (row["value"], *row["ci95"])}
    assert ends <= drawn(pictures["coefficients.png"])
    assert {round(bin_["predicted"], 6) for bin_ in found["metrics"]["test"]["reliability"]} <= drawn(
        pictures["calibration.png"]
    )


def test_tables_hold_every_protocol_and_every_coefficient_with_its_interval() -> None:
    found = report()
    tables = tabulate(found, found["metrics"]["test"])
    for line, step, row in zip(tables["protocols"].rows, list_protocols(found), found["protocols"], strict=True):
        assert line[0].text == step.name
        test = row["test"]
        assert line[2] == (f"{test['auc']:.3f}", "{:.3f} to {:.3f}".format(*test["auc_ci95"]))
        assert f"{test['n']}" in [value.text for value in line]
    rows = found["coefficients"]["columns"][0]["coefficients"]
    assert [line[0].text for line in tables["coefficients"].rows] == [row["feature"] for row in rows]
    first = tables["coefficients"].rows[0][1]
    assert first == ("−0.294", "−0.508 to 0.075")


def test_what_is_missing_leaves_its_section_out(tmp_path: Path) -> None:
    found = report() | {"baselines": None, "protocols": []}
    found["metrics"] |= {"valid": None, "test": None}
    found["split"] |= {"groups": None, "years": None}
    found["solver"]["candidates"] = []
    found["solver"]["solutions"][0] |= {"gap": None, "is_certified": False}
    text, figures = publish(found, tmp_path / "run")
    assert figures == {"coefficients.png"}
    assert "No test tracks." in text
    assert "none proven" in text
    assert "Baselines" not in text


def test_labels_and_names_are_text_whatever_they_hold(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script> $\\alpha_{ {{ 7*7 }} 日本 " + "w" * 90
    found = report() | {"name": nasty}
    found["classes"][1] = found["metrics"]["test"]["confusion"]["labels"][1] = nasty
    found["coefficients"]["columns"][0]["coefficients"][0]["feature"] = nasty
    found["cleaning"] |= {"skipped": [nasty], "dropped": {nasty: {"num": 1, "examples": [nasty]}}}
    found["split"]["warnings"] = [nasty]
    found["protocols"][5] = {"split": "time", "year": True, "test": None, "reason": nasty}
    publish(found, tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(1)") >= 8
