from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from fakes import TINY, door

from parallel_tunes import verification
from parallel_tunes.schema import UserError
from parallel_tunes.train.disturbance import Disturbance, parse

DATA = ["data=synthetic", "data.root=logs/synth/corpus", "data.shards=logs/preprocess/corpus"]


def test_trees_are_compared_leaf_by_leaf() -> None:
    one = {"a": [1, 2.0, "x"], "b": torch.tensor([3.0, 4.0]), "c": None}
    assert list(verification.differ(one, one)) == [0.0] * 5
    other = {"a": [1, 2.5, "y"], "b": torch.tensor([3.0, 4.5]), "c": None}
    assert list(verification.differ(one, other)) == pytest.approx([0.0, 0.25, math.inf, 0.1, 0.0])
    assert max(verification.differ({"a": 1}, {"b": 1})) == math.inf
    assert max(verification.differ([1.0], [1.0, 2.0])) == math.inf
    # a tensor that differs in one bit is told, however small that is
    assert next(verification.differ(torch.tensor([1e30, 1.0]), torch.tensor([1e30, 1.0 + 2e-7]))) > 0


@pytest.mark.parametrize("text", ["step:0", "step:x", "during:sleep", "signal:KILL", "nothing", "step"])
def test_unknown_disturbances_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="expected step:N"):
        parse(text)


def test_disturbances_strike_the_rank_they_are_for() -> None:
    assert Disturbance("step:7", is_first=True, is_last=False).step is None
    assert Disturbance("step:7", is_first=False, is_last=True).step == 7
    assert not Disturbance("during:checkpoint", is_first=False, is_last=True).in_checkpoint
    assert Disturbance("during:checkpoint", is_first=True, is_last=False).in_checkpoint
    Disturbance("", is_first=True, is_last=True).after_step(1)


@pytest.mark.slow
def test_a_disturbed_training_is_proven_equal(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kill_at = "verify.kill_at=[step:6,signal:USR1]"
    assert door("verify", *DATA, *TINY, "train.num_epochs=4", kill_at, "run.name=equal", cwd=workshop) == 0
    said = capsys.readouterr().out
    assert "equal bit for bit, after 2 restarts" in said
    report = json.loads((workshop / "logs/verify/equal/report.json").read_text())
    assert report["metrics"]["equal"] is True
    assert set(report["metrics"]["compared"]) == {"weights", "optimizer", "samples", "losses", "metrics"}
    assert all(kind["num_compared"] > 0 for kind in report["metrics"]["compared"].values())
    restarts = report["trials"]["disturbed"]["restarts"]
    assert restarts["lost_steps"] in (
        1,
        6,
    )  # killed after step 6; the checkpoint of step 5 may still have been on its way
    # one weight, one sample, one loss: each difference is found
    folder = workshop / "logs/verify/equal/disturbed"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[1]["samples"], rows[2]["train"]["loss"] = "0" * 16, rows[2]["train"]["loss"] * (1 + 1e-12)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (workshop / "logs/verify/equal/report.json").unlink()
    assert door("verify", *DATA, *TINY, "train.num_epochs=4", kill_at, "run.name=equal", cwd=workshop) == 1
    compared = json.loads((workshop / "logs/verify/equal/report.json").read_text())["metrics"]["compared"]
    assert {kind for kind, found in compared.items() if not found["equal"]} == {"samples", "losses"}


def test_a_disturbance_that_comes_too_late_is_said(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["verify.kill_at=[step:9999]", "train.num_epochs=1", "run.name=late"]
    assert door("verify", *DATA, *TINY, *words, cwd=workshop) == 2
    assert "step:9999 cannot happen" in capsys.readouterr().err


@pytest.mark.slow
def test_the_default_disturbances_fit_a_training_of_few_steps(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train.num_epochs=2", "train.batch=20", "run.name=short"]
    tiny = [word for word in TINY if not word.startswith("train.batch")]
    assert door("verify", *DATA, *tiny, *words, cwd=workshop) == 0
    said = capsys.readouterr().out
    assert "undisturbed, 1 ranks: 4 steps" in said
    assert "disturbed by step:2: killed" in said
    assert "disturbed by during:checkpoint: killed" in said
    assert "equal bit for bit" in said
