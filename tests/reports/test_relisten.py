"""The pages of task=relisten, from a stored report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import stored_runs
import yaml
from stored_runs import Facts, drawn

from parallel_tunes.reports import relisten
from parallel_tunes.reports.relisten import write, write_ladder
from parallel_tunes.reports.relisten_figures import lower_rates
from parallel_tunes.reports.relisten_sweep import label_runs, read_sweep, swept_keys

FIGURES = {
    "scores.png", "slices.png", "calibration.png", "confusion_matrix.png", "loss_curves.png", "score_curves.png",
}  # fmt: skip


def publish(stored: Facts, folder: Path) -> tuple[str, set[str]]:
    """The text of the page, and the names of its figures."""
    write(stored_runs.reopen(stored, folder), stored["report"])
    return text_of(folder), {path.name for path in folder.glob("*.png")}


def text_of(folder: Path) -> str:
    return " ".join(re.sub("<[^>]*>", " ", (folder / "report.html").read_text()).split())


def cell(judged: Facts, key: str) -> str:
    """A score and its interval, as tables have them."""
    return f"{judged[key]:.3f} {judged[f'{key}_ci95'][0]:.3f} to {judged[f'{key}_ci95'][1]:.3f}"


def test_the_page_has_the_numbers_of_the_report(tmp_path: Path) -> None:
    stored = stored_runs.read("relisten")
    text, figures = publish(stored, tmp_path / "run")
    found, test = stored["report"], stored["report"]["metrics"]["test"]
    assert figures == FIGURES
    low, high = test["auc_ci95"]
    rate = found["baselines"]["the user's earlier rate"]["auc"]
    verdict = (
        f"AUC {test['auc']:.3f} on test rows, mean of 2 seeds; 95 % interval {low:.3f} to {high:.3f}; "
        f"n = {test['n']} rows of {test['num_groups']} users; baseline, the user&#39;s earlier rate: {rate:.3f}."
    )
    assert verdict.replace("&#39;", "'") in text
    for judged in (test, test["ensemble"], *filter(None, test["slices"].values())):
        assert cell(judged, "auc") in text
    for seed in ("0", "1"):
        assert f"{seed} {test['auc_seeds'][seed]:.3f} {test['accuracy_seeds'][seed]:.3f}" in text
    aucs = {judged["auc"] for judged in filter(None, test["slices"].values())}
    assert aucs <= drawn(relisten.draw_slices(test, "test"))


def test_rows_that_are_all_alike_have_no_auc(tmp_path: Path) -> None:
    stored = stored_runs.read("relisten")
    test = stored["report"]["metrics"]["test"]
    none = {"auc": None, "auc_ci95": None}
    for judged in (
        test,
        test["ensemble"],
        *filter(None, test["slices"].values()),
        *stored["report"]["baselines"].values(),
    ):
        judged |= none
    text, figures = publish(stored, tmp_path / "run")
    assert figures == FIGURES
    assert "No AUC on test rows" in text
    assert "all of them have the same answer" in text


def test_a_sweep_is_of_one_command_and_shown_on_its_pages(tmp_path: Path) -> None:
    """Three runs of a sweep, one of which failed; beside them folders that are none."""
    rates = (0.003, 1e30, 0.0003)
    for at, rate in enumerate(rates):
        stored = stored_runs.read("relisten")
        stored["config"]["train"]["lr"], stored["config"]["run"]["name"] = rate, "lr"
        stored["report"]["metrics"]["test"]["auc"] += 0.01 * at
        if at == 1:
            stored["report"] |= {"status": "failed", "reason": "ptunes: the training diverged", "metrics": {}}
        run = stored_runs.reopen(stored, tmp_path / f"lr-{at}")
        (run.folder / "config.yaml").write_text(yaml.safe_dump(stored["config"]))
        (run.folder / "report.json").write_text(json.dumps(stored["report"]))
    (tmp_path / "lr-3").mkdir()
    (tmp_path / "lr-4").mkdir()
    (tmp_path / "lr-4/config.yaml").write_text("- no config")
    runs = read_sweep(run, stored["report"])
    assert [each.name for each in runs] == ["lr-0", "lr-1", "lr-2"]
    assert (swept_keys(runs), label_runs(runs)) == (["train.lr"], ["lr 0.003", "lr 1e+30", "lr 0.0003"])
    write(run, stored["report"])
    assert (run.folder / "sweep.png").stat().st_size > 10_000
    text = text_of(run.folder)
    for at, shown in ((0, "0.003"), (2, "0.0003")):
        test = json.loads((tmp_path / f"lr-{at}/report.json").read_text())["metrics"]["test"]
        assert f"lr-{at} {shown} {cell(test, 'auc')} {cell(test, 'accuracy')}" in text
    assert "the training diverged" in text
    (tmp_path / "lr-1/report.json").write_text('{"status": ')  # as it is being written
    assert [each.name for each in read_sweep(run, stored["report"])] == ["lr-0", "lr-2"]
    run.config["run"]["name"] = "lr-2"  # a name that ends in a number is no sweep
    assert read_sweep(run, stored["report"]) == []


def test_the_learning_rate_is_lowered_where_the_plateau_rule_says() -> None:
    stored = stored_runs.read("relisten")
    losses = (0.7, 0.6, 0.61, 0.62, 0.5, 0.5, 0.5)
    rows = [stored["rows"][0] | {"epoch": epoch, "valid": {"loss": loss}} for epoch, loss in enumerate(losses)]
    train = stored["config"]["train"] | {"plateau_patience": 1, "plateau_factor": 0.5}
    assert lower_rates(rows, train) == [(4, 0.5)]
    assert lower_rates([*rows, rows[-1]], train) == [(4, 0.5), (7, pytest.approx(0.25))]
    assert lower_rates(rows, train | {"schedule": "cosine"}) == []


def test_the_ladder_has_a_row_and_a_dot_for_each_protocol(tmp_path: Path) -> None:
    stored = stored_runs.read("relisten")
    test, control = stored["report"]["metrics"]["test"], stored["report"]["baselines"]["the user's earlier rate"]
    kinds = [("random", "static"), ("time", "static"), ("time", "causal"), ("time", "transductive")]
    rows = [
        {"name": f"rung {at}", "split": split, "features": features, "test": test | {"auc": 0.7 + 0.01 * at},
         "control": control if at else None, "seconds": 3.2}
        for at, (split, features) in enumerate(kinds)
    ]  # fmt: skip
    run = stored_runs.reopen(stored, tmp_path / "ladder")
    write_ladder(run, stored["report"] | {"job": "benchmark", "metrics": {"rows": rows, "ratios": {}}})
    text = text_of(run.folder)
    assert "AUC 0.720 under split=time features=causal; 95 % interval" in text
    assert f"rung 1 0.710 {test['auc_ci95'][0]:.3f} to {test['auc_ci95'][1]:.3f} {cell(control, 'auc')}" in text
    assert {0.7, 0.71, 0.72, 0.73, control["auc"]} <= drawn(relisten.draw_ladder(rows)["ladder.png"])
