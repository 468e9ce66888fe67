from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from made import make_failure, make_row, make_study
from test_grid import config

from parallel_tunes.run import Run
from parallel_tunes.scaling.comparing import compare
from parallel_tunes.scaling.results import Row, load, save
from parallel_tunes.schema import UserError


def write(folder: Path, rows: list[Row]) -> Path:
    cfg = config()
    run = Run("scaling", cfg, folder, is_writer=True, started=0.0)
    run.open()
    save(run, rows)
    return folder


def test_rows_survive_the_file(tmp_path: Path) -> None:
    """Lists stay lists, and what one launch lacks is None."""
    good = make_row(2, 0.1 + 1e-13, 0)
    found = load(
        write(tmp_path / "a", [good, make_failure(make_row(1, 0.2, 0), "oom", "no memory", peak_memory_mib=[7.5])])
    )
    assert {name: found[0][name] for name in good} == good
    assert found[1]["peak_memory_mib"] == [7.5]
    assert found[1]["step_s"] is None


def test_ratios_of_two_studies(tmp_path: Path) -> None:
    before = write(tmp_path / "before", make_study())
    faster = [
        row | {"samples_per_s": [1.5 * rate for rate in row["samples_per_s"]], "git": "def"} for row in make_study()
    ]
    gone = [row for row in faster if row["gpus"] < 4] + [make_row(8, 0.1, 0, git="def")]
    found = compare((before, write(tmp_path / "after", gone)), seed=0)
    assert (found["a"], found["b"]) == ("before", "after")
    assert [cell["name"] for cell in found["cells"]] == ["gpus1-batch64", "gpus2-batch64"]
    assert all(cell["ratio"]["median"] == pytest.approx(1.5) and cell["words"] == "faster" for cell in found["cells"])
    assert found["only_in_a"] == ["gpus4-batch64"]
    assert found["only_in_b"] == ["gpus8-batch64"]
    assert found["differences"] == ["revision: abc → def"]
    back = compare((tmp_path / "after", before), seed=0)
    assert {cell["words"] for cell in back["cells"]} == {"slower"}
    same = compare((before, before), seed=0)
    assert {cell["words"] for cell in same["cells"]} == {"cannot be told apart"}
    assert same["a"] != same["b"]


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    study = write(tmp_path / "study", make_study())
    with pytest.raises(UserError, match=r"expected the folders of two studies, compare=\[A,B\]"):
        compare((study,), seed=0)
    with pytest.raises(UserError, match="no results of a scaling study"):
        compare((study, tmp_path), seed=0)
    other = write(tmp_path / "other", [make_row(16, 0.1, 0)])
    with pytest.raises(UserError, match="no measured cell in common"):
        compare((study, other), seed=0)
    (tmp_path / "odd").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "odd/results.parquet")
    with pytest.raises(UserError, match="no results of a scaling study"):
        compare((study, tmp_path / "odd"), seed=0)
