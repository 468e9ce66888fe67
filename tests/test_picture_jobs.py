"""Spectrogram pictures through the door: the same path as audio, and never mistaken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from fakes import REAL, TINY, needs_real, tone, write_audio
from PIL import Image
from safetensors.torch import load_file

from parallel_tunes import schema
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import splits
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.models.texture import Texture

Door = Callable[..., int]
QUICK = [*TINY, "task.crop_s=5", "split=stratified", "train.num_epochs=12", "train.lr=0.02"]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write_pictures(root: Path, num: int = 8, colours: str = "magma", ending: str = "jpg") -> Path:
    """Two labels, with few bands and with many."""
    for label, spacing in (("few", 32), ("many & more", 8)):
        (root / label).mkdir(parents=True)
        for number in range(num):
            rng = np.random.default_rng(number)
            levels = np.linspace(0.6, 0.2, 128)[:, None] + 0.05 * rng.standard_normal((128, 150))
            levels[number % 8 :: spacing] += 0.3
            pixels = matplotlib.colormaps[colours](np.clip(levels[::-1], 0, 1), bytes=True)[..., :3]
            Image.fromarray(pixels.copy()).save(root / label / f"blues.{number:05d}.{ending}")
    return root


def test_the_whole_path(run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pictures(tmp_path / "drawn")
    (root / "few/broken.jpg").write_bytes((root / "few/blues.00000.jpg").read_bytes()[:900])
    (root / "few/notes.txt").write_text("no picture")
    assert run("preprocess", "data=folder", f"data.root={root}", "preprocess.pictures=true", "run.name=a") == 0
    said = capsys.readouterr()
    assert "128 bands × 150 frames for 30 s, brighter is louder (features.picture_map=auto)" in said.out
    assert "few/broken.jpg: truncated" in said.err
    manifest = read(tmp_path / "logs/preprocess/a/manifest.json")
    assert (manifest["num_tracks"], manifest["audio_s"]) == (16, 16 * 30)
    assert manifest["features"]["kind"] == "picture"
    made = ShardSet(tmp_path / "logs/preprocess/a")
    frames = made.read(0)
    assert frames.shape == (150, 128)
    assert frames.dtype == np.float16
    assert frames[:, :64].mean() > frames[:, 64:].mean()
    assert len(list((tmp_path / "logs/preprocess/a/spectrograms").rglob("*.png"))) == 16

    assert run("train", f"data.root={root}", *QUICK, "run.name=t", "run.page=true") == 0
    assert "no shards" not in capsys.readouterr().out
    report = read(tmp_path / "logs/train/t/report.json")
    assert report["metrics"]["test"]["accuracy"] == 1.0
    assert report["front_end"] == manifest["fingerprint"]
    assert (tmp_path / "logs/train/t/mel_spectrograms.png").exists()
    model = f"model={tmp_path}/logs/train/t/model"
    assert read(tmp_path / "logs/train/t/model/model.json")["windows"]["num_frames"] == 25  # 5 s of 150 frames for 30 s
    assert run("evaluate", model, f"data.root={root}", "run.name=e") == 0
    assert read(tmp_path / "logs/evaluate/e/report.json")["metrics"]["test"] == report["metrics"]["test"]

    sound = write_audio(tmp_path / "sounds/few/a.wav", tone(440))
    write_audio(tmp_path / "sounds/many & more/a.wav", tone(880))
    files = [root / "many & more/blues.00001.jpg", root / "few/broken.jpg", sound]
    assert run("predict", model, "run.name=p", "--", *map(str, files)) == 1
    good, *bad = read(tmp_path / "logs/predict/p/report.json")["predictions"]
    assert good["top"][0]["label"] == "many & more"
    assert ["truncated" in bad[0]["reason"], "neither JPEG nor PNG" in bad[1]["reason"]] == [True, True]
    capsys.readouterr()
    assert run("evaluate", model, f"data.root={tmp_path}/sounds", "evaluate.split=all", "run.name=f") == 2
    assert "holds audio, where spectrogram pictures are wanted" in capsys.readouterr().err


def test_statistics_are_of_the_whole_picture_and_centred_by_training_tracks(
    run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "drawn")
    small = ["model.widths=[4,8]", "train.num_epochs=2", "train.batch=4", "split=stratified"]
    assert run("train", f"data.root={root}", *small, "run.name=t") == 0
    facts = read(tmp_path / "logs/train/t/model/model.json")
    assert facts["windows"] == {"num_frames": 150, "piece": 38, "overlap": 0.5}
    shards = ShardSet(next((tmp_path / "logs/preprocess").iterdir()))
    train = splits.draw(shards.index, schema.build(SplitConfig, facts["data"]["split"])).rows["train"]
    assert 0 < len(train) < len(shards.index)
    levels = torch.from_numpy(np.stack([shards.read(row).T for row in train.tolist()])[:, None].astype(np.float64))
    standard = (levels - facts["standardise"]["mean_db"]) / facts["standardise"]["deviation_db"]
    middle = load_file(tmp_path / "logs/train/t/model/model.safetensors")["texture.middle"]
    assert torch.allclose(middle, Texture()(standard).mean(0).float(), atol=1e-4)
    model = f"model={tmp_path}/logs/train/t/model"
    assert run("evaluate", model, f"data.root={root}", "run.name=e") == 0
    told = [read(tmp_path / f"logs/{job}/report.json")["metrics"]["test"] for job in ("train/t", "evaluate/e")]
    assert told[0] == told[1]

    given = ["data.root=drawn", *small, "task.crop_s=6", "task.window_s=12", "run.name=w"]
    assert run("train", *given) == 0
    assert read(tmp_path / "logs/train/w/model/model.json")["windows"] == {
        "num_frames": 60,
        "piece": 30,
        "overlap": 0.5,
    }
    capsys.readouterr()
    assert run("train", *given, "model.texture=false", "run.name=n") == 2
    assert "task.window_s: for models with model.texture=true" in capsys.readouterr().err


def test_a_model_of_audio_is_given_no_pictures(
    run: Door, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, model = write_pictures(tmp_path / "drawn", 2), f"model={workshop}/logs/train/tiny/model"
    assert run("evaluate", model, f"data.root={root}", "evaluate.split=all", "run.name=e") == 2
    assert "the model was trained on audio, and these tracks are pictures" in capsys.readouterr().err
    assert run("predict", model, "run.name=p", "--", str(root / "few/blues.00000.jpg")) == 1


def test_shards_are_found_again_and_settings_that_differ_are_named(
    run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "drawn", colours="viridis_r", ending="png")
    words = ("train", f"data.root={root}", *QUICK, "train.num_epochs=1")
    assert run(*words, "run.name=a") == 0
    assert "darker is louder (features.picture_map=auto_r)" in capsys.readouterr().out
    (shards,) = (tmp_path / "logs/preprocess").iterdir()
    assert run(*words, f"data.shards={shards}", "run.name=b") == 0
    assert (
        read(tmp_path / "logs/train/a/report.json")["metrics"] == read(tmp_path / "logs/train/b/report.json")["metrics"]
    )
    assert run(*words, f"data.shards={shards}", "features.num_mels=64", "run.name=c") == 2
    assert "features.num_mels is 128 there, 64 here" in capsys.readouterr().err
    assert run(*words, "features=waveform", "run.name=d") == 2
    assert "these tracks are pictures, which hold spectrograms" in capsys.readouterr().err


def test_audio_and_pictures_in_one_folder(run: Door, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pictures(tmp_path / "both", 2)
    for label in ("few", "many & more"):
        write_audio(root / label / "a.wav", tone(440))
    assert run("preprocess", f"data.root={root}", "run.name=a") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "holds 2 audio files and 4 pictures, few/blues.00000.jpg say" in line
    assert "data.media=pictures" in line
    for media, num in (("audio", 2), ("pictures", 4)):
        assert run("preprocess", f"data.root={root}", f"data.media={media}", f"run.name={media}") == 0
        assert read(tmp_path / f"logs/preprocess/{media}/manifest.json")["num_tracks"] == num


def test_covers_beside_music_are_no_tracks(run: Door, tmp_path: Path) -> None:
    for name in ("Cover.jpg", "folder.png", "AlbumArt_{1}_Large.jpg"):
        path = write_audio(tmp_path / "music/pop/album/a.wav", tone(440)).with_name(name)
        Image.new("RGB", (300, 300), "red").save(path)
    assert run("preprocess", f"data.root={tmp_path}/music", "run.name=a") == 0
    assert read(tmp_path / "logs/preprocess/a/manifest.json")["num_tracks"] == 1


def test_a_list_may_hold_pictures(run: Door, tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "drawn", 3)
    rows = [f"{path.relative_to(root)},x\n" for path in sorted(root.rglob("*.jpg"))]
    (root / "list.csv").write_text("path,label\n" + "".join(rows))
    assert run("preprocess", f"data.root={root}/list.csv", "run.name=a") == 0
    assert read(tmp_path / "logs/preprocess/a/manifest.json")["num_tracks"] == 6


@needs_real
def test_real_pictures_by_the_fault_filtered_lists(run: Door, tmp_path: Path) -> None:
    root = REAL / "gtzan_spectrograms"
    words = ["model.widths=[4,8]", "split=gtzan_fault_filtered", "train.num_epochs=2", "run.name=a"]
    assert run("train", f"data.root={root}", *words) == 0
    report = read(tmp_path / "logs/train/a/report.json")
    assert report["metrics"]["test"] is None
    assert report["metrics"]["valid"]["n"] == 197
    assert report["metrics"]["train"]["n"] == 443
    assert report["split"]["tracks"] == {"train": 443, "valid": 197, "test": 0}
    assert report["split"]["num_excluded"] == 70
    assert report["leaks"]["pairs"] == report["leaks"]["suspects"] == []  # that is what the lists are for
    (made,) = (tmp_path / "logs/preprocess").iterdir()
    assert (read(made / "manifest.json")["num_tracks"], read(made / "manifest.json")["failed"]) == (710, [])
