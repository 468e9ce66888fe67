"""Genre: one label a track from its log-mel spectrogram; trained on random crops, judged on whole tracks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parallel_tunes.config import EvaluateJob, TrainJob
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import splits
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.models.residual_cnn import find_texture
from parallel_tunes.models.texture import Texture
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build
from parallel_tunes.tasks.crops import CropSource
from parallel_tunes.tasks.examples import alter_crop
from parallel_tunes.tasks.planning import Plan, describe_split, known_rows, plan
from parallel_tunes.tasks.seeds import Fitted, describe_training, fit_seeds
from parallel_tunes.train import augment, memory, metrics, model_folder, multi_label, trainer
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.gradient import GradientLearner, scale_lr
from parallel_tunes.train.stopwatch import Stopwatch

NUM_MEASURED = 1024  # windows, by which a texture's mean is known well enough
Thresholds = NDArray[np.float64]  # (num_classes,)


def begin(cfg: TrainJob, made: Plan, mesh: Mesh, *, batch: int, seed: int) -> tuple[CropSource, GradientLearner]:
    """The data and the learner of a training, before its first step."""
    source = made.source(cfg, mesh, batch=batch, seed=seed)
    model = model_folder.build_model(cfg.model, len(made.classes), seed, made.window_size, made.piece)
    texture = find_texture(model)
    if texture:
        texture.middle.copy_(average_texture(texture.measure, made, source))
    learner = GradientLearner(
        model, cfg.train, mesh, total_steps=cfg.train.num_epochs * source.num_steps, lr=scale_lr(cfg.train, batch),
        log_mel=source.log_mel, augmentation=made.augmentation(cfg.augment), norm=cfg.model.norm,
        multi_label=made.multi_label, **made.facts["standardise"],
    )  # fmt: skip
    return source, learner


@torch.no_grad()
def average_texture(measure: Texture, made: Plan, source: CropSource) -> Tensor:
    """The mean of a texture's values over windows of training tracks, (num_values,): of all, or some that are drawn."""
    frozen = Frozen(
        nn.Identity(), source.mesh.device, dtype=torch.float64, log_mel=source.log_mel, **made.facts["standardise"]
    )
    found, num = list[Tensor](), 0
    for track in np.random.default_rng(0).permutation(len(made.rows["train"])).tolist():
        for _, inputs in source.windows("train", track, track + 1):
            found.append(measure(frozen.standardise(inputs)))
            num += len(found[-1])
        if num >= NUM_MEASURED:
            break
    return torch.cat(found).mean(0)


def find_batch(cfg: TrainJob, made: Plan, mesh: Mesh, run: Run, chosen: int) -> int:
    """The global batch; steps of a learner on each rank alone show first that it fits into memory.

    Args:
        chosen: by an earlier start of this run; 0 if this is the first.

    Raises:
        UserError: it does not fit.
    """
    plain = replace(cfg, train=replace(cfg.train, accumulate=1, compile=False))
    source, learner = begin(plain, made, mesh.apart(), batch=1, seed=cfg.train.seeds[0])
    trial = memory.Trial(learner, next(source.train(0, 0)), mesh)
    num_train, parts = len(made.rows["train"]), cfg.train.accumulate
    batch = memory.settle_batch(chosen or cfg.train.batch, parts, trial, num_train, source.num_at_once)
    if cfg.train.batch == "auto":
        run.log(f"train.batch=auto: {batch}" + ("" if chosen else ", which fits into memory; this run keeps it"))
    return batch


