from __future__ import annotations

import json
import re

import pytest
from metrics_of import NASTY, make_rows, make_study, measured_cell

from parallel_tunes.reports.scaling.formats import to_extrap, to_latex, to_markdown
from parallel_tunes.reports.scaling.tables import all_tables, three_figures


def test_markdown_and_latex_are_escaped() -> None:
    report = make_study()
    report["metrics"]["cells"][0]["name"] = NASTY
    tables = all_tables(report["metrics"])
    markdown = to_markdown(tables)
    for table in markdown.split("## ")[1:]:
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<b>" not in markdown
    latex = to_latex(tables)
    assert r"\textless{}b\textgreater{}\&" in latex
    assert r"100\%\_\$\textbackslash{}x\{\#" in latex


@pytest.mark.parametrize("mode", ["strong", "weak", "target"])
def test_latex_is_sound(mode: str) -> None:
    report = make_study(mode)
    report["metrics"]["cells"][0]["name"] = NASTY
    body = to_latex(all_tables(report["metrics"])).partition("\n")[2]  # the first line is a comment
    bare = re.sub(r"\\[\\&%$#_{}]", lambda found: "\n" if found[0] == r"\\" else "", body)
    assert not re.search(r"[%#~^\"<>]|(?<!\d)_", bare)
    assert bare.replace(r"$\times$", "").count("$") == 0
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    for kind in ("table", "tabular"):
        assert body.count(rf"\begin{{{kind}}}") == body.count(rf"\end{{{kind}}}") == len(all_tables(report["metrics"]))
    for kinds, table in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", body, re.DOTALL):
        rows = [row for row in table.splitlines() if row.endswith(r"\\")]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(kinds)}


def test_extrap() -> None:
    rows = make_rows(make_study())
    study = json.loads(to_extrap(rows)["extrap.json"])
    assert study["parameters"] == ["gpus", "batch"]
    points = {tuple(row["point"]): row["values"] for row in study["measurements"]["step"]["time"]}
    assert set(points) == {(1, 64), (2, 64), (4, 64), (2, 256)}  # neither out of memory nor missing ones
    for point, values in points.items():
        mine = [row for row in rows if row["kind"] == "train" and (row["gpus"], row["batch"]) == point]
        assert values == [step for row in mine if row["ddp"] for step in row["step_s"]]
        assert len(values) == 6


def test_extrap_has_what_varies_and_a_file_for_each_precision() -> None:
    report = make_study(batches=(64,))
    report["metrics"]["cells"] += [measured_cell(2, batch, "strong", precision="fp32") for batch in (64, 128)]
    files = {name: json.loads(text) for name, text in to_extrap(make_rows(report)).items()}
    assert files["extrap.json"]["parameters"] == ["gpus"]
    assert [row["point"] for row in files["extrap.json"]["measurements"]["step"]["time"]] == [[1], [2], [4]]
    assert files["extrap-fp32.json"]["parameters"] == ["batch"]
    assert to_extrap([]) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (9.996, "10.0"),
        (0.9996, "1.00"),
        (1234.5, "1234"),
        (0.00123, "0.00123"),
        (1.5e-7, "1.50e-07"),
        (-2.5, "-2.50"),
    ],
)
def test_three_figures(value: float, text: str) -> None:
    assert three_figures(value) == text
