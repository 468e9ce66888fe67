from __future__ import annotations

import json
import resource
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TINY, corpus_of, door, ptunes, without_times
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from parallel_tunes.__main__ import compose
from parallel_tunes.train.trainer import Progress, note_loss

WORDS = ["train", *TINY, "train.num_epochs=12", "train.checkpoint_every=2", "train.seeds=[3,4]"]


def words(workshop: Path, name: str, *more: str) -> list[str]:
    return [
        *WORDS,
        *corpus_of(workshop),
        f"run.name={name}",
        *more,
    ]


def outcome(folder: Path) -> tuple[dict[str, torch.Tensor], Any, list[Any]]:
    """Model, last checkpoint and curves of a run."""
    newest = max((folder / "checkpoints").glob("step-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    state = torch.load(newest, weights_only=True)
    assert state["progress"].pop("seconds") > 0
    return load_file(folder / "model/model.safetensors"), state, list(map(without_times, rows))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


@pytest.fixture(scope="module")
def undisturbed(workshop: Path) -> Path:
    assert door(*words(workshop, "undisturbed"), cwd=workshop) == 0
    return workshop / "logs/train/undisturbed"


@pytest.mark.parametrize(
    "disturbance", ["signal:TERM", "during:checkpoint", pytest.param("step:70", marks=pytest.mark.slow)]
)
def test_a_disturbed_run_goes_on_to_the_same_bits(
    disturbance: str, workshop: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped, or killed while it writes a checkpoint or in the second seed; the same command ends as if nothing had been."""
    name = disturbance.replace(":", "-")
    folder = workshop / "logs/train" / name
    done = ptunes(*words(workshop, name), cwd=workshop, check=False, PT_DISTURB=disturbance)
    if disturbance == "signal:TERM":
        assert done.returncode == 0, done.stderr
        assert '"status": "preempted"' in (folder / "report.json").read_text()
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert door(*words(workshop, name, "run.page=true"), cwd=workshop) == 0
    goes_on = "goes on from step" in capsys.readouterr().out
    assert goes_on == (disturbance != "during:checkpoint")  # which is killed in its first
    assert same(outcome(folder), outcome(undisturbed))
    page = (folder / "report.html").read_text()
    assert "Started 2 times" in page
    assert ">None<" not in page
    assert not list(folder.rglob(".partial-*"))


def test_a_torn_newest_checkpoint_is_passed_over(
    workshop: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # late enough that some are written: a few may still be on their way
    assert ptunes(*words(workshop, "torn"), cwd=workshop, check=False, PT_DISTURB="step:25").returncode != 0
    folder = workshop / "logs/train/torn/checkpoints"
    newest = max(folder.glob("step-*.pt"), key=lambda path: int(path.stem.split("-")[1]))
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert door(*words(workshop, "torn"), cwd=workshop) == 0
    assert f"{newest.name}: damaged, passed over" in capsys.readouterr().err
    assert same(outcome(workshop / "logs/train/torn"), outcome(undisturbed))


def test_a_full_disk_is_one_line_whichever_write_it_meets(
    workshop: Path, capsys: pytest.CaptureFixture[str], undisturbed: Path
) -> None:
    """The kernel's limit on file sizes stands in for a full disk: here a checkpoint begins well, and cannot end."""
    size = max(path.stat().st_size for path in (undisturbed / "checkpoints").glob("step-*.pt"))
    before, heeded = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, before[1]))
    try:
        assert door(*words(workshop, "full"), cwd=workshop) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heeded)
    (line,) = capsys.readouterr().err.splitlines()
    assert "File too large; what was there before stays good" in line
    assert not list((workshop / "logs/train/full").rglob(".partial-*"))
    assert door(*words(workshop, "full"), cwd=workshop) == 0
    assert same(outcome(workshop / "logs/train/full"), outcome(undisturbed))


