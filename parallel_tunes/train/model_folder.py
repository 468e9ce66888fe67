"""A model folder: model.safetensors and model.json, checked against each other on load; never a pickle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from parallel_tunes import files, schema
from parallel_tunes.audio.front_end import fingerprint, restore
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_train import ModelConfig
from parallel_tunes.models.genre_cnn import GenreCNN
from parallel_tunes.models.residual_cnn import ResidualCNN
from parallel_tunes.models.seed_cnn import SeedCNN
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import sealed

FORMAT = 1
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class ModelFolder:
    """A trained model and all that is needed to use it as it was trained."""

    model: nn.Module
    classes: list[str]
    features: FeaturesConfig
    facts: dict[str, Any]  # model.json
    thresholds: NDArray[np.float64] | None  # (num_classes,), of probabilities; None where a track has one label

    @property
    def multi_label(self) -> bool:
        """Whether a track may have several labels."""
        return self.thresholds is not None


def build_model(
    cfg: ModelConfig, num_classes: int, seed: int, size: tuple[int, int], piece: int | None = None
) -> nn.Module:
    """The architecture that `cfg` describes, its weights drawn from `seed`.

    Args:
        size: num_mels and num_frames of a window.
        piece: frames of it that a network with textures beside it is given at a time; by default all.

    Raises:
        UserError: the model's keys do not go together.
    """
    if cfg.dense and cfg.norm == "group":
        raise UserError("model.norm=group: not for a model with model.dense; take sync or batch")
    if len(cfg.pools) != (len(cfg.widths) if cfg.dense else 0):
        raise UserError(
            f"model.pools={list(cfg.pools)}: one for each of model.widths where there is model.dense, else none"
        )
    if cfg.texture and not cfg.num_residual:
        raise UserError("model.texture=true: beside residual networks alone, model.num_residual=1 say")
    residual = partial(
        ResidualCNN, num_units=cfg.num_residual, texture=cfg.texture, piece=piece if piece and piece < size[1] else None
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not cfg.dense:
            make = residual if cfg.num_residual else GenreCNN
            return make(num_classes, cfg.widths, norm=cfg.norm, dropout=cfg.dropout, head=cfg.head)
        try:
            return SeedCNN(num_classes, cfg.widths, pools=cfg.pools, dense=cfg.dense, size=size, dropout=cfg.dropout)
        except ValueError as error:
            raise UserError(f"model.pools: {error}; take a longer task.crop_s, or smaller pools") from error


def count_multiply_adds(cfg: ModelConfig, num_classes: int, size: tuple[int, int], piece: int | None = None) -> int:
    """Multiply-adds of one window's forward pass, in convolutions, matrix products and recurrent layers."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build_model(cfg, num_classes, 0, size, piece).eval()(torch.empty(1, 1, *size))
    return int(counter.get_total_flops() // 2)


def save(run: Run, weights: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write <run>/model/. The weights come last: a model.json without its model.safetensors is no model."""
    tensors = save_tensors(weights)
    about = sealed.describe({**facts, "weights_digest": files.digest_bytes(tensors)}, FORMAT)
    run.write_bytes("model/model.json", about)
    run.write_bytes("model/model.safetensors", tensors)


def read(folder: Path | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """model.json and the tensors of a model folder, whatever its task.

    Raises:
        UserError: it is missing, unfinished, damaged, or of another format.
    """
    if folder is None:
        raise UserError("model: say which, the folder model/ of a train run: model=logs/train/NAME/model")
    if not folder.is_dir():
        raise UserError(f"model={folder}: no such folder")
    facts, data = sealed.read(
        folder, (("model.json", MAX_BYTES), ("model.safetensors", MAX_BYTES)), version=FORMAT,
        find_digest=lambda facts: facts["weights_digest"], advice="this is no model folder, or not all of one",
    )  # fmt: skip
    try:
        return facts, load_tensors(data)
    except SafetensorError as error:
        raise UserError(f"model={folder}: model.safetensors is damaged ({str(error).splitlines()[0]})") from error


def load(folder: Path | None) -> ModelFolder:
    """Read the folder of a genre model.

    Raises:
        UserError: it is missing, unfinished, damaged, of another task, or made for another front end than it says.
    """
    facts, weights = read(folder)
    if facts.get("task") in ("popularity", "genre_svm"):
        raise UserError(
            f"model={folder}: a support vector machine, which takes tables of tracks (data=spotify), no spectrograms"
        )
    try:
        features = restore(facts["features"])
        architecture = schema.build(ModelConfig, facts["architecture"], "architecture.")
        classes, named = list(map(str, facts["classes"])), facts["fingerprint"]
        size = features.num_mels, int(facts["windows"]["num_frames"])
        piece = int(facts["windows"]["piece"])
        float(facts["standardise"]["mean_db"]), float(facts["standardise"]["deviation_db"])
        thresholds = None
        if facts["multi_label"]:
            thresholds = np.array([float(facts["thresholds"][name]) for name in classes])
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"model={folder}: model.json is damaged ({type(error).__name__}: {error})") from error
    if named != fingerprint(features):
        raise UserError(
            f"model={folder}: trained on features {named}, these settings give {fingerprint(features)}; train it again with this version"
        )
    try:
        model = build_model(architecture, len(classes), 0, size, piece)
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"model={folder}: its weights do not fit its architecture ({str(error).splitlines()[0]})"
        ) from error
    return ModelFolder(model, classes, features, facts, thresholds)
