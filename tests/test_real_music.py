"""The whole path on real clips, which stay outside the project: too few for a claim, enough for every step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from fakes import REAL, needs_real

pytestmark = needs_real
QUICK = ["model.widths=[4,8]", "train.num_epochs=2"]


@pytest.mark.slow
def test_wav_and_au_give_the_same_model_and_the_same_answers(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = REAL / "gtzan_mini"
    for path in clips.glob("*/*.wav"):
        samples, rate_hz = soundfile.read(path, dtype="int16")
        target = tmp_path / "au" / path.parent.name / f"{path.stem}.au"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, samples, rate_hz, subtype="PCM_16")
    reports, shards = [], []
    for name, root in (("wav", clips), ("au", tmp_path / "au")):
        # one shard: where others would end depends on what files are called
        one = "preprocess.shard_mib=100"
        assert run("preprocess", "data=folder", f"data.root={root}", one, f"run.name={name}") == 0
        data = [f"data.root={root}", f"data.shards=logs/preprocess/{name}"]
        assert run("train", "task=genre", *data, *QUICK, f"run.name={name}") == 0
        assert run("evaluate", f"model=logs/train/{name}/model", *data, f"run.name={name}") == 0
        some = sorted(root.glob("*/*"))[::20]
        capsys.readouterr()
        assert run("predict", f"model=logs/train/{name}/model", f"run.name={name}", "--", *map(str, some)) == 0
        assert len(capsys.readouterr().out.splitlines()) == len(some) + 2
        reports.append(
            [
                json.loads((tmp_path / f"logs/{job}/{name}/report.json").read_text())
                for job in ("train", "evaluate", "predict")
            ]
        )
        shards.append(json.loads((tmp_path / f"logs/preprocess/{name}/manifest.json").read_text()))
    assert shards[0]["num_tracks"] == shards[1]["num_tracks"] == 46
    assert not shards[0]["failed"]
    assert [s["checksum"] for s in shards[0]["shards"]] == [s["checksum"] for s in shards[1]["shards"]]
    for (train, evaluate, predict), (train_au, evaluate_au, predict_au) in [tuple(reports)]:
        assert train["metrics"] == train_au["metrics"]
        assert evaluate["metrics"] == evaluate_au["metrics"]
        assert train["metrics"]["test"] == evaluate["metrics"]["test"]
        assert sum(train["split"]["tracks"].values()) == 46
        assert [p["top"] for p in predict["predictions"]] == [p["top"] for p in predict_au["predictions"]]
