"""The page of a benchmark, from stored reports of real small runs."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
import stored_runs
from stored_runs import Facts

from parallel_tunes.reports.benchmark import draw_bars, groups_of, to_lines, write


def report(name: str = "benchmark") -> Facts:
    found: Facts = stored_runs.read(name)["report"]
    return found


def publish(found: Facts, folder: Path) -> str:
    """The text of the page."""
    write(stored_runs.reopen(stored_runs.read("benchmark"), folder), found)
    return join(html.unescape(re.sub("<[^>]*>", " ", (folder / "report.html").read_text())))


def join(text: str) -> str:
    """With single spaces for whatever spaces there are."""
    return " ".join(text.split())


@pytest.mark.parametrize("suite", ["", "-svm", "-tables", "-serve"])
def test_every_ratio_and_every_row_is_on_the_page_with_its_n(suite: str, tmp_path: Path) -> None:
    found = report(f"benchmark{suite}")
    metrics, text = found["metrics"], publish(found, tmp_path / "run")
    lines = "\n".join(to_lines(found))
    for name, what in metrics["compared"].items():
        assert name in text
        assert join(what) in text
        assert name in lines
    for cell in metrics["cells"]:
        assert cell["what"] in text
        assert f" {cell['n']} " in text
        assert cell["what"] in lines
    assert f"n = {metrics['cells'][0]['repetitions']} repetitions" in text
    assert {path.stem for path in (tmp_path / "run").glob("*.png")} == set(groups_of(found))


def test_few_repetitions_are_called_a_range() -> None:
    found = report()
    assert "95 % interval" in "\n".join(to_lines(found))
    found["metrics"]["interval_level"] = 0.5
    assert "range (50 %)" in "\n".join(to_lines(found))


def test_a_row_that_was_cut_is_shown_with_its_reason(tmp_path: Path) -> None:
    found = report("benchmark-svm")
    found["metrics"]["svm"]["cut"] = [{"row": "slow", "size": "500x3", "reason": "cut: 9 s where 1 are allowed"}]
    assert "slow 500x3: cut: 9 s where 1 are allowed" in publish(found, tmp_path / "run")


def test_bars_of_a_group_say_their_unit() -> None:
    cells = groups_of(report())
    assert draw_bars(cells["pipeline"], "pipeline").axes[0].get_xlabel().startswith("clips/s (longer is better)")
    assert draw_bars(cells["one_core_mono"], "one_core_mono").axes[0].get_xlabel().startswith("ms a clip")
