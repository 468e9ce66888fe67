"""The pages of a scaling study, and of two side by side, from stored reports of a real small run."""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import stored_runs
from matplotlib.colors import to_rgb
from stored_runs import Facts

from parallel_tunes.reports.scaling.costs import pareto
from parallel_tunes.reports.scaling.look import ink_on
from parallel_tunes.reports.scaling.speed import COLOURS, draw_speedup, draw_throughput
from parallel_tunes.reports.scaling.study import advise, to_lines, write
from parallel_tunes.reports.scaling.tables import three_figures, told


def report(name: str = "scaling") -> Facts:
    found: Facts = stored_runs.read(name)["report"]
    return found


def publish(found: Facts, folder: Path) -> str:
    """The text of the page."""
    write(stored_runs.reopen(stored_runs.read("scaling"), folder), found)
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", (folder / "report.html").read_text())).split())


def test_the_verdict_is_the_recommended_cell_with_its_interval_and_reason(tmp_path: Path) -> None:
    found = report()
    metrics = found["metrics"]
    cells = {cell["name"]: cell for cell in metrics["cells"]}
    chosen = cells[metrics["recommended"]]
    verdict = advise(metrics)[0]
    assert told(chosen["gpu_hours"], "rank-hours") in verdict
    assert f"n = {chosen['n']} launch" in verdict
    text = publish(found, tmp_path / "run")
    assert text.count(verdict) == 1
    assert verdict in list(to_lines(found))
    metrics |= {"recommended": "gpus2-batch8", "cheapest": "gpus1-batch8", "fastest": "gpus2-batch8"}
    assert "the fastest of those whose cost interval overlaps the cheapest's (1 rank, batch 8)" in advise(metrics)[0]
    metrics |= {"recommended": None, "cheapest": None, "fastest": None}
    assert advise(metrics)[0] == f"No cell has a result for {metrics['num_epochs']} epochs"


def test_cells_and_launches_that_failed_are_listed_with_their_reasons(tmp_path: Path) -> None:
    found = report()
    cells = found["metrics"]["cells"]
    nothing = dict.fromkeys(["samples_per_s", "speedup", "efficiency", "gpu_hours", "train_s", "split"])
    cells[0] |= nothing | {"status": "oom", "n": 0, "num_failed": 2, "reason": "3 GiB more were wanted"}
    cells[1] |= {"num_failed": 1, "reason": "no disk"}
    cells[2] |= nothing | {"status": "missing", "n": 0}
    found["metrics"]["missing"] = [f"{cells[2]['name']}: launch 1"]
    text = publish(found, tmp_path / "run")
    for words in (
        "out of memory 0 2 3 GiB more were wanted",
        "1 no disk",
        "missing 0 0 –",
        f"{cells[2]['name']}: launch 1",
    ):
        assert words in text, words
    picture = draw_throughput(found["metrics"])
    assert picture is not None
    assert "out of memory" in picture.alt
    plt.close(picture.drawing)


def test_every_number_stands_on_the_page_and_in_the_files(tmp_path: Path) -> None:
    found = report()
    text, latex = publish(found, tmp_path / "run"), (tmp_path / "run/cells.tex").read_text()
    table = pd.read_csv(io.StringIO((tmp_path / "run/cells.csv").read_text())).set_index("name")
    for cell in found["metrics"]["cells"]:
        for key in ("samples_per_s", "step_ms", "speedup", "gpu_hours"):
            if interval := cell[key]:
                low, high = three_figures(interval["low"]), three_figures(interval["high"])
                assert f"{three_figures(interval['median'])} {low} to {high}" in text
                assert f"{three_figures(interval['median'])} ({low} to {high})" in latex
                assert table.loc[cell["name"], f"{key}_high"] == interval["high"]


def test_latex_is_escaped(tmp_path: Path) -> None:
    found = report()
    found["metrics"]["cells"][0]["name"] = "50%_of & {more} $x$ \\y"
    publish(found, tmp_path / "run")
    escaped = r"50\%\_of \& \{more\} \$x\$ \textbackslash y"
    assert escaped in (tmp_path / "run/cells.tex").read_text()


def test_the_speedup_is_drawn_as_measured() -> None:
    metrics = report()["metrics"]
    picture = draw_speedup(metrics)
    assert picture is not None
    drawn = {
        round(float(value), 6)
        for line in picture.drawing.axes[0].lines
        for value in np.asarray(line.get_ydata(), float)
    }
    plt.close(picture.drawing)
    measured = {cell["speedup"]["median"] for cell in metrics["cells"] if cell["speedup"] and cell["gpus"] > 1}
    assert measured
    assert {round(value, 6) for value in measured} <= drawn


def test_the_frontier_is_of_cells_that_no_other_beats() -> None:
    assert pareto([(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.5, 2.5), (3.0, 2.0), (2.0, 2.2)]) == [1, 2, 0]


def test_numbers_can_be_read_on_any_colour() -> None:
    def luminance(colour: Any) -> float:
        parts = np.array(to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for share in np.linspace(0, 1, 101):
        one, other = sorted((luminance(COLOURS(share)), luminance(ink_on(COLOURS(share)))))
        assert (other + 0.05) / (one + 0.05) >= 4.5  # what WCAG asks of text


def test_two_studies_side_by_side(tmp_path: Path) -> None:
    found = report("scaling-comparison")
    cell = found["metrics"]["cells"][0]
    cell |= {"words": "faster", "ratio": {"median": 1.21, "low": 1.17, "high": 1.25}}
    text = publish(found, tmp_path / "run")
    assert "1.21 1.17 to 1.25" in text
    assert "faster in 1" in text
    assert (tmp_path / "run/ratio.png").exists()
    found["metrics"] |= {"cells": [], "differences": []}
    assert "no measured cell in common" in publish(found, tmp_path / "none")


def test_numbers_have_three_figures() -> None:
    values = {0.0: "0", 9.996: "10.0", 1234.5: "1234", 0.00123: "0.00123", 1.5e-7: "1.50e-07", -2.5: "-2.50"}
    assert {value: three_figures(value) for value in values} == values