def test_a_complete_run_is_told_again(workshop: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.pt")}
    assert door(*words(workshop, "undisturbed"), cwd=workshop) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "this run is complete already"
    assert lines[1].startswith("accuracy 0.")
    assert lines[-1] == "report: logs/train/undisturbed/report.json"
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.pt")}


def test_another_config_is_refused(workshop: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert undisturbed.exists()
    assert door(*words(workshop, "undisturbed", "train.lr=0.1"), cwd=workshop) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "train.lr was 0.002, is 0.1" in errors[0]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["train.batch=0"], "train.batch=0: expected a whole number of at least 1"),
        (["train.batch=81"], "train.batch=81: there are 80 tracks; take as many at most"),
        (["train.precision=fp16"], "train.precision=fp16: needs a GPU; on a CPU take bf16 or fp32"),
        (["train.lr=1e30"], "step 2: the loss is not finite, the training diverged; there is no checkpoint before it"),
        (["train.lr=1e42", "train.checkpoint_every=1"], "step 1: a weight is not finite"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    more: list[str], line: str, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(workshop, "refused", *more, f"run.dir={tmp_path}/run")
    assert door(*given, cwd=workshop) == 2
    said = capsys.readouterr().err
    assert line in said
    assert len([each for each in said.splitlines() if each.startswith("ptunes:")]) == 1
    assert "Traceback" not in said
    assert not list((tmp_path / "run/checkpoints").glob("*.pt"))


def test_a_training_that_diverges_keeps_its_last_good_checkpoint(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning rate goes wild at step 7; the checkpoint after step 6 stays, and can be gone on from."""
    from parallel_tunes.train.gradient import GradientLearner

    planned = GradientLearner.learning_rate
    monkeypatch.setattr(GradientLearner, "learning_rate", lambda self, step: 1e30 if step == 6 else planned(self, step))
    given = words(workshop, "wild", f"run.dir={tmp_path}/run")
    assert door(*given, cwd=workshop) == 2
    assert (
        "step 8: the loss is not finite, the training diverged; the checkpoint before it is kept"
        in capsys.readouterr().err
    )
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*.pt")] != []
    kept = max(int(path.stem.split("-")[1]) for path in (tmp_path / "run/checkpoints").glob("step-*.pt"))
    assert kept == 6
    assert door(*given, cwd=workshop) == 0
    assert json.loads((tmp_path / "run/report.json").read_text())["status"] == "complete"


DEFAULTS = compose("train", []).train


@settings(deadline=None)
@given(
    losses=st.lists(st.floats(0.01, 2).map(lambda loss: round(loss, 2)), min_size=1, max_size=30),
    patience=st.integers(0, 4), factor=st.sampled_from([0.1, 0.5]),
)  # fmt: skip
def test_the_plateau_is_that_of_pytorch(losses: list[float], patience: int, factor: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience, factor=factor, eps=0)
    cfg = replace(DEFAULTS, schedule="plateau", plateau_patience=patience, plateau_factor=factor)
    progress = Progress()
    for epoch, loss in enumerate(losses):
        before = progress.lr_factor
        lowered = note_loss(progress, cfg, loss, epoch)
        theirs.step(loss)
        assert progress.lr_factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert lowered == (progress.lr_factor < before)


def test_patience_waits_for_a_gain_that_is_worth_it() -> None:
    cfg, progress = replace(DEFAULTS, min_delta=0.1), Progress()
    for epoch, loss in enumerate([1.0, 0.95, 0.92, 0.89, 0.85]):
        assert not note_loss(progress, cfg, loss, epoch)
        assert progress.goal_epoch == (0 if epoch < 3 else 3)
    assert progress.lr_factor == 1.0


def test_compiling_needs_a_compiler(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert door(*words(workshop, "compiled", "train.compile=true", f"run.dir={tmp_path}/run"), cwd=workshop) == 2
    assert "train.compile=true: no C++ compiler is here (g++ or clang++)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(workshop: Path, tmp_path: Path) -> None:
    runs = {}
    for name, more in (("plain", []), ("compiled", ["train.compile=true"])):
        few = ("train.seeds=[3]", "train.num_epochs=1", "model.widths=[4]", "train.precision=fp32")
        # its pool of compilers would be as many more processes that import torch
        given = words(workshop, name, *more, *few, f"run.dir={tmp_path}/{name}")
        if more:
            ptunes(*given, cwd=workshop, TORCHINDUCTOR_COMPILE_THREADS="1")
        else:
            assert door(*given, cwd=workshop) == 0
        runs[name] = outcome(tmp_path / name)[2]
    for one, other in zip(runs["plain"], runs["compiled"], strict=True):
        assert one["samples"] == other["samples"]
        assert other["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-4)
