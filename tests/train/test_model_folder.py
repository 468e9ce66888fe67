from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from parallel_tunes.schema import UserError
from parallel_tunes.train import model_folder


@pytest.fixture
def folder(workshop: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    return Path(shutil.copytree(workshop / "logs/train/tiny/model", tmp_path / "model"))


def edit(folder: Path, **changed: Any) -> None:
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(facts | changed))


def test_a_whole_folder_loads(folder: Path) -> None:
    loaded = model_folder.load(folder)
    assert len(loaded.classes) == 10
    assert loaded.facts["training"]["seeds"] == [0]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        model_folder.load(folder)


def test_changed_weights_are_found(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="damaged or changed"):
        model_folder.load(folder)


def test_other_features_than_the_fingerprint_names_are_found(folder: Path) -> None:
    features = json.loads((folder / "model.json").read_text())["features"]
    edit(folder, features={**features, "hop_length": 256})
    with pytest.raises(UserError, match="train it again"):
        model_folder.load(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"features": None},
        {"classes": 3},
        {"architecture": {"name": "genre_cnn"}},
        {"standardise": {}},
        {"format": 9},
        {"classes": ["a"]},
    ],
)
def test_a_damaged_description_is_one_line(changed: dict[str, Any], folder: Path) -> None:
    edit(folder, **changed)
    with pytest.raises(UserError, match="model=") as caught:
        model_folder.load(folder)
    assert "\n" not in str(caught.value)


def test_text_that_is_no_json(folder: Path) -> None:
    (folder / "model.json").write_text("{")
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        model_folder.load(folder)
