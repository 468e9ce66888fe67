"""A support vector machine on table columns, and its folder: what it takes, weights, and how margins become answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio.front_end import fingerprint, restore
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import model_folder
from parallel_tunes.train.calibration import to_probabilities

Floats = NDArray[np.float64]
TASKS = ("popularity", "genre_svm")  # whose models take rows of tables
CHUNK = 4096  # rows whose distances to all support vectors are held at a time


@dataclass(frozen=True)
class MarginModel:
    """One linear function of standardised features for each class, or one for two classes or a number.

    Args:
        target: binary, regression or genre.
        names: of the features.
        center, scale: (num_features,), of the training tracks.
        weights: (num_columns, num_features), for standardised features.
        bias: (num_columns,).
        classes: in the order of the columns; of binary the one below the threshold, then the one above; none for numbers.
        sigmoids: (num_columns, 2), Platt's a and b; empty for numbers.
        unit: (2,): number = unit[0] + unit[1] · margin.
    """

    target: str
    names: list[str]
    center: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    classes: list[str]
    sigmoids: Floats
    unit: Floats

    def margins(self, features: Floats) -> Floats:
        """w·x + b of raw features (num_rows, num_features), shape (num_rows, num_columns)."""
        return np.asarray((features - self.center) / self.scale @ self.weights.T + self.bias)

    def numbers(self, features: Floats) -> Floats:
        """Predictions of a regression, shape (num_rows,)."""
        return np.asarray(self.unit[0] + self.unit[1] * self.margins(features)[:, 0])

    def labels(self, features: Floats) -> NDArray[np.int64]:
        """Numbers of classes, by the largest margin, shape (num_rows,)."""
        margins = self.margins(features)
        return np.asarray((margins[:, 0] > 0).astype(np.int64) if margins.shape[1] == 1 else margins.argmax(1))

    def probabilities(self, features: Floats) -> Floats:
        """Calibrated, shape (num_rows, num_classes)."""
        return to_probabilities(self.margins(features), self.sigmoids)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The attributes that are numbers."""
        return ("center", "scale", "weights", "bias", "sigmoids", "unit")

    def tensors(self) -> dict[str, torch.Tensor]:
        """What goes into model.safetensors."""
        return {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name), np.float64)) for name in self.arrays}

    @property
    def fingerprint(self) -> str:
        """Of the columns it takes, in their order: a model never meets others."""
        return files.digest_json(["tracks", self.names])[:16]


@dataclass(frozen=True)
class KernelModel(MarginModel):
    """One function for each class, or one for two: a sum of bells around the support vectors, `weights` times each.

    Args:
        weights: (num_columns, num_support).
        components: what standardised features are projected on, (num_components, num_features).
        support: the support vectors, projected, (num_support, num_components).
        gamma: exp(−gamma · squared distance), (1,).
    """

    components: Floats
    support: Floats
    gamma: Floats

    @property
    def arrays(self) -> tuple[str, ...]:
        """The attributes that are numbers."""
        return (*super().arrays, "components", "support", "gamma")

    def margins(self, features: Floats) -> Floats:
        """Of raw features (num_rows, num_features), shape (num_rows, num_columns)."""
        found = np.empty((len(features), len(self.bias)))
        for at in range(0, len(features), CHUNK):
            rows = (features[at : at + CHUNK] - self.center) / self.scale @ self.components.T
            found[at : at + CHUNK] = to_bells(rows, self.support, float(self.gamma[0])) @ self.weights.T + self.bias
        return found


def to_bells(rows: Floats, centers: Floats, gamma: float) -> Floats:
    """exp(−gamma · squared distance) of each row to each center, shape (num_rows, num_centers)."""
    squares = (rows**2).sum(1)[:, None] + (centers**2).sum(1) - 2 * rows @ centers.T
    return np.asarray(np.exp(-gamma * np.maximum(squares, 0)))


def save(run: Run, model: MarginModel, facts: dict[str, Any], *, task: str = "popularity") -> None:
    """Write <run>/model/."""
    about = {"task": task, "target": model.target, "features": model.names, "fingerprint": model.fingerprint}
    model_folder.save(run, model.tensors(), {**about, "classes": model.classes, **facts})


def load(folder: Path | None) -> tuple[MarginModel, dict[str, Any]]:
    """A model and its model.json.

    Raises:
        UserError: it is missing, unfinished, damaged, or of another task.
    """
    facts, tensors = model_folder.read(folder)
    if facts.get("task") not in TASKS:
        raise UserError(f"model={folder}: a model of task={facts.get('task')}, which takes no table of tracks")
    try:
        arrays = {name: tensor.numpy().astype(np.float64) for name, tensor in tensors.items()}
        names, classes = list(map(str, facts["features"])), list(map(str, facts["classes"]))
        kind = KernelModel if "support" in arrays else MarginModel
        model = kind(str(facts["target"]), names, classes=classes, **arrays)
        sound = all(np.isfinite(array).all() for array in arrays.values()) and bool((model.scale > 0).all())
        if not _fits(model) or facts["fingerprint"] != model.fingerprint or not sound:
            raise ValueError("its parts do not fit together")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"model={folder}: damaged ({type(error).__name__}: {error})") from error
    return model, facts


def restore_audio(facts: dict[str, Any], folder: Path | None) -> FeaturesConfig | None:
    """How audio becomes the rows that a model takes; None where it has learnt from a table, which does not say.

    Raises:
        UserError: this version would make other numbers of it.
    """
    if not facts.get("audio"):
        return None
    try:
        features = restore(facts["audio"])
    except (TypeError, AttributeError, UserError) as error:
        raise UserError(f"model={folder}: model.json is damaged ({type(error).__name__}: {error})") from error
    if facts.get("audio_fingerprint") != fingerprint(features):
        raise UserError(f"model={folder}: trained on other descriptors than this version makes; train it again")
    return features


def _fits(model: MarginModel) -> bool:
    """Whether the shapes are those of its target, names and classes."""
    num, num_classes = len(model.names), len(model.classes)
    columns = 1 if num_classes in (0, 2) else num_classes
    width = num
    wanted: dict[str, tuple[int, ...]] = {"center": (num,), "scale": (num,), "bias": (columns,), "unit": (2,)}
    wanted["sigmoids"] = (columns if num_classes else 0, 2)
    if isinstance(model, KernelModel):
        width, num_components = len(model.support), len(model.components)
        wanted |= {"components": (num_components, num), "support": (width, num_components), "gamma": (1,)}
    wanted["weights"] = (columns, width)
    shapes = {name: getattr(model, name).shape for name in model.arrays}
    possible = {"binary": num_classes == 2, "regression": num_classes == 0, "genre": num_classes >= 2}
    return shapes == wanted and possible.get(model.target, False)
