from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports import ladder
from parallel_tunes.run import Run

Facts = dict[str, Any]


def make_row(rung: str, name: str, accuracy: float, n: int, **more: Any) -> Facts:
    interval = [round(accuracy - 0.05, 3), round(accuracy + 0.05, 3)]
    row = {
        "rung": rung, "name": name, "split": "random", "unit": "tracks", "judged_by": "test", "n": n, "accuracy": accuracy,
        "accuracy_ci95": interval, "macro_f1": accuracy - 0.01, "majority_share": 0.1, "num_groups": None,
        "ci95_method": "percentile bootstrap", "num_train": 7 * n, "num_epochs": 5, "seconds": 12.3,
    }  # fmt: skip
    return row | more


@pytest.fixture
def rows() -> list[Facts]:
    return [
        make_row("segments", "segments at random", 0.95, 12_000, unit="segments"),
        make_row("tracks", "tracks at random", 0.8, 400),
        make_row("unique", "tracks at random, duplicates removed", 0.78, 390),
        make_row("lists", "GTZAN's fault-filtered lists", 0.6, 197, judged_by="valid"),
    ]


def test_the_table_has_n_intervals_and_what_was_selected_on(rows: list[Facts]) -> None:
    table = ladder.tabulate(rows)
    assert all(len(line) == len(table.heads) for line in table.rows)
    cells = [dict(zip(table.heads, line, strict=True)) for line in table.rows]
    assert cells[0]["n"].text == "12\u202f000 segments"
    assert cells[1]["accuracy"] == ("0.800", "0.750 to 0.850")
    assert [cell["judged by"].text for cell in cells] == ["test"] * 3 + ["validation"]
    assert cells[3]["judged by"].spread == "selected on"
    seeded = [row | {"seeds": {"0": 0.7, "1": 0.8}, "seeds_deviation": 0.05, "num_groups": 9} for row in rows]
    table = ladder.tabulate(seeded)
    line = dict(zip(table.heads, table.rows[1], strict=True))
    assert line["seeds, deviation"] == ("2", "± 0.050")
    assert line["n"].spread == "of 9 groups"


def test_the_page_holds_verdict_figure_table_and_what_is_left_out(rows: list[Facts], tmp_path: Path) -> None:
    run = Run(
        "benchmark",
        RunConfig(dir=None, name=None, page=True, max_restarts=1),
        tmp_path / "l",
        is_writer=True,
        started=0,
    )
    run.config = {"model": {"name": "residual_cnn"}}
    run.open()
    missing = [{"name": "artists apart", "reason": "the artists are not known <i>"}]
    report = run.make_report("complete", {"suite": "splits", "metrics": {"rows": rows, "ratios": {}}, "front_end": "f"})
    ladder.write(run, report | {"left_out": missing, "segment_s": 3.0})
    page = (run.folder / "report.html").read_text()
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "accuracy 0.600 under the cleanest protocol of this data, GTZAN" in text
    assert (
        "segments at random: 0.950; 95 % interval 0.900 to 1.000; n = 12 000 segments" in text
    )  # split took the narrow space
    assert "artists apart: the artists are not known &lt;i&gt;" in page
    assert "of the validation split, which also chose the epoch" in text
    assert page.count("<img") == 1
    pixels = matplotlib.image.imread(run.folder / "ladder.png")
    assert min(pixels.shape[:2]) > 200
    assert pixels[..., :3].std() > 0.02