def train(cfg: TrainJob, shards: ShardSet, mesh: Mesh, run: Run) -> dict[str, Any] | None:
    """Train each seed, judge it by the test split and write the model folder: the best seed's by validation.

    Returns:
        The report's facts and, under `judged`, the answers on the test split, under `examples` crops to be shown; None when asked
        to stop.
    """
    made = plan(cfg, shards, mesh, run)
    more = [name for name in ("compile", "profile", "timing") if getattr(cfg.train, name)]
    watch = Stopwatch("data", "compute", "comm", "eval", "checkpoint", *more)
    fitted = fit_seeds(
        cfg.train, mesh, run, watch, name=cfg.model.name, digest=made.digest,
        begin=partial(begin, cfg, made), find_batch=partial(find_batch, cfg, made, mesh, run), test=made.rows["test"],
        valid=made.rows["valid"] if made.multi_label else None,
    )  # fmt: skip
    if fitted is None:
        return None
    thresholds = [multi_label.choose_thresholds(each.probabilities, each.targets) for each in fitted.validated]
    chosen = describe_thresholds(made, thresholds[fitted.best_at]) if thresholds else {}
    model_folder.save(run, fitted.best["weights"], {**made.facts, **chosen, "training": fitted.summary})
    return {
        "task": "genre",
        "metrics": summarise(made, cfg, fitted, thresholds),
        **chosen,
        "front_end": made.facts["fingerprint"],
        "classes": made.classes,
        "split": describe_split(made),
        "leaks": made.leaks,
        "augmentation": augment.list_on(cfg.augment),
        "num_multiply_adds": model_folder.count_multiply_adds(
            cfg.model, len(made.classes), made.window_size, made.piece
        ),
        "judged": fitted.judged,
        "examples": alter_crop(cfg, made, mesh) if mesh.is_first else {},
        **describe_training(cfg.train, fitted, mesh, run, watch),
    }


def describe_thresholds(made: Plan, thresholds: Thresholds) -> dict[str, Any]:
    """Thresholds, and by how many tracks they were chosen, for model.json and the report."""
    named = dict(zip(made.classes, thresholds.tolist(), strict=True))
    return {"thresholds": named, "thresholds_chosen_by": {"split": "valid", "n": len(made.rows["valid"])}}


def summarise(made: Plan, cfg: TrainJob, fitted: Fitted, thresholds: list[Thresholds]) -> dict[str, Any]:
    """metrics: each split's figures; with several seeds the mean of the single models, the ensemble beside it.

    Args:
        thresholds: of each model, where a track may have several labels.
    """
    test = None
    if len(made.rows["test"]):
        groups = group_numbers(made.shards, made.rows["test"])
        own: list[Thresholds | None] = [*thresholds] or [None] * len(fitted.judged)
        single = [judge(*each, made.classes, groups) for each in zip(fitted.judged, own, strict=True)]
        over = multi_label.over_seeds if thresholds else metrics.over_seeds
        test = over(single, cfg.train.seeds) if len(single) > 1 else single[0]
        if len(single) > 1:
            chosen = None
            if thresholds:
                validated = metrics.average(fitted.validated)
                chosen = multi_label.choose_thresholds(validated.probabilities, validated.targets)
            test["ensemble"] = judge(metrics.average(fitted.judged), chosen, made.classes, groups)
    trained = {name: _mean([best[name] for best in fitted.bests]) for name in ("train", "valid")}
    return {**trained, "test": test}


def judge(
    answers: metrics.Judged, thresholds: Thresholds | None, classes: list[str], groups: Ids | None
) -> dict[str, Any]:
    """What answers are worth; with `thresholds` those of tracks that may have several labels."""
    if thresholds is None:
        return metrics.classification(answers.probabilities, answers.targets, classes, groups)
    return multi_label.judge_sets(answers.probabilities, answers.targets, classes, thresholds, groups)


def group_numbers(shards: ShardSet, rows: Ids) -> Ids | None:
    """Numbers of the groups (artists) of some tracks, where groups are known."""
    if not shards.index["group"].notna().any():
        return None
    groups = shards.index["group"].where(shards.index["group"].notna(), shards.index["path"])
    return np.unique(groups.iloc[rows].to_numpy(str), return_inverse=True)[1].astype(np.int64)


