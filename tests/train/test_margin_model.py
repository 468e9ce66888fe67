"""What a model folder of task=popularity holds comes back bit for bit, and what is damaged is one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.torch import load_file
from scipy.special import expit

from parallel_tunes import files, schema
from parallel_tunes.audio.front_end import fingerprint
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_run import RunConfig
from parallel_tunes.config_train import ModelConfig
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import margin_model, model_folder
from parallel_tunes.train.margin_model import MarginModel

NAMES = ["energy", "tempo", "day—ß"]
CLASSES = {
    "binary": ["≤ 50", "> 50"],
    "regression": [],
    "genre": ["pop", "rock", "jazz"],
    "two genres": ["pop", "rock"],
}


def draw_model(kind: str = "binary") -> MarginModel:
    """A model whose numbers have all their digits."""
    rng = np.random.default_rng(0)
    classes = CLASSES[kind]
    columns = 1 if len(classes) < 3 else len(classes)
    return MarginModel(
        "genre" if kind == "two genres" else kind, NAMES, rng.standard_normal(3), rng.random(3) + 0.1,
        rng.standard_normal((columns, 3)), rng.standard_normal(columns), classes,
        rng.standard_normal((columns if classes else 0, 2)), np.array([40.0, 17.3]) if kind == "regression" else np.array([0.0, 1.0]),
    )  # fmt: skip


def open_run(folder: Path) -> Run:
    run = Run("train", RunConfig(dir=None, name=None, page=True, max_restarts=1), folder, is_writer=True, started=0.0)
    assert run.open() is None
    return run


def write(folder: Path, model: MarginModel, **facts: Any) -> Path:
    margin_model.save(open_run(folder), model, facts)
    return folder / "model"


def write_genre(folder: Path) -> Path:
    """An untrained model of task=genre."""
    features, architecture = schema.defaults("features", "logmel"), schema.defaults("model", "genre_cnn")
    facts = {
        "task": "genre", "classes": ["high", "low"], "features": features, "architecture": architecture,
        "standardise": {"mean_db": 0.0, "deviation_db": 1.0}, "multi_label": False,
        "windows": {"num_frames": 40, "piece": 40, "overlap": 0.5},
        "fingerprint": fingerprint(schema.build(FeaturesConfig, features)),
    }  # fmt: skip
    model = model_folder.build_model(schema.build(ModelConfig, architecture), 2, 0, (128, 40))
    model_folder.save(open_run(folder), model.state_dict(), facts)
    return folder / "model"


def change(folder: Path, **changed: Any) -> None:
    """Facts of model.json; those that are None are left out."""
    facts = json.loads((folder / "model.json").read_text()) | changed
    (folder / "model.json").write_text(json.dumps({name: fact for name, fact in facts.items() if fact is not None}))


def test_all_comes_back_bit_for_bit(tmp_path: Path) -> None:
    features = np.random.default_rng(1).standard_normal((20, 3))
    for kind in CLASSES:
        model = draw_model(kind)
        folder = write(tmp_path / kind, model, threshold=50.5)
        loaded, facts = margin_model.load(folder)
        for name in ("target", "names", "classes", "fingerprint"):
            assert getattr(loaded, name) == getattr(model, name)
        for name in model.arrays:
            ours, theirs = getattr(loaded, name), getattr(model, name)
            assert (ours.shape, ours.dtype, ours.tobytes()) == (theirs.shape, theirs.dtype, theirs.tobytes()), name
        assert (facts["task"], facts["threshold"]) == ("popularity", 50.5)
        assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
        assert loaded.margins(features).tobytes() == model.margins(features).tobytes()


def test_answers() -> None:
    features = np.random.default_rng(1).standard_normal((50, 3))
    for kind, classes in CLASSES.items():
        model = draw_model(kind)
        standard = (features - model.center) / model.scale
        margins = np.array(
            [
                [weights @ row + bias for weights, bias in zip(model.weights, model.bias, strict=True)]
                for row in standard
            ]
        )
        assert_allclose(model.margins(features), margins)
        if kind == "regression":
            assert_allclose(model.numbers(features), 40 + 17.3 * margins[:, 0])
            continue
        found = model.probabilities(features)
        assert found.shape == (50, len(classes))
        assert_allclose(found.sum(1), 1)
        if len(classes) == 2:
            a, b = model.sigmoids[0]
            assert_allclose(found[:, 1], expit(a * margins[:, 0] + b))
            assert (model.labels(features) == (margins[:, 0] > 0)).all()
        else:
            assert (model.labels(features) == margins.argmax(1)).all()


def test_other_columns_or_another_order_have_another_fingerprint() -> None:
    model = draw_model()
    others = [NAMES[::-1], NAMES[:2], ["energy,tempo", NAMES[2]]]
    assert len({model.fingerprint, *(replace(model, names=names).fingerprint for names in others)}) == 4


def having(**facts: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, **facts)


def with_tensors(**changed: Any) -> Callable[[Path], None]:
    """Other tensors, written as a model's are; those that are None are left out."""

    def spoil(folder: Path) -> None:
        import torch
        from safetensors.torch import save

        tensors = {**load_file(folder / "model.safetensors"), **changed}
        kept = {
            name: torch.as_tensor(values, dtype=torch.float64) for name, values in tensors.items() if values is not None
        }
        data = save(kept)
        (folder / "model.safetensors").write_bytes(data)
        change(folder, weights_digest=files.digest_bytes(data))

    return spoil


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no target": (having(target=None), "target"),
    "no digest": (having(weights_digest=None), "model.json is damaged"),
    "another format": (having(format=9), "written in format 9, this version reads 1"),
    "another order": (having(features=NAMES[::-1]), "do not fit together"),
    "features of another type": (having(features=3), "damaged"),
    "three classes": (having(classes=["a", "b", "c"]), "do not fit together"),
    "no number": (with_tensors(weights=np.full((1, 3), np.nan)), "do not fit together"),
    "no scale": (with_tensors(scale=[1.0, 0.0, 1.0]), "do not fit together"),
    "weights of another shape": (with_tensors(weights=np.ones((1, 4))), "do not fit together"),
    "a tensor too few": (with_tensors(center=None), "center"),
    "a tensor too many": (with_tensors(more=[1.0]), "more"),
    "other bytes": (lambda folder: (folder / "model.safetensors").write_bytes(b"0" * 500), "damaged or changed"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
    "nested beyond reason": (lambda folder: (folder / "model.json").write_text("[" * 100_000), "model.json is damaged"),
    "a list": (lambda folder: (folder / "model.json").write_text("[]"), "model.json is damaged"),
}


def test_damage_is_one_clear_line(tmp_path: Path) -> None:
    for name, (spoil, says) in DAMAGE.items():
        folder = write(tmp_path / name, draw_model())
        spoil(folder)
        with pytest.raises(UserError) as caught:
            margin_model.load(folder)
        text = str(caught.value)
        assert text.startswith(f"model={folder}: "), name
        assert says in text, name
        assert "\n" not in text, name
    with pytest.raises(UserError, match="say which"):
        margin_model.load(None)
    with pytest.raises(UserError, match="no such folder"):
        margin_model.load(tmp_path / "nothing")


def test_neither_task_takes_the_other_ones_model(tmp_path: Path) -> None:
    genre = write_genre(tmp_path / "genre")
    assert model_folder.load(genre).classes == ["high", "low"]
    with pytest.raises(UserError) as caught:
        margin_model.load(genre)
    assert str(caught.value) == f"model={genre}: a model of task=genre, which takes no table of tracks"
    folder = write(tmp_path / "run", draw_model())
    with pytest.raises(UserError) as caught:
        model_folder.load(folder)
    assert str(caught.value) == (
        f"model={folder}: a support vector machine, which takes tables of tracks (data=spotify), no spectrograms"
    )
