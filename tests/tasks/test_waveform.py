"""features=waveform: int16 shards, whose spectrograms are computed in the step, teach what log-mel shards teach."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from fakes import TINY, door, needs_gpu, ptunes, tone, without_times, write_audio
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from parallel_tunes.audio.decode import decode
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.data.batches import fit_length
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.shard_work import read_levels
from parallel_tunes.tasks.crops import CropSource
from parallel_tunes.tasks.resident import Resident
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.learner import Inputs, Waveforms

WINDOW = 60  # frames
HALF_DB = 0.03125  # what rounding to float16 costs between 64 and 128 dB
EXACT_DB = 1e-3  # of files whose samples are 16-bit, one channel, at the wanted rate
SETTINGS = {
    "default": [],
    "padded": ["features.clip_s=2", "features.pad=true"],
    "as it is": ["features.normalise=none", "features.top_db=60"],
    "odd": ["features.n_fft=1023", "features.hop_length=300", "features.num_mels=40"],
}


def write_corpus(root: Path) -> Path:
    """Tracks longer and shorter than a window, with and without values on the floor; two are not 16-bit mono at 22 050 Hz."""
    rng = np.random.default_rng(3)

    def music(duration_s: float, rate_hz: int = 22050) -> NDArray[np.float32]:
        chord = sum(tone(hz, duration_s, rate_hz) for hz in (220, 277, 1760)) * np.float32(0.4)
        return np.asarray(chord + 0.01 * rng.standard_normal(chord.size), np.float32)

    def fade(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(samples * np.geomspace(1, 1e-4, samples.size), np.float32)

    pcm = "PCM_16"
    write_audio(root / "a" / "long.wav", music(2.345), subtype=pcm)
    write_audio(root / "a" / "fading.wav", fade(music(2.0)), subtype=pcm)
    write_audio(root / "a" / "whole hops.wav", music(2.0)[: 64 * 512], subtype=pcm)
    write_audio(root / "b" / "short.wav", 0.1 * music(0.6), subtype=pcm)
    write_audio(root / "b" / "short and fading.wav", fade(music(0.7)), subtype=pcm)
    write_audio(root / "b" / "one window.wav", music(2.0)[: 59 * 512], subtype=pcm)
    both = np.stack([music(2.0, 44100), 0.3 * music(2.0, 44100)], 1)
    write_audio(root / "b" / "resampled.wav", both, 44100, subtype="PCM_24")
    write_audio(root / "b" / "short floats.wav", 1.5 * fade(music(0.8)), subtype="FLOAT")
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waveform")
    write_corpus(folder / "music")
    return folder


def shards_of(corpus: Path, kind: str, name: str) -> ShardSet:
    """The corpus's shards with one of SETTINGS, made once."""
    folder = f"{name.replace(' ', '-')}-{kind}"
    if not (corpus / "logs/preprocess" / folder / "manifest.json").exists():
        words = [f"features={kind}", *SETTINGS[name], f"run.name={folder}"]
        assert door("preprocess", "data.root=music", *words, cwd=corpus) == 0
    return ShardSet(corpus / "logs/preprocess" / folder)


def source_of(shards: ShardSet, rank: int = 0, world_size: int = 1) -> CropSource:
    mesh = Mesh()
    mesh.start("cpu", timeout_s=60)
    mesh.rank, mesh.world_size = rank, world_size
    rows = {"train": np.arange(len(shards.index))}
    return CropSource(shards, rows, ["a", "b"], window=WINDOW, overlap=0.5, mesh=mesh, batch=5, seed=2)


def hear(source: CropSource, inputs: Inputs, device: str = "cpu") -> Tensor:
    """What a model hears of crops, in dB."""
    assert isinstance(inputs, Waveforms)
    model = Frozen(torch.nn.Identity(), torch.device(device), mean_db=0.0, deviation_db=1.0, log_mel=source.log_mel)
    heard = model.standardise(inputs)
    assert heard.shape[1] == 1
    assert not heard.requires_grad
    return heard[:, 0]


def expected(path: Path, shards: ShardSet) -> NDArray[np.float32]:
    """The spectrogram of a file by the one log-mel, not rounded, shape (num_frames, num_mels)."""
    features = shards.manifest["features"]
    samples, _ = decode(path, sample_rate_hz=22050, first_s=features["clip_s"])
    if features["normalise"] == "peak":
        samples = samples / np.abs(samples).max()
    if features["pad"]:
        samples = np.pad(samples, (0, max(int(features["clip_s"] * 22050) - samples.size, 0)))
    names = ("sample_rate_hz", "n_fft", "hop_length", "num_mels", "top_db")
    return log_mel(samples, **{name: features[name] for name in names}).T


