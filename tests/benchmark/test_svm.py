from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import door

from parallel_tunes.benchmark.svm import parse_size
from parallel_tunes.benchmark.svm_worker import draw_problem
from parallel_tunes.schema import UserError


@pytest.mark.slow
def test_back_ends_side_by_side_and_one_that_is_cut(tmp_path: Path) -> None:
    words = (
        "suite=svm", "benchmark.sizes=[500x3,160000x57]", "benchmark.rows=[numba,numpy_gd]", "benchmark.repetitions=1",
        "benchmark.cut_s=1", "run.name=tiny",
    )  # fmt: skip
    assert door("benchmark", *words, cwd=tmp_path) == 0
    run = tmp_path / "logs/benchmark/tiny"
    report = json.loads((run / "report.json").read_text())
    metrics = report["metrics"]
    assert {cell["name"] for cell in metrics["cells"]} == {
        "numpy_gd_500x3", "numba_500x3", "numba_160000x57",
    }  # fmt: skip
    assert list(metrics["ratios"]) == ["svm_numba_vs_numpy_gd_500x3"]
    assert [(found["row"], found["size"]) for found in metrics["svm"]["cut"]] == [
        ("NumPy, accelerated gradient descent", "160000x57")
    ]
    assert "cut" in metrics["svm"]["cut"][0]["reason"]
    assert all(found["gap"] <= 1e-3 for found in metrics["svm"]["solved"])
    page = (run / "report.html").read_text()
    assert "cut: " in page
    assert not [path for path in run.iterdir() if path.is_dir()]


def test_problems_are_the_same_for_every_process_and_not_in_random_order() -> None:
    features, targets = draw_problem(5000, 7, 3)
    again, _ = draw_problem(5000, 7, 3)
    assert np.array_equal(features, again)
    assert 0.4 < targets.mean() < 0.6
    assert features.std(0) == pytest.approx(np.ones(7), rel=1e-3)
    # rows of one artist stand together and are alike
    assert np.corrcoef(features[:-1, 0], features[1:, 0])[0, 1] > 0.2


def test_sizes_are_rows_times_features() -> None:
    assert parse_size("1000x57").name == "1000x57"
    for text in ("", "10", "1000x0", "10x5", "1000x9999", "1e5x57", "-5x5"):
        with pytest.raises(UserError, match="expected rows and features"):
            parse_size(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["benchmark.rows=[nubma]"], "benchmark.rows=nubma: expected some of numpy_gd, numpy, numba"),
        (["benchmark.sizes=[big]"], "benchmark.sizes=big: expected rows and features"),
        (["data.root=music"], "suite=svm draws its own problems"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    words: list[str], says: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("benchmark", "suite=svm", *words) == 2
    assert says in capsys.readouterr().err
