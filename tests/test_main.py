from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from parallel_tunes.__main__ import quote, to_overrides
from parallel_tunes.config import JOBS
from parallel_tunes.schema import UserError

Door = Callable[..., int]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@example("a (live) & b=c, [x] {y}.wav")
@example("it's \\' \\\\' \\")
@example("${oc.env:HOME} \\${x} $")
@example("null")
@example("\n\t")
def test_any_text_survives_hydra(text: str) -> None:
    override = OverridesParser.create().parse_override(f"data.root={quote(text)}")
    value = override.value()
    assert OmegaConf.to_container(OmegaConf.create({"root": value}), resolve=True) == {"root": text}


def test_words_after_the_dashes_are_files() -> None:
    assert to_overrides("predict", ["model=m", "--", "a=b.wav", "--help"]) == [
        "model_path='m'",
        "files=['a=b.wav','--help']",
    ]


def test_no_words_and_help_list_the_jobs(run: Door, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"]):
        assert run(*words) == 0
        out = capsys.readouterr().out
        assert all(f"\n  {job}" in out for job in JOBS)


@pytest.mark.parametrize("job", JOBS)
def test_help_shows_every_key_with_its_default(job: str, run: Door, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(job, "--help") == 0
    out = capsys.readouterr().out
    assert "run.name=null" in out
    assert "model_path" not in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tain"], "unknown job 'tain' (did you mean train?)"),
        (["train", "trian.lr=1"], "unknown key trian.lr (did you mean train.lr?)"),
        (["train", "train.lr=fast"], "train.lr=fast: expected a number"),
        (["train", "train.num_epochs=0"], "train.num_epochs=0"),
        (["train", "task=opera"], "expected one of genre, popularity"),
        (["train", "data.root"], "'data.root' is no key=value"),
        (["train", "model.widths=[4"], "model.widths=[4"),
        (["train", "--", "a.wav"], "takes no files"),
        (["train", "data.root="], "data.root: a path cannot be empty"),
        (["train"], "data.root: say where the tracks are"),
        (["train", "data=synthetic"], "ptunes synth run.name=corpus"),
        (["preprocess", "parallel.engines=-1"], "parallel.engines=-1: expected a whole number from 0"),
        (["preprocess", "data.root=missing"], "data.root=missing: no such folder"),
        (["preprocess", "data.root=missing.csv"], "no such list"),
        (["predict", "a.wav"], "files come after --"),
        (["predict", "model=m"], "which files?"),
        (["predict", "--", "a.wav"], "model: say which"),
        (["evaluate", "model=nowhere"], "model=nowhere: no such folder"),
        (["synth", "run.name=a/b"], "run.name='a/b'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_words_are_one_line_and_exit_code_2(
    words: list[str], says: str, run: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(errors) == 1, errors
    assert says in errors[0]
    assert "Traceback" not in errors[0]


def test_debug_shows_the_traceback(
    run: Door, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PT_DEBUG", "1")
    assert run("nosuch") == 2
    assert "Traceback" in capsys.readouterr().err


def test_cfg_job_prints_the_values(run: Door, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--cfg", "job", "train.lr=0.5", "data.root=a (b)") == 0
    out = capsys.readouterr().out
    assert "lr: 0.5" in out
    assert "root: a (b)" in out


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("data.root=${oc.env:MUSIC}/a (b)", "data.root", Path("/music/a (b)")),
        ("data.root=/music/$HOME", "data.root", Path("/music/$HOME")),
        ("data.root=/music/${never closed", "data.root", Path("/music/${never closed")),
        (r"data.root=/music/\${MUSIC}", "data.root", Path("/music/${MUSIC}")),
        ("run.name=it's-${oc.env:NUM}-${train.lr}-${now:%%}", "run.name", "it's-7-0.001-%"),
        ("run.name=${oc.env:MISSING,none}", "run.name", "none"),
        ("train.lr=${oc.env:RATE}", "train.lr", 0.01),
        ("train.seeds=[${oc.env:NUM},3]", "train.seeds", (7, 3)),
        ("train.seeds=${oc.env:SEEDS}", "train.seeds", (1, 2)),
        ("train.precision=${oc.env:PRECISION}", "train.precision", "fp32"),
    ],
)
def test_interpolations_are_those_of_hydra(
    word: str, key: str, value: object, run: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In texts and numbers alike; a dollar by itself is a part of a name."""
    for name, text in {"MUSIC": "/music", "NUM": "7", "RATE": "1e-2", "SEEDS": "[1,2]", "PRECISION": "fp32"}.items():
        monkeypatch.setenv(name, text)
    configs: list[Any] = []

    def keep(job: str, cfg: Any, part: int | None) -> int:
        configs.append(cfg)
        return 0

    monkeypatch.setattr("parallel_tunes.jobs.run_job", keep)
    assert run("train", "data.root=music", "train.lr=0.001", word) == 0
    found = configs[0]
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("run.name=v-${oc.env:PT_MISSING}", "run.name: "),
        ("run.name=v-${nothing}", "run.name: Interpolation key 'nothing' not found"),
        ("train.lr=${oc.env:PT_MISSING}", "Environment variable 'PT_MISSING' not found"),
        ("train.lr=${oc.env:HOME}", "expected a number"),
    ],
)
def test_what_cannot_be_resolved_is_one_line(
    word: str, says: str, run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "data.root=music", word) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "logs").exists()


def test_multirun_gives_each_cell_a_run_of_its_own(run: Door, tmp_path: Path) -> None:
    code = run("synth", "-m", "seed=1,2", "num_artists=1", "tracks_per_artist=1", "duration_s=0.2", "run.name=sweep")
    assert code == 0
    reports = sorted(path.parent.name for path in (tmp_path / "logs/synth").glob("*/report.json"))
    assert reports == ["sweep-0", "sweep-1"]


def test_flags_without_job_keys_are_refused() -> None:
    with pytest.raises(UserError):
        to_overrides("synth", ["seed"])
