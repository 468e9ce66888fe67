"""What holds for every page of a stored report: it renders, is self-contained, escapes text from outside and names its n."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import stored_runs

from parallel_tunes.reports import benchmark, popularity, relisten
from parallel_tunes.reports.scaling import study
from parallel_tunes.run import Run

Facts = dict[str, Any]
WRITERS: dict[str, Callable[[Run, Facts], None]] = {
    "benchmark": benchmark.write,
    "popularity": popularity.write,
    "relisten": relisten.write,
    "scaling": study.write,
}
HOSTILE = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Tags that were left open, pictures without a description, and addresses elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.scripts += tag == "script"
        if tag == "img" and not found.get("alt"):
            self.wrong.append("an image without alt")
        if tag == "svg" and not (found.get("aria-label") or found.get("role")):
            self.wrong.append("a drawing without a label")
        for name in ("src", "href"):
            if re.match(r"(https?:)?//", found.get(name) or "") and tag != "a":
                self.wrong.append(f"{tag} from {found[name]}")
        if tag not in ("img", "br", "meta", "link", "hr", "input", "col", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes another")


@pytest.mark.parametrize("name", sorted(path.stem for path in stored_runs.STORED.glob("*.json")))
def test_a_page_is_whole_escaped_described_and_names_its_n(name: str, tmp_path: Path) -> None:
    stored = stored_runs.read(name)
    stored["report"]["device"] = HOSTILE
    stored["report"]["name"] = HOSTILE
    run = stored_runs.reopen(stored, tmp_path / "run")
    WRITERS[name.partition("-")[0]](run, stored["report"])
    text = (tmp_path / "run/report.html").read_text()
    page = Page(text)
    assert not page.wrong
    assert not page.open
    assert page.scripts == 0
    assert "&lt;script&gt;" in text
    assert ">None<" not in text
    assert "nan" not in re.findall(r">\s*(nan|inf|None)\s*<", text)
    assert re.search(r"\bn\s*=\s*\d|<th[^>]*>\s*(n|launches|repetitions)\b", text)
    for picture in (tmp_path / "run").glob("*.png"):
        assert picture.stat().st_size > 1000
