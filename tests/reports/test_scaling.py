from __future__ import annotations

import csv
import html.parser
import io
import re
import xml.etree.ElementTree
from pathlib import Path

import matplotlib.image
import pytest
from metrics_of import NASTY, Facts, make_comparison, make_rows, make_study, texts

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports.scaling.comparison import draw_ratios, write_comparison
from parallel_tunes.reports.scaling.formats import to_csv
from parallel_tunes.reports.scaling.speed import draw_speedup
from parallel_tunes.reports.scaling.study import FIGURES, write
from parallel_tunes.reports.scaling.tables import three_figures
from parallel_tunes.run import Run

FIGURE_NAMES = set(FIGURES) - {"time_to_target"}


class Page(html.parser.HTMLParser):
    """Tags, addresses, descriptions of pictures and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def open_run(folder: Path) -> Run:
    run = Run("scaling", RunConfig(dir=None, name=None, max_restarts=1), folder, is_writer=True, started=0)
    run.open()
    return run


def write_study(folder: Path, report: Facts) -> Page:
    write(open_run(folder), report, make_rows(report))
    return Page((folder / "report.html").read_text())


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strong")
    write_study(folder, make_study())
    return folder


def test_a_study_is_written_whole(strong: Path) -> None:
    for name in FIGURE_NAMES:
        pixels = matplotlib.image.imread(strong / f"{name}.png")
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.02, f"{name} is blank"
        assert xml.etree.ElementTree.parse(strong / f"{name}.svg").getroot().tag.endswith("svg")
    others = {"cells.md", "cells.tex", "cells.csv", "extrap.json", "report.html", "config.yaml", "owner.json"}
    figures = {f"{name}.{ending}" for name in FIGURE_NAMES for ending in ("png", "svg")}
    assert {path.name for path in strong.iterdir()} == figures | others


def test_the_page_loads_nothing_and_says_what_its_pictures_show(strong: Path) -> None:
    text = (strong / "report.html").read_text()
    page = Page(text)
    assert len(page.sources) == len(page.alts) == len(FIGURE_NAMES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.sources)
    assert not re.findall(r"https?://|@import|url\(|<script|<link", text)
    heat = next(alt for alt in page.alts if alt.startswith("Throughput"))
    assert "1 GPU, batch 256: out of memory" in heat
    assert "4 GPUs, batch 256: missing" in heat
    assert "2 GPUs, batch 64: 1179 samples/s" in heat


def test_the_page_says_what_was_found(strong: Path) -> None:
    text = " ".join(Page((strong / "report.html").read_text()).text.split())
    for words in (
        "2.68 × speed-up over one GPU: 4 GPUs, batch 64; 95 % interval 2.54 to 2.81, n = 5 launches",
        "For the lowest cost take 1 GPU", "The clocks were not locked.", "gpus4-batch256-bf16: launch 2",
        "CUDA out of memory: 3.1 GiB more were wanted", "an engine was lost", "each doubling brings less.",
        "refused: needs 3 numbers of GPUs", "0.160 0.112 to 0.208", "Each launch is a process of its own. Cells take turns.",
        "n1, n2", "2 × NVIDIA H200, 1980 MHz", "NV18", "torch 2.13.0", "revision 1ad8ebd0c0de",
    ):  # fmt: skip
        assert words in text, words
    assert "quick look" not in text
    assert "ranks stand for GPUs" not in text


def test_every_number_stands_in_every_table(strong: Path) -> None:
    report = make_study()
    metrics = report["metrics"]
    page = Page((strong / "report.html").read_text()).text
    others = [(strong / name).read_text() for name in ("cells.md", "cells.tex")]
    keys = ("samples_per_s", "step_ms", "speedup", "comm_ms", "speedup_over_ddp", "epoch_s", "gpu_hours")
    found = [cell[key] for cell in metrics["cells"] for key in keys if cell[key]]
    found += [cell[key] for cell in metrics["preprocess"]["cells"] for key in ("tracks_per_s", "seconds") if cell[key]]
    assert len(found) > 30
    for interval in found:
        for text in (page, *others):
            assert three_figures(interval["median"]) in text
            assert f"{three_figures(interval['low'])} to {three_figures(interval['high'])}" in text
    rows = list(csv.DictReader(io.StringIO((strong / "cells.csv").read_text())))
    assert len(rows) == len(metrics["cells"]) + len(metrics["preprocess"]["cells"])
    for row, cell in zip(rows, metrics["cells"], strict=False):
        assert (row["kind"], row["name"], row["status"]) == ("train", cell["name"], cell["status"])
        if cell["status"] == "ok":
            assert float(row["samples_per_s"]) == cell["samples_per_s"]["median"]
            assert float(row["gpu_hours_high"]) == cell["gpu_hours"]["high"]
            assert float(row["split_compute"]) == cell["split"]["compute"]
            assert float(row["peak_memory_mib"]) == max(cell["peak_memory_mib"])


def test_words_are_text_whatever_they_hold(tmp_path: Path) -> None:
    report = make_study()
    metrics = report["metrics"]
    report["name"] = report["notes"][0] = report["method"][0] = report["machines"][0]["host"] = NASTY
    metrics["cells"][0]["name"] = metrics["cells"][4]["reason"] = metrics["missing"][0] = metrics["advice"][0] = NASTY
    metrics["preprocess"]["cells"][0]["name"] = metrics["series"][0]["words"] = metrics["fits"][0]["words"] = NASTY
    page = write_study(tmp_path, report)
    plain = write_study(tmp_path, make_study() | {"name": "日本語"})  # and a script that the font may lack
    # one machine differs from the other by nothing but its name, so the tags are the same
    assert page.tags == plain.tags
    assert page.text.count(NASTY) >= 12


def test_the_same_study_gives_the_same_bytes(tmp_path: Path, strong: Path) -> None:
    write_study(tmp_path, make_study())
    for path in strong.iterdir():
        if path.name != "owner.json":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_figures_of_nothing_are_left_out(tmp_path: Path) -> None:
    report = make_study(numbers=(2,), batches=(64,))
    metrics = report["metrics"]
    metrics |= {"preprocess": None, "noise_scale": [], "fits": [], "series": [], "missing": [], "advice": []}
    report["machines"] = []
    page = write_study(tmp_path / "one", report)
    assert {path.stem for path in (tmp_path / "one").glob("*.svg")} == {"peak_memory", "epoch_split"}
    for heading in ("What is missing", "Preprocessing", "How it scales", "What to do", "Gradient noise scale"):
        assert heading not in page.text


def test_a_study_of_preprocessing_alone(tmp_path: Path) -> None:
    report = make_study()
    report["metrics"] |= {"cells": [], "noise_scale": [], "fits": [], "series": []}
    page = write_study(tmp_path, report)
    assert [path.name for path in tmp_path.glob("*.svg")] == ["preprocessing.svg"]
    assert "25.7 ×" in page.text
    assert "speed-up over serial librosa: 4 engines" in page.text
    assert not page.text.count("Speed ")
    rows = list(csv.DictReader(io.StringIO(to_csv(report["metrics"]))))
    assert [row["engines"] for row in rows] == ["1", "2", "4"] * 2


def test_ranks_on_cpus_and_a_quick_look(tmp_path: Path) -> None:
    report = make_study("strong", (1, 2), (8, 16), "rank")
    report["metrics"] |= {"quick": True, "threads": 2, "advice": [], "fits": []}
    report["machines"] = [report["machines"][0] | {"gpus": [], "links": None}]
    page = write_study(tmp_path, report)
    assert "quick look" in page.text
    assert "Measured on CPUs: ranks stand for GPUs, each with 2 threads." in page.text
    assert "rank-hours" in page.text
    assert "2 ranks, batch 8" in page.text
    assert "Links" not in page.text
    for draw in FIGURES.values():
        if picture := draw(report["metrics"]):
            assert not [words for words in (*texts(picture), picture.caption, picture.alt) if "GPU" in words]


def test_time_to_a_target(tmp_path: Path) -> None:
    report = make_study("target")
    report["metrics"]["cells"][2] |= {"num_reached": 0, "time_to_target_s": None, "gpu_hours_to_target": None}
    page = write_study(tmp_path, report)
    assert (tmp_path / "time_to_target.svg").exists()
    assert "to a validation accuracy of 0.8 with 4 GPUs, batch 64" in page.text
    assert "4 of 5" in page.text
    said = texts(FIGURES["time_to_target"](report["metrics"]))
    assert said.count("4 of 5") == 4
    assert "0 of 5: none reached it" in said


def test_a_weak_study_tells_the_batch_per_gpu(tmp_path: Path) -> None:
    page = write_study(tmp_path, make_study("weak"))
    assert "weak scaling: the batch per GPU stays the same" in page.text
    assert "4 GPUs, batch 64 per GPU" in page.text
    assert any("Gustafson, descriptive" in words for words in texts(draw_speedup(make_study("weak")["metrics"])))


def test_two_studies_side_by_side(tmp_path: Path) -> None:
    report = make_comparison()
    report["metrics"]["differences"].append(NASTY)
    write_comparison(open_run(tmp_path), report)
    page = Page((tmp_path / "report.html").read_text())
    assert [source[:26] for source in page.sources] == ["data:image/svg+xml;base64,"]
    text = " ".join(page.text.split())
    for words in (
        "h200-july", "h200-august", "faster in 1", "slower in 1", "1 cannot be told apart", "torch 2.12 -> 2.13", NASTY,
        "Only in A gpus8-batch64-bf16", "1.21 1.17 to 1.25", "0.900 0.873 to 0.927", "2828 2743 to 2913",
    ):  # fmt: skip
        assert words in text, words
    assert "Only in B" not in text
    assert matplotlib.image.imread(tmp_path / "ratio.png")[..., :3].std() > 0.02
    picture = draw_ratios(report["metrics"])
    assert "gpus2-batch64-bf16: 0.900 times, slower" in picture.alt
    assert {"B is faster", "B is slower", "they cannot be told apart", "1.21 ×"} <= set(texts(picture))


def test_two_studies_with_nothing_in_common(tmp_path: Path) -> None:
    report = make_comparison()
    report["metrics"] |= {"cells": [], "differences": []}
    write_comparison(open_run(tmp_path), report)
    page = Page((tmp_path / "report.html").read_text())
    assert page.sources == []
    assert "no measured cell in common" in page.text
