from __future__ import annotations

import html.parser
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports.benchmark import draw_bars, figures, render, to_lines, write
from parallel_tunes.run import Run

NASTY = "<script>alert(1)</script> {{ 7*7 }} $\\alpha_{"


class Page(html.parser.HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def cell(name: str, group: str, kind: str, median: float) -> dict[str, Any]:
    spread = {"low": 0.9 * median, "median": median, "high": 1.2 * median}
    words = {"name": name, "what": name, "group": group, "kind": kind, "unit": "ms a clip"}
    return {**words, **spread, "n": 20, "repetitions": 7}


def make_report(note: str = "a note") -> dict[str, Any]:
    return {
        "job": "benchmark", "suite": "preprocess", "name": "r", "status": "complete", "seconds": 3.2, "git": "abc",
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 8, "load_before": 0.1, "versions": {"numpy": "2"}},
        "method": ["How it is done."], "notes": [note],
        "metrics": {
            "groups": {"one": "One core", "pipeline": "The whole"}, "taken_by_others": 0.01,
            "ratios": {"ours_vs_peer": 8.0}, "intervals": {"ours_vs_peer": [7.5, 8.25]}, "interval_level": 0.984,
            "compared": {"ours_vs_peer": "ours against a peer"}, "agreement_db": {"wav22": 0.03},
            "floor": {
                "num_frames": 1292, "flops": 7.3e7, "bytes_read": 1323044, "bytes_written": 330752, "ms_a_clip": 0.8,
                "kernel_gflop_per_s": 40.0, "core_gflop_per_s": 100.0, "copy_gb_per_s": 12.0, "share_reached": 0.31,
            },
            "costs": [{
                "files": "WAV", "num_tracks": 1000, "core_hours": 0.5, "num_bytes": 330_000_000, "num_shards": 20,
                "command": "sbatch slurm/preprocess.sbatch",
            }],
            "cells": [
                cell("peer", "one", "peer", 16.0), cell("ours", "one", "ours", 2.0), cell(note, "one", "part", 0.4),
                cell("bytes", "one", "floor", 0.02), cell("ours, 2 engines", "pipeline", "ours", 1.25),
            ],
        },
    }  # fmt: skip


def test_page_and_figures(tmp_path: Path) -> None:
    run = Run("benchmark", RunConfig(dir=None, name=None, max_restarts=1), tmp_path, is_writer=True, started=0)
    run.open()
    write(run, make_report())
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    for words in ("8.00 ×", "95 % interval 7.50 to 8.25", "n = 7 repetitions", "31 %", "0.0300 dB", "How it is done."):
        assert words in page.text, words
    for name in ("one.png", "pipeline.png"):
        pixels = matplotlib.image.imread(tmp_path / name)
        assert min(pixels.shape[:2]) > 100
        assert pixels[..., :3].std() > 0.02


def test_words_are_text_whatever_they_hold(tmp_path: Path) -> None:
    page = Page(render(make_report(NASTY), {"one": b"", "pipeline": b""}))
    assert "script" not in page.tags
    assert NASTY in page.text
    run = Run("benchmark", RunConfig(dir=None, name=None, max_restarts=1), tmp_path, is_writer=True, started=0)
    run.open()
    write(run, make_report(NASTY))


def test_suites_need_no_floor_and_no_ratios() -> None:
    report = make_report()
    for name in ("floor", "agreement_db", "costs"):
        del report["metrics"][name]
    report["metrics"] |= {"ratios": {}, "intervals": {}, "compared": {}}
    assert "One core" in Page(render(report, {"one": b"", "pipeline": b""})).text
    assert list(to_lines(report))


def test_a_suite_of_samples() -> None:
    report = make_report()
    report["metrics"]["cells"] = [cell("ours", "training", "ours", 4.0) | {"unit": "ms a sample"}]
    report["metrics"] |= {
        "groups": {"training": "Training"},
        "roofline": {
            "gflop_a_sample": 1.378,
            "groups": {"training": {"gflop_per_s": {"bfloat16": 345.6}, "share_reached": {"ours": 0.25}}},
        },
    }
    page = Page(render(report, {"training": b""})).text
    for words in (
        "ms a sample",
        "samples/s",
        "n: samples in one",
        "1.38 GFLOP",
        "346 GFLOP/s in bfloat16",
        "ours 25 %",
    ):
        assert words in page, words
    text = "\n".join(to_lines(report))
    assert "ms a sample" in text
    assert "samples/s" in text
    plot = draw_bars(report["metrics"]["cells"], "training").axes[0]
    assert plot.get_xlabel() == "samples/s (longer is better)"


def test_the_table_as_text() -> None:
    text = "\n".join(to_lines(make_report()))
    assert "95 % interval" in text
    assert "ours_vs_peer" in text
    row = next(line for line in text.splitlines() if line.startswith("ours, 2 engines"))
    assert row.split()[3:] == ["1.25", "1.12", "to", "1.50", "800", "20"]
    few = make_report()
    few["metrics"]["interval_level"] = 0.5
    assert "range (50 %)" in "\n".join(to_lines(few))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (0.5, "0.500"), (9.996, "10.00"), (12.34, "12.3"), (1234.5, "1234")],
)
def test_three_figures(value: float, text: str) -> None:
    assert figures(value) == text