def _mean(figures: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Mean loss and accuracy over seeds."""
    present = [figure for figure in figures if figure]
    if not present:
        return None
    means = {name: float(np.mean([figure[name] for figure in present])) for name in ("loss", "accuracy")}
    return {**means, "n": present[0]["n"]}


def check_features(facts: dict[str, Any], shards: ShardSet) -> None:
    """Raise a UserError where shards have other features than a model was trained on."""
    if facts["fingerprint"] == shards.manifest["fingerprint"]:
        return
    kinds = [holder["features"]["kind"] == "picture" for holder in (facts, shards.manifest)]
    if kinds[0] != kinds[1]:
        learnt, given = ("pictures" if is_picture else "audio" for is_picture in kinds)
        raise UserError(f"the model was trained on {learnt}, and these tracks are {given}: give it its own kind")
    raise UserError(
        f"data.shards={shards.folder}: made with other features than the model's; leave data.shards out to make them anew"
    )


def choose_tracks(
    folder: model_folder.ModelFolder, shards: ShardSet, name: str, run: Run, key: str = "evaluate.split"
) -> tuple[Ids, int, dict[str, Any]]:
    """The rows of a split of a data set, drawn as a model's training drew it; how many more have labels unknown to the model; and
    of the split its `name`, `kind` and `warnings`.

    Args:
        name: of the split, or all.
        key: that says which.

    Raises:
        UserError: other features or other data than it was trained on, or no track whose label it knows.
    """
    facts = folder.facts
    check_features(facts, shards)
    rows, kind, warnings = np.arange(len(shards.index)), "all", list[str]()
    if name != "all":
        if facts["data"]["index_digest"] != shards.manifest["index_digest"]:
            raise UserError(f"{key}={name}: this data is not what the model was trained on; {key}=all judges all of it")
        drawn = splits.draw(shards.index, build(SplitConfig, facts["data"]["split"]), multi_label=folder.multi_label)
        left_out = facts["data"].get("left_out", [])  # models of before leaks were dropped have none
        rows = np.setdiff1d(drawn.rows[name], np.array(left_out, np.int64), assume_unique=True)
        kind, warnings = drawn.kind, drawn.warnings
    elif facts["data"]["index_digest"] == shards.manifest["index_digest"]:
        warnings = ["these tracks include those the model was trained on: the figures say nothing about others"]
    if name == "valid" and folder.multi_label:
        warnings = [
            *warnings,
            "the thresholds were chosen by these tracks: what depends on them is better here than on others",
        ]
    for warning in warnings:
        run.warn(warning)
    labels = shards.index["label"].to_numpy(object)
    known = known_rows({name: rows}, labels, folder.classes, run, multi_label=folder.multi_label)[name]
    if not len(known):
        raise UserError(f"{key}={name}: holds no track whose label the model knows ({', '.join(folder.classes)})")
    return known, len(rows) - len(known), {"name": name, "kind": kind, "warnings": warnings}


def evaluate(
    folder: model_folder.ModelFolder, shards: ShardSet, cfg: EvaluateJob, mesh: Mesh, run: Run
) -> dict[str, Any]:
    """Judge a model folder by a split of a data set, drawn as its training drew it.

    Raises:
        UserError: other features or other data than it was trained on, or no track whose label it knows.
    """
    facts, name = folder.facts, cfg.evaluate.split
    chosen, num_unknown, split = choose_tracks(folder, shards, name, run)
    rows = {name: chosen}
    source = CropSource(
        shards, rows, folder.classes, window=facts["windows"]["num_frames"], overlap=facts["windows"]["overlap"], mesh=mesh,
        multi_label=folder.multi_label,
    )  # fmt: skip
    frozen = Frozen(
        folder.model, mesh.device, log_mel=source.log_mel, multi_label=folder.multi_label, **facts["standardise"]
    )
    answers = metrics.Judged(rows[name], trainer.judge(frozen, source, name, mesh), source.targets(name))
    found = judge(answers, folder.thresholds, folder.classes, group_numbers(shards, rows[name]))
    return {
        "task": "genre",
        "metrics": {"train": None, "valid": None, "test": None, name: found},
        "split": split,
        "num_unknown": num_unknown,
        "front_end": facts["fingerprint"],
        "classes": folder.classes,
        **{key: facts[key] for key in ("thresholds", "thresholds_chosen_by") if key in facts},
        "judged": [answers],
    }
