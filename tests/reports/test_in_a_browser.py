"""Pages as a browser lays them out. Chromium measures them in frames as wide as a phone and as a laptop."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes import corpus_of, door
from stored_runs import read

from parallel_tunes.config_run import RunConfig
from parallel_tunes.reports import popularity
from parallel_tunes.reports.scaling.study import write
from parallel_tunes.run import Run

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    # a laptop may do without; CI has it, and there the test fails without
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="no Chromium: sudo apt install chromium"),
]
WIDTHS = (400, 1280)
GAUGE = """<!doctype html><title>not measured</title>
{frames}
<script>
addEventListener("load", () => {{
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, boxes = [...page.querySelectorAll(".scroll")];
    return {{
      page: frame.dataset.page, inner: frame.contentWindow.innerWidth, scroll: page.documentElement.scrollWidth,
      boxes: boxes.filter(box => box.scrollWidth > box.clientWidth).length,
      blank: [...page.images].filter(image => !image.naturalWidth).length,
      small: Math.min(...[...page.querySelectorAll("p, td, th, figcaption, li")].map(
        text => parseFloat(frame.contentWindow.getComputedStyle(text).fontSize))),
    }};
  }}));
}});
</script>"""


def measure(folder: Path, pages: dict[str, Path]) -> dict[tuple[str, int], dict[str, float]]:
    """How wide each page is in a frame of each width, and what it shows there."""
    assert CHROMIUM, "Chromium is missing"
    frames = "".join(
        f'<iframe data-page="{name}" src="{path.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>'
        for name, path in pages.items()
        for width in WIDTHS
    )
    (folder / "gauge.html").write_text(GAUGE.format(frames=frames))
    words = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", "--dump-dom",
        (folder / "gauge.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=True)
    title = html.unescape(done.stdout.partition("<title>")[2].partition("</title>")[0])
    return {(row["page"], row["inner"]): row for row in json.loads(title)}


def open_run(folder: Path) -> Run:
    run = Run("scaling", RunConfig(dir=None, name=None, page=True, max_restarts=1), folder, is_writer=True, started=0)
    run.open()
    return run


def test_reports_fit_a_phone_and_a_laptop(tmp_path: Path, workshop: Path) -> None:
    """Wide tables and figures scroll in boxes of their own; the page does not, whatever the names are."""
    study = read("scaling")["report"]
    metrics = study["metrics"]
    metrics["cells"] += [metrics["cells"][0] | {"name": "n" * 90, "gpus": 4}]
    metrics["missing"].append("m" * 120)
    study["name"] = "s" * 100
    study["machines"][0]["links"] = "GPU0 " * 60
    write(open_run(tmp_path / "study"), study)
    comparison = read("scaling-comparison")["report"]
    comparison["metrics"] |= {"a": "a" * 90, "only_in_b": ["b" * 90]}
    write(open_run(tmp_path / "comparison"), comparison)
    popularity.write(open_run(tmp_path / "popularity"), read("popularity")["report"])
    (tmp_path / "wide.html").write_text("<!doctype html><p style='width:2000px'>wider than any")
    pages = {name: tmp_path / name / "report.html" for name in ("study", "comparison", "popularity")}
    assert door("explore", *corpus_of(workshop), "run.name=wide", cwd=workshop) == 0
    pages |= {"explore": workshop / "logs/explore/wide/report.html", "train": workshop / "logs/train/tiny/report.html"}
    found = measure(tmp_path, pages | {"wide": tmp_path / "wide.html"})
    assert len(found) == 12
    for width in WIDTHS:
        assert found["wide", width]["scroll"] > width, "the gauge does not see what is too wide"
        for name in pages:
            seen = found[name, width]
            assert seen["scroll"] <= width, f"{name} scrolls sideways at {width} px: {seen}"
            assert seen["blank"] == 0, f"{name}: {seen['blank']} pictures were not drawn"
            assert seen["small"] >= 12, f"{name} has text of {seen['small']} px"
    assert found["study", 400]["boxes"] > 5
