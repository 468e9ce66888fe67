from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from fakes import door, tone, write_audio, write_bad, write_tree

from parallel_tunes import schema
from parallel_tunes.benchmark import gpu, peers
from parallel_tunes.benchmark.clips import write_clips
from parallel_tunes.benchmark.pipeline import Silent
from parallel_tunes.benchmark.suites import SUITES
from parallel_tunes.config import BenchmarkJob, DataConfig, FeaturesConfig
from parallel_tunes.config_benchmark import BenchmarkConfig

# librosa loads audioread, which loads modules that Python is to drop
pytestmark = pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")
WORDS = ("benchmark", "suite=preprocess", "run.name=tiny")
QUICK = (
    "benchmark.num_clips=4",
    "benchmark.clip_s=2",
    "benchmark.repetitions=1",
    "benchmark.engines=[1]",
    "benchmark.formats=[wav22,flac]",
)


def make(config: type[Any], group: str, option: str, **changed: object) -> Any:
    return schema.build(config, schema.defaults(group, option) | changed)


@pytest.mark.slow
def test_a_whole_run_and_one_that_goes_on_from_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one: tests that share a run may be split over workers, which would each make it."""
    assert door(*WORDS, *QUICK, cwd=tmp_path) == 0
    folder = tmp_path / "logs/benchmark/tiny"
    check_rows_and_ratios(json.loads((folder / "report.json").read_text()))
    assert not [path.name for path in folder.iterdir() if path.is_dir()]
    pages = {"report.html", "one_core_mono.png", "one_core_stereo.png", "pipeline.png"}
    assert pages <= {path.name for path in folder.iterdir()}
    check_it_goes_on(folder, capsys)


def check_rows_and_ratios(report: Any) -> None:
    metrics = report["metrics"]
    cells = {cell["name"]: cell for cell in metrics["cells"]}
    for who in ("librosa", "torchaudio", "ours", "decode", "kernel", "librosa_kernel"):
        assert f"{who}_wav22" in cells
    pipelines = {"serial", "engines_1", "engines_1_start"}
    assert {name for name, cell in cells.items() if cell["group"] == "pipeline"} == {
        *(f"{who}_{how}" for who in ("librosa", "ours") for how in pipelines),
        "ours_auto",
    }
    assert {"librosa_flac", "ours_flac", "decode_flac"} <= set(cells)
    for cell in cells.values():
        assert 0 < cell["low"] <= cell["median"] <= cell["high"]
        assert cell["repetitions"] == 1
        assert cell["n"] >= 4
    assert set(metrics["ratios"]) == set(metrics["intervals"]) == {
        "logmel_vs_librosa_1core", "logmel_vs_torchaudio_1core", "kernel_vs_librosa_1core",
        "stereo_flac_vs_librosa_1core", "pipeline_vs_librosa_serial", "pipeline_vs_librosa_serial_with_start",
        "pipeline_vs_librosa_engines", "serial_vs_librosa_serial", "auto_vs_librosa_serial", "auto_vs_serial",
        *(["gpu_vs_1core"] if torch.cuda.is_available() else []),
    }  # fmt: skip
    for name, ratio in metrics["ratios"].items():
        low, high = metrics["intervals"][name]
        assert 0 < low <= ratio <= high
    assert metrics["interval_level"] == 0
    assert torch.cuda.is_available() or any("No GPU" in note for note in report["notes"])
    assert report["machine"]["cores"] >= 1
    agreement_db = metrics["agreement_db"]
    assert set(agreement_db) == {"wav22", "wav22_float32", "flac"}
    assert agreement_db["wav22_float32"] < 0.01
    assert max(agreement_db.values()) < 0.05  # float16's step


def check_it_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its report a run is drawn again from its rows."""
    before = json.loads((folder / "report.json").read_text())["metrics"]
    rows = (folder / "metrics.jsonl").read_text()
    (folder / "report.json").unlink()
    left = folder / "clips-left by a process that was killed"
    left.mkdir()
    capsys.readouterr()
    assert door(*WORDS, *QUICK, cwd=folder.parents[2]) == 0
    said = capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_text() == rows
    assert json.loads((folder / "report.json").read_text())["metrics"] == before
    assert not left.exists()
    for name in before["ratios"]:
        assert name in said
    assert said.splitlines()[-1] == "report: logs/benchmark/tiny/report.json"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["suite=preproces"],
            "suite=preproces: expected one of preprocess, train, svm, tables, serve (did you mean preprocess?)",
        ),
        (["benchmark.formats=[wav,mp3]"], "benchmark.formats=wav: expected one of wav22"),
        (["data.root=nowhere"], "data.root=nowhere: no such folder"),
    ],
)
def test_refusals(words: list[str], says: str, run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("benchmark", *words) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert says in errors[0]


def test_every_suite_can_be_asked_for() -> None:
    choices = next(leaf.choices for leaf in schema.keys_of(BenchmarkJob) if leaf.name == "suite")
    assert choices == tuple(SUITES)


def clips_config(**changed: object) -> BenchmarkConfig:
    made: BenchmarkConfig = make(BenchmarkConfig, "benchmark", "default", clip_s=1, num_clips=12, **changed)
    return made


def test_clips_are_the_same_each_time_and_all_different(tmp_path: Path) -> None:
    data: DataConfig = make(DataConfig, "data", "folder")
    made = [write_clips(clips_config(), data, tmp_path / name, Silent) for name in ("a", "b")]
    whole = [path.read_bytes() for path in made[0].paths]
    assert whole == [path.read_bytes() for path in made[1].paths]
    assert len(set(whole)) == 12
    assert made[0].digest == made[1].digest
    for name, (rate_hz, channels) in {
        "wav22": (22050, 1),
        "wav44": (44100, 2),
        "mp3": (44100, 2),
        "flac": (44100, 2),
    }.items():
        facts = [soundfile.info(path) for path in made[0].encoded[name]]
        assert {(each.samplerate, each.channels, round(each.duration, 1)) for each in facts} == {
            (rate_hz, channels, 1.0)
        }
        assert len(facts) == 10


def test_clips_of_music_that_is_given(tmp_path: Path) -> None:
    """Short tracks are repeated, those that cannot be read left out."""
    write_tree(tmp_path / "music", num_tracks=3, duration_s=0.6)
    write_audio(tmp_path / "music/long.d/a.wav", tone(500, 3.0, 44100, 2), 44100)
    write_bad(tmp_path / "music")
    data: DataConfig = make(DataConfig, "data", "folder", root=tmp_path / "music")
    made = write_clips(clips_config(formats=["wav22"]), data, tmp_path / "clips", Silent)
    assert "of 8 tracks of data.root" in made.source
    assert {soundfile.info(path).frames for path in (*made.paths, *made.encoded["wav22"])} == {22050}
    write_bad(tmp_path / "bad")
    for name in ("short.wav", "nan.wav"):  # readable as such
        (tmp_path / "bad/bad" / name).unlink()
    data = make(DataConfig, "data", "folder", root=tmp_path / "bad")
    with pytest.raises(schema.UserError, match="none of the tracks tried can be read"):
        write_clips(clips_config(), data, tmp_path / "none", Silent)


def test_rows_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where torch is the same: the row itself only wants another device."""
    features: FeaturesConfig = make(FeaturesConfig, "features", "logmel")
    paths = [write_audio(tmp_path / f"{number}.wav", tone(400 + number, 1.0)) for number in range(3)]
    monkeypatch.setattr(gpu, "BATCH", 5)
    (cell,) = gpu.list_cells(paths, features, device="cpu")
    assert cell.n == 5 * gpu.BATCHES
    assert cell.measure() > 0
    assert gpu.make_batch(paths, features).shape == (5, 22050)


def test_torchaudio_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert peers.make_torchaudio(make(FeaturesConfig, "features", "logmel")) is None
