"""What a genre training is made of: split, labels, scaler and windows, decided before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.config import FeaturesConfig, TrainJob
from parallel_tunes.config_train import AugmentConfig, TaskConfig
from parallel_tunes.data import label_sets, splits
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.files import digest_json
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, to_plain
from parallel_tunes.tasks import leaks
from parallel_tunes.tasks.crops import CropSource
from parallel_tunes.tasks.resident import Resident
from parallel_tunes.train import augment


def crop_frames(task: TaskConfig, features: FeaturesConfig) -> int:
    """Frames of a crop of task.crop_s."""
    default_s = features.picture_s / 4 if features.kind == "picture" else 3.0
    return max(round((task.crop_s or default_s) * front_end.frames_per_s(features)), 8)


def window_frames(cfg: TrainJob, features: FeaturesConfig, longest: int) -> int:
    """Frames of a window that is judged, task.window_s of them where the model can make use of more than a crop.

    Args:
        longest: frames of the longest track; no window is longer, unless a crop is.

    Raises:
        UserError: the model cannot.
    """
    task, crop = cfg.task, crop_frames(cfg.task, features)
    if task.window_s is not None and not cfg.model.texture:
        raise UserError("task.window_s: for models with model.texture=true; others judge windows of task.crop_s")
    wanted_s = task.window_s
    if cfg.model.texture and wanted_s is None and task.crop_s is None and features.kind == "picture":
        wanted_s = features.picture_s
    wanted = crop if wanted_s is None else round(wanted_s * front_end.frames_per_s(features))
    return max(min(wanted, longest), crop)


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
    leaks: dict[str, Any]  # for the report
    resident: Resident | None  # the tracks on the GPU, where they fit there

    @property
    def digest(self) -> str:
        """Names the data and what was left out of it."""
        data = self.facts["data"]
        return digest_json([data["index_digest"], data["left_out"]]) if data["left_out"] else str(data["index_digest"])

    @property
    def multi_label(self) -> bool:
        """Whether a track may have several labels."""
        return bool(self.facts["multi_label"])

    @property
    def window_size(self) -> tuple[int, int]:
        """num_mels and num_frames of a window."""
        return self.facts["features"]["num_mels"], self.facts["windows"]["num_frames"]

    @property
    def piece(self) -> int:
        """Frames of it that a network is given at a time: those of a crop."""
        return int(self.facts["windows"]["piece"])

    def augmentation(self, cfg: AugmentConfig) -> augment.Augmentation:
        """What happens to the samples that are learnt from."""
        features = front_end.restore(self.shards.manifest["features"])
        deviation_db, window = self.facts["standardise"]["deviation_db"], self.piece
        return augment.Augmentation(
            augment.settle(cfg), front_end.definition(features), deviation_db=deviation_db, window=window
        )

    def source(self, cfg: TrainJob, mesh: Mesh, *, batch: int, seed: int) -> CropSource:
        """The data as one of the trainings sees it."""
        window, overlap = self.facts["windows"]["num_frames"], self.facts["windows"]["overlap"]
        settled = augment.settle(cfg.augment)
        reach = augment.reach(self.piece, settled)
        return CropSource(
            self.shards, self.rows, self.classes, window=window, overlap=overlap, mesh=mesh,
            batch=batch, seed=seed, mixup=settled.mixup, reach=reach,
            multi_label=self.multi_label, resident=self.resident,
        )  # fmt: skip


def plan(cfg: TrainJob, shards: ShardSet, mesh: Mesh, run: Run) -> Plan:
    """Draw the split, fit the scaler on its training part, and say what was noticed.

    Raises:
        UserError: fewer than two labels, or more ranks than training tracks, or a larger batch.
    """
    if len(set(cfg.train.seeds)) < len(cfg.train.seeds):
        raise UserError(f"train.seeds={list(cfg.train.seeds)}: a seed is listed twice")
    drawn = splits.draw(shards.index, cfg.split, multi_label=cfg.task.multi_label)
    split, found = leaks.guard(shards, drawn, cfg.data.leaks, mesh, run)
    left_out = {row for part in drawn.rows.values() for row in part.tolist()}
    left_out -= {row for part in split.rows.values() for row in part.tolist()}
    for warning in split.warnings:
        run.warn(warning)
    labels = shards.index["label"].to_numpy(object)
    for odd in label_sets.list_oddities(labels, multi_label=cfg.task.multi_label):
        run.warn(odd)
    classes = label_sets.list_classes(labels[split.rows["train"]], multi_label=cfg.task.multi_label)
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
    rows = known_rows(split.rows, labels, classes, run, multi_label=cfg.task.multi_label)
    features = front_end.restore(shards.manifest["features"])  # which tell whether they were pictures
    window = window_frames(cfg, features, int(shards.num_frames.max()))
    mean_db, deviation_db = fit_scaler(shards, rows["train"])
    leaks.check_fits(found, {"standardise": rows["train"], "classes": split.rows["train"]}, split.rows["train"], run)
    facts = {
        "task": "genre",
        "classes": classes,
        "multi_label": cfg.task.multi_label,
        "architecture": to_plain(cfg.model),
        "features": shards.manifest["features"],
        "fingerprint": shards.manifest["fingerprint"],
        "standardise": {"mean_db": mean_db, "deviation_db": deviation_db},
        "windows": {"num_frames": window, "piece": crop_frames(cfg.task, features), "overlap": cfg.task.overlap},
        "data": {
            "index_digest": shards.manifest["index_digest"],
            "split": to_plain(cfg.split),
            "left_out": sorted(left_out),
        },
    }
    sizes = ", ".join(f"{len(part)} {name}" for name, part in rows.items())
    run.log(f"{splits.say(split.kind)} split: {sizes} tracks; {len(classes)} labels")
    return Plan(shards, split, rows, classes, facts, found, Resident.where_it_fits(shards, rows, mesh.device))


def known_rows(
    rows: dict[str, Ids], labels: NDArray[np.object_], classes: list[str], run: Run, *, multi_label: bool = False
) -> dict[str, Ids]:
    """Leave out, with a warning, the tracks of whose labels the model knows none; of several, unknown ones are passed over."""
    is_known = label_sets.tabulate(labels, classes, multi_label=multi_label).max(1) > 0
    strange = {
        label for label in set(labels) if not {*label_sets.take_apart(label, multi_label=multi_label)} <= {*classes}
    }
    is_strange = np.array([label in strange for label in labels])
    known: dict[str, Ids] = {}
    for name, part in rows.items():
        known[name] = part[is_known[part]]
        for chosen, fate in (
            (part[~is_known[part]], "are left out"),
            (part[is_known[part] & (is_strange[part])], "are judged by their other labels"),
        ):
            if len(chosen):
                found = label_sets.list_classes(labels[chosen], multi_label=multi_label)
                unknown = ", ".join(label for label in found if label not in classes)
                run.warn(f"{name}: {len(chosen)} tracks with labels unknown to the model ({unknown}) {fate}")
    return known


def describe_split(made: Plan) -> dict[str, Any]:
    """How the split came out, for the report."""
    labels = made.shards.index["label"].to_numpy(object)
    held = label_sets.tabulate(labels, made.classes, multi_label=made.multi_label)
    return {
        "kind": made.split.kind,
        "tracks": {name: len(part) for name, part in made.rows.items()},
        "per_label": {
            label: {name: int(held[part, column].sum()) for name, part in made.rows.items()}
            for column, label in enumerate(made.classes)
        },
        "num_excluded": made.split.num_excluded,
        "num_dropped": made.split.num_dropped,
        "duplicates": made.split.duplicates,
        "warnings": made.split.warnings,
    }