@pytest.mark.parametrize("name", SETTINGS)
def test_windows_are_those_of_spectrograms(name: str, corpus: Path) -> None:
    """At a clip's start and end, within it, beyond a short one, and in the silence it is padded with."""
    waves, mels = shards_of(corpus, "waveform", name), shards_of(corpus, "logmel", name)
    assert waves.manifest["fingerprint"] == mels.manifest["fingerprint"]
    source, other = source_of(waves), source_of(mels)
    assert other.log_mel is None
    seen = set()
    for row, path in enumerate(waves.index["path"]):
        ((tracks, inputs),) = source.windows("train", row, row + 1)
        ((same, halves),) = other.windows("train", row, row + 1)
        assert torch.equal(tracks, same)
        assert isinstance(halves, Tensor)
        levels = hear(source, inputs)
        is_exact = soundfile.info(corpus / "music" / path).subtype == "PCM_16"
        seen.add((len(levels) > 1, is_exact))
        near = levels >= levels.max() - (80 if is_exact else 60)
        tolerance_db = EXACT_DB if is_exact else 0.03
        assert float((levels - halves)[near].abs().max()) < HALF_DB + tolerance_db
        assert float((levels - halves).abs().max()) < HALF_DB + (EXACT_DB if is_exact else 0.3)
        whole = expected(corpus / "music" / path, waves)
        starts = np.linspace(0, max(len(whole) - WINDOW, 0), len(levels)).round().astype(int)
        crops = np.stack([fit_length(whole[at : at + WINDOW], WINDOW).T for at in starts])
        np.testing.assert_allclose(levels.numpy()[near], crops[near], rtol=0, atol=tolerance_db)
    assert len(seen) == (4 if name != "padded" else 2)


def test_pictures_and_reports_read_either(corpus: Path) -> None:
    waves, mels = (shards_of(corpus, kind, "padded") for kind in ("waveform", "logmel"))
    for row in range(len(waves.index)):
        levels, halves = read_levels(waves, row), read_levels(mels, row)
        assert levels.shape == halves.shape
        near = levels >= levels.max() - 60
        assert float(np.abs(levels - halves)[near].max()) < HALF_DB + 0.03
        np.testing.assert_array_equal(read_levels(waves, row, 7), levels[:, :7])
    assert (
        door("preprocess", "data.root=music", "features=waveform", "preprocess.pictures=true", "run.name=p", cwd=corpus)
        == 0
    )
    assert len(list((corpus / "logs/preprocess/p/spectrograms").glob("*/*.png"))) == len(waves.index)


def test_batches_are_those_of_spectrograms(corpus: Path) -> None:
    source, other = (source_of(shards_of(corpus, kind, "default")) for kind in ("waveform", "logmel"))
    for epoch in range(2):
        for batch, same in zip(source.train(epoch, 0), other.train(epoch, 0), strict=True):
            assert torch.equal(batch.marks, same.marks)
            assert torch.equal(batch.targets, same.targets)
            assert isinstance(same.inputs, Tensor)
            assert float((hear(source, batch.inputs) - same.inputs).abs().max()) < 0.3


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_a_crop_has_the_same_bits_on_every_world_size(world_size: int, corpus: Path) -> None:
    shards = shards_of(corpus, "waveform", "default")
    alone = list(source_of(shards).train(1, 0))
    shared = [list(source_of(shards, rank, world_size).train(1, 0)) for rank in range(world_size)]
    for step, batch in enumerate(alone):
        parts = [ranks[step] for ranks in shared]
        levels = torch.cat([hear(source_of(shards), part.inputs)[part.weights > 0] for part in parts])
        assert torch.equal(levels, hear(source_of(shards), batch.inputs))


@pytest.mark.parametrize("kind", ["logmel", "waveform"])
@pytest.mark.parametrize("name", SETTINGS)
def test_crops_of_resident_tracks_are_the_same(kind: str, name: str, corpus: Path) -> None:
    """Cut where the tracks lie, here as a CPU would: of batches, and of windows, short clips and all."""
    shards = shards_of(corpus, kind, name)
    plain, near = source_of(shards), source_of(shards)
    every = np.arange(len(shards.index))
    near.resident = Resident(shards, every, torch.device("cpu"), is_filled=kind == "logmel")
    for one, other in zip(plain.train(3, 0), near.train(3, 0), strict=True):
        assert_equal(other.inputs, one.inputs)
        assert torch.equal(one.marks, other.marks)
    num = len(plain.shards.index)
    for (tracks, windows), (same, others) in zip(
        plain.windows("train", 0, num), near.windows("train", 0, num), strict=True
    ):
        assert torch.equal(tracks, same)
        assert_equal(others, windows)


