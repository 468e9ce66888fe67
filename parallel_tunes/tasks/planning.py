"""What a genre training is made of: split, labels, scaler and windows, decided before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.config import FeaturesConfig, TrainJob
from parallel_tunes.config_train import TaskConfig
from parallel_tunes.data import splits
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, to_plain
from parallel_tunes.tasks.crops import CropSource
from parallel_tunes.tasks.resident import Resident


def window_frames(task: TaskConfig, features: FeaturesConfig) -> int:
    """Frames of a crop of task.crop_s."""
    return max(round(task.crop_s * features.sample_rate_hz / features.hop_length), 8)


def fit_scaler(shards: ShardSet, rows: Ids) -> tuple[float, float]:
    """Mean and standard deviation, in dB, of all values of the given tracks: fitted on the training split alone."""
    chosen = shards.index.iloc[rows]
    num_values = float(chosen["num_frames"].sum()) * shards.manifest["features"]["num_mels"]
    mean = chosen["db_sum"].sum() / num_values
    variance = chosen["db_square_sum"].sum() / num_values - mean**2
    return float(mean), float(np.sqrt(max(variance, 1e-6)))


@dataclass(frozen=True)
class Plan:
    """What a training is made of, decided before it starts."""

    shards: ShardSet
    split: splits.Split
    rows: dict[str, Ids]
    classes: list[str]
    facts: dict[str, Any]  # for model.json
    resident: Resident | None  # the tracks on the GPU, where they fit there

    def source(self, cfg: TrainJob, mesh: Mesh, *, batch: int, seed: int) -> CropSource:
        """The data as one of the trainings sees it."""
        window, overlap = self.facts["windows"]["num_frames"], self.facts["windows"]["overlap"]
        return CropSource(
            self.shards, self.rows, self.classes, window=window, overlap=overlap, mesh=mesh,
            batch=batch, seed=seed, mixup=cfg.augment.mixup,
            resident=self.resident,
        )  # fmt: skip


def plan(cfg: TrainJob, shards: ShardSet, mesh: Mesh, run: Run) -> Plan:
    """Draw the split, fit the scaler on its training part, and say what was noticed.

    Raises:
        UserError: fewer than two labels, or more ranks than training tracks, or a larger batch.
    """
    if len(set(cfg.train.seeds)) < len(cfg.train.seeds):
        raise UserError(f"train.seeds={list(cfg.train.seeds)}: a seed is listed twice")
    split = splits.draw(shards.index, cfg.split)
    for warning in split.warnings:
        run.warn(warning)
    labels = shards.index["label"].to_numpy(object)
    classes = sorted(set(labels[split.rows["train"]]))
    if len(classes) < 2:
        raise UserError(f"all training tracks have the label {classes[0]!r}: a genre model needs at least two labels")
    num_train = len(split.rows["train"])
    if mesh.world_size > num_train:
        raise UserError(f"{mesh.world_size} ranks for {num_train} training tracks: start at most {num_train}")
    batch = cfg.train.batch
    if isinstance(batch, int) and batch > len(labels):
        raise UserError(f"train.batch={batch}: there are {len(labels)} tracks; take as many at most")
    if isinstance(batch, int) and batch > num_train:
        run.warn(f"train.batch={batch}: there are {num_train} training tracks, which all make one batch")
    rows = known_rows(split.rows, labels, classes, run)
    mean_db, deviation_db = fit_scaler(shards, rows["train"])
    facts = {
        "task": "genre",
        "classes": classes,
        "architecture": to_plain(cfg.model),
        "features": shards.manifest["features"],
        "fingerprint": shards.manifest["fingerprint"],
        "standardise": {"mean_db": mean_db, "deviation_db": deviation_db},
        "windows": {"num_frames": window_frames(cfg.task, cfg.features), "overlap": cfg.task.overlap},
        "data": {"index_digest": shards.manifest["index_digest"], "split": to_plain(cfg.split)},
    }
    sizes = ", ".join(f"{len(part)} {name}" for name, part in rows.items())
    run.log(f"{split.kind} split: {sizes} tracks; {len(classes)} labels")
    return Plan(shards, split, rows, classes, facts, Resident.where_it_fits(shards, rows, mesh.device))


def known_rows(rows: dict[str, Ids], labels: NDArray[np.object_], classes: list[str], run: Run) -> dict[str, Ids]:
    """Leave out, with a warning, the tracks whose label the model does not know."""
    known: dict[str, Ids] = {}
    for name, part in rows.items():
        is_known = np.isin(labels[part].astype(str), classes)
        known[name] = part[is_known]
        if not is_known.all():
            strange = ", ".join(sorted(set(labels[part[~is_known]])))
            run.warn(
                f"{name}: {int((~is_known).sum())} tracks with labels unknown to the model ({strange}) are left out"
            )
    return known


def describe_split(made: Plan) -> dict[str, Any]:
    """How the split came out, for the report."""
    labels = made.shards.index["label"].to_numpy(object)
    return {
        "kind": made.split.kind,
        "tracks": {name: len(part) for name, part in made.rows.items()},
        "per_label": {
            label: {name: int((labels[part] == label).sum()) for name, part in made.rows.items()}
            for label in made.classes
        },
        "num_excluded": made.split.num_excluded,
        "num_dropped": made.split.num_dropped,
        "duplicates": made.split.duplicates,
        "warnings": made.split.warnings,
    }
