"""A model folder: model.safetensors and model.json, checked against each other on load; never a pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from parallel_tunes import files, schema
from parallel_tunes.audio.front_end import fingerprint
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_train import ModelConfig
from parallel_tunes.models.genre_cnn import GenreCNN
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError

FORMAT = 1
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class ModelFolder:
    """A trained model and all that is needed to use it as it was trained."""

    model: nn.Module
    classes: list[str]
    features: FeaturesConfig
    facts: dict[str, Any]  # model.json


def build_model(cfg: ModelConfig, num_classes: int, seed: int) -> nn.Module:
    """The architecture that `cfg` names, its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GenreCNN(num_classes, cfg.widths, norm=cfg.norm, dropout=cfg.dropout)


def save(run: Run, weights: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write <run>/model/. The weights come last: a model.json without its model.safetensors is no model."""
    tensors = save_tensors(weights)
    facts = {"format": FORMAT, **facts, "weights_digest": files.digest_bytes(tensors)}
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    run.write_bytes("model/model.json", text.encode())
    run.write_bytes("model/model.safetensors", tensors)


def load(folder: Path | None) -> ModelFolder:
    """Read a model folder.

    Raises:
        UserError: it is missing, unfinished, damaged, or made for another front end than it says.
    """
    if folder is None:
        raise UserError("model: say which, the folder model/ of a train run: model=logs/train/NAME/model")
    if not folder.is_dir():
        raise UserError(f"model={folder}: no such folder")
    for name in ("model.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise UserError(f"model={folder}: {name} is missing; this is no model folder, or not all of one")
        if (folder / name).stat().st_size > MAX_BYTES:
            raise UserError(f"model={folder}: {name} is larger than any model of ours")
    try:
        facts = json.loads((folder / "model.json").read_text())
        if facts["format"] != FORMAT:
            raise UserError(f"model={folder}: written in format {facts['format']}, this version reads {FORMAT}")
        features = schema.build(FeaturesConfig, facts["features"], "features.")
        architecture = schema.build(ModelConfig, facts["architecture"], "architecture.")
        classes, named, digest = list(map(str, facts["classes"])), facts["fingerprint"], facts["weights_digest"]
        float(facts["standardise"]["mean_db"]), float(facts["standardise"]["deviation_db"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"model={folder}: model.json is damaged ({type(error).__name__}: {error})") from error
    if named != fingerprint(features):
        raise UserError(
            f"model={folder}: trained on features {named}, these settings give {fingerprint(features)}; train it again with this version"
        )
    data = (folder / "model.safetensors").read_bytes()
    if files.digest_bytes(data) != digest:
        raise UserError(f"model={folder}: model.safetensors is not the one model.json names (damaged or changed)")
    try:
        weights = load_tensors(data)
        model = build_model(architecture, len(classes), 0)
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"model={folder}: its weights do not fit its architecture ({str(error).splitlines()[0]})"
        ) from error
    return ModelFolder(model, classes, features, facts)