def assert_equal(one: Inputs, other: Inputs) -> None:
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor)
        assert torch.equal(one, other)
    else:
        assert isinstance(other, Waveforms)
        for name in ("samples", "gains", "floors_db", "num_frames"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_a_model_without_a_definition_hears_no_waveforms(corpus: Path) -> None:
    source = source_of(shards_of(corpus, "waveform", "default"))
    model = Frozen(torch.nn.Identity(), torch.device("cpu"), mean_db=0.0, deviation_db=1.0)
    with pytest.raises(AssertionError, match="waveforms need log_mel"):
        model.standardise(next(source.train(0, 0)).inputs)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_hears_the_same_and_is_not_waited_for(corpus: Path) -> None:
    source = source_of(shards_of(corpus, "waveform", "default"))
    batch = next(source.train(0, 0))
    assert float((hear(source, batch.inputs, "cuda").cpu() - hear(source, batch.inputs)).abs().max()) < 1e-2
    model = Frozen(torch.nn.Identity(), torch.device("cuda"), mean_db=0.0, deviation_db=1.0, log_mel=source.log_mel)
    model.standardise(batch.inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.standardise(batch.inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


WORDS = [
    "train",
    "features=waveform",
    "data=synthetic",
    "data.root=logs/synth/corpus",
    "train.num_epochs=2",
    *TINY,
    "run.page=true",
]


@pytest.fixture(scope="module")
def trained(workshop: Path) -> Path:
    """Trained as `tiny` is, but from the waveforms, whose shards it makes by itself."""
    assert door(*WORDS, "train.checkpoint_every=2", "run.name=waves", cwd=workshop) == 0
    return workshop / "logs/train/waves"


def curve(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def is_near(folder: Path, other: Path) -> bool:
    """Whether two runs saw the same crops, to the same losses."""
    assert [row["samples"] for row in curve(folder)] == [row["samples"] for row in curve(other)]
    one, same = ([row[part]["loss"] for row in curve(run) for part in ("train", "valid")] for run in (folder, other))
    return bool(np.allclose(one, same, rtol=0, atol=5e-3))


def test_training_is_that_of_spectrograms(workshop: Path, trained: Path) -> None:
    tiny = workshop / "logs/train/tiny"
    assert is_near(trained, tiny)
    model, same = (json.loads((run / "model/model.json").read_text()) for run in (trained, tiny))
    assert model["fingerprint"] == same["fingerprint"]
    assert model["standardise"] == pytest.approx(same["standardise"], abs=1e-9)
    assert (model["features"].pop("kind"), same["features"].pop("kind")) == ("waveform", "logmel")
    assert model["features"] == same["features"]


@pytest.mark.slow
def test_two_ranks_train_alike(workshop: Path, trained: Path) -> None:
    ptunes(*WORDS, "train.checkpoint_every=2", "run.name=waves-2", cwd=workshop, ranks=2)
    assert is_near(workshop / "logs/train/waves-2", trained)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(workshop: Path, trained: Path) -> None:
    words = [*WORDS, "train.checkpoint_every=2", "run.name=waves-killed"]
    assert ptunes(*words, cwd=workshop, check=False, PT_DISTURB="step:7").returncode == -signal.SIGKILL
    folder = workshop / "logs/train/waves-killed"
    assert not (folder / "model").exists()
    assert door(*words, cwd=workshop) == 0
    one, other = (load_file(path / "model/model.safetensors") for path in (folder, trained))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows, same = (list(map(without_times, curve(path))) for path in (folder, trained))
    assert rows == same


@pytest.mark.parametrize("model", ["tiny", "waves"])
def test_a_model_of_either_judges_either(model: str, workshop: Path, trained: Path) -> None:
    found = []
    (made,) = (workshop / "logs/preprocess").glob("auto-waveform-*")
    for kind, shards in (("logmel", workshop / "logs/preprocess/corpus"), ("waveform", made)):
        words = ["data=synthetic", "data.root=logs/synth/corpus", f"data.shards={shards}"]
        name = f"{model}-by-{kind}"
        assert door("evaluate", f"model=logs/train/{model}/model", *words, f"run.name={name}", cwd=workshop) == 0
        found.append(json.loads((workshop / f"logs/evaluate/{name}/report.json").read_text())["metrics"]["test"])
    assert found[0]["n"] == found[1]["n"] == 20
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], abs=2e-3)


def test_serving_says_what_the_training_said(workshop: Path, trained: Path) -> None:
    """The service's spectrograms are rounded to float16, the training's are not."""
    rows = list(csv.DictReader((trained / "predictions.csv").read_text().splitlines()))[:4]
    files = [f"logs/synth/corpus/{row['path']}" for row in rows]
    words = [f"model={trained}/model", "predict.top_k=10", "run.name=waves"]
    assert door("predict", *words, "--", *files, cwd=workshop) == 0
    answers = json.loads((workshop / "logs/predict/waves/report.json").read_text())["predictions"]
    for row, answer in zip(rows, answers, strict=True):
        given = {entry["label"]: entry["probability"] for entry in answer["top"]}
        assert given[row["predicted"]] == pytest.approx(float(row["probability"]), abs=2e-3)
