"""Genre: one label a track from its log-mel spectrogram; trained on random crops, judged on whole tracks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from parallel_tunes.config import EvaluateJob, SplitConfig, TrainJob
from parallel_tunes.data import splits
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build
from parallel_tunes.tasks.crops import MAX_WINDOWS, CropSource
from parallel_tunes.tasks.planning import Plan, describe_split, known_rows, plan
from parallel_tunes.train import checkpoint, memory, metrics, model_folder, tracking, trainer
from parallel_tunes.train.gradient import Frozen, GradientLearner, scale_lr
from parallel_tunes.train.profile import Profile, read_profile
from parallel_tunes.train.stopwatch import Stopwatch
from parallel_tunes.train.timing import read_timing


@dataclass(frozen=True)
class Fitted:
    """What the trainings of all seeds gave."""

    bests: list[dict[str, Any]]  # the best checkpoint of each
    judged: list[metrics.Judged]  # its answers on the test split
    batch: int
    num_steps: int
    num_parameters: int
    precision: str


def begin(cfg: TrainJob, made: Plan, mesh: Mesh, *, batch: int, seed: int) -> tuple[CropSource, GradientLearner]:
    """The data and the learner of a training, before its first step."""
    source = made.source(cfg, mesh, batch=batch, seed=seed)
    model = model_folder.build_model(cfg.model, len(made.classes), seed)
    learner = GradientLearner(
        model, cfg.train, mesh, total_steps=cfg.train.num_epochs * source.num_steps, lr=scale_lr(cfg.train, batch),
        log_mel=source.log_mel, augmentation=cfg.augment, norm=cfg.model.norm, **made.facts["standardise"],
    )  # fmt: skip
    return source, learner


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
    batch = memory.settle_batch(chosen or cfg.train.batch, parts, trial, num_train, MAX_WINDOWS)
    if cfg.train.batch == "auto":
        run.log(f"train.batch=auto: {batch}" + ("" if chosen else ", which fits into memory; this run keeps it"))
    return batch


def fit_seeds(cfg: TrainJob, made: Plan, mesh: Mesh, run: Run, watch: Stopwatch) -> Fitted | None:
    """Train each seed from where the run is, and judge its best model by the test split; None when asked to stop."""
    digest = made.facts["data"]["index_digest"]
    state = checkpoint.resume(run, mesh, digest)
    progress = trainer.Progress(**state["progress"]) if state else trainer.Progress()
    progress.batch = find_batch(cfg, made, mesh, run, progress.batch)
    run.cut_rows(progress.num_rows)
    progress.run_ids = tracking.follow(cfg.train, run, mesh, progress.run_ids)
    profile = Profile(cfg.train, mesh, run, watch)
    bests, judged = [], []
    for number, seed in enumerate(cfg.train.seeds):
        source, learner = begin(cfg, made, mesh, batch=progress.batch, seed=seed)
        if number == 0:
            num_parameters = sum(p.numel() for p in learner.model.parameters())
            told = f"{learner.precision} on {mesh.world_size} x {mesh.device_name}"
            run.log(f"{cfg.model.name}: {num_parameters} parameters; {told}")
        if number > progress.seed_at:
            progress, state = progress.next_seed(), None
        if number == progress.seed_at:
            fit = trainer.Trainer(
                learner, source, cfg.train, mesh, run,
                progress=progress, index_digest=digest, watch=watch, profile=profile,
            ).fit  # fmt: skip
            if not fit(state["learner"] if state else None):
                return None
        best = mesh.on_first(partial(checkpoint.load, run, f"best-{seed}.pt"))
        if best is None:
            raise UserError(f"{run.folder}/checkpoints/best-{seed}.pt is damaged: train again under another run.name")
        learner.load_weights(best["weights"])
        bests.append(best)
        answers = trainer.judge(learner, source, "test", mesh)
        judged.append(metrics.Judged(made.rows["test"], answers, source.targets("test")))
        watch.lap("eval")
    return Fitted(bests, judged, progress.batch, progress.total_step, num_parameters, learner.precision)


def train(cfg: TrainJob, shards: ShardSet, mesh: Mesh, run: Run) -> dict[str, Any] | None:
    """Train each seed, judge it by the test split and write the model folder: the best seed's by validation.

    Returns:
        The report's facts and, under `judged`, the answers on the test split; None when asked to stop.
    """
    made = plan(cfg, shards, mesh, run)
    more = [name for name in ("compile", "profile", "timing") if getattr(cfg.train, name)]
    watch = Stopwatch("data", "compute", "comm", "eval", "checkpoint", *more)
    fitted = fit_seeds(cfg, made, mesh, run, watch)
    if fitted is None:
        return None
    at = min(range(len(fitted.bests)), key=lambda at: (fitted.bests[at]["valid"] or {"loss": 0.0})["loss"])
    best, seeds = fitted.bests[at], list(cfg.train.seeds)
    summary = {"seeds": seeds, "seed": seeds[at], "epoch": best["epoch"], "valid": best["valid"]}
    model_folder.save(run, best["weights"], {**made.facts, "training": summary})
    return {
        "task": "genre",
        "metrics": summarise(made, cfg, fitted.bests, fitted.judged),
        "samples_per_s": median_rate(run),
        "global_batch": fitted.batch,
        "steps": fitted.num_steps,
        "lr": {"rule": cfg.train.lr_rule, "highest": scale_lr(cfg.train, fitted.batch)},
        "num_parameters": fitted.num_parameters,
        "precision": fitted.precision,
        "time_s": {name: round(mesh.largest(seconds), 3) for name, seconds in watch.seconds.items()},
        "peak_memory_mib": round(mesh.largest(mesh.peak_memory_mib), 1),
        "front_end": made.facts["fingerprint"],
        "classes": made.classes,
        "split": describe_split(made),
        "judged": fitted.judged,
        **read_profile(run),
        **read_timing(run),
        **({} if cfg.train.target is None else {"target": find_target(cfg.train.target, seeds, run)}),
    }


def find_target(wanted: float, seeds: list[int], run: Run) -> dict[str, Any]:
    """When each seed's validation accuracy had reached what was wanted: epochs and seconds of training; None where it never did."""
    found = dict[int, tuple[int, float]]()
    for row in run.rows():
        if row["valid"] and row["valid"]["accuracy"] >= wanted:
            found.setdefault(row["seed"], (row["epoch"] + 1, row["seconds"]))
    epochs, seconds = zip(*(found.get(seed, (None, None)) for seed in seeds), strict=True)
    return {"accuracy": wanted, "epochs": list(epochs), "seconds": list(seconds)}


def median_rate(run: Run) -> float | None:
    """Crops a second while training, the median of the epochs."""
    rates = [row["samples_per_s"] for row in run.rows()]
    return float(np.median(rates)) if rates else None


def summarise(made: Plan, cfg: TrainJob, bests: list[dict[str, Any]], judged: list[metrics.Judged]) -> dict[str, Any]:
    """metrics: each split's figures; with several seeds the mean of the single models, the ensemble beside it."""
    test = None
    if len(made.rows["test"]):
        groups = group_numbers(made.shards, made.rows["test"])
        single = [
            metrics.classification(answers.probabilities, answers.targets, made.classes, groups) for answers in judged
        ]
        test = metrics.over_seeds(single, cfg.train.seeds) if len(single) > 1 else single[0]
        if len(single) > 1:
            mean = np.mean([answers.probabilities for answers in judged], axis=0)
            test["ensemble"] = metrics.classification(mean, judged[0].targets, made.classes, groups)
    trained = {name: _mean([best[name] for best in bests]) for name in ("train", "valid")}
    return {**trained, "test": test}


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


def evaluate(
    folder: model_folder.ModelFolder, shards: ShardSet, cfg: EvaluateJob, mesh: Mesh, run: Run
) -> dict[str, Any]:
    """Judge a model folder by a split of a data set, drawn as its training drew it.

    Raises:
        UserError: other features or other data than it was trained on, or no track whose label it knows.
    """
    facts = folder.facts
    if facts["fingerprint"] != shards.manifest["fingerprint"]:
        raise UserError(
            f"data.shards={shards.folder}: made with other features than the model's; leave data.shards out to make them anew"
        )
    everything = np.arange(len(shards.index))
    name, kind = cfg.evaluate.split, "all"
    rows, warnings = {name: everything}, list[str]()
    if name != "all":
        if facts["data"]["index_digest"] != shards.manifest["index_digest"]:
            raise UserError(
                f"evaluate.split={name}: this data is not what the model was trained on; evaluate.split=all judges all of it"
            )
        drawn = splits.draw(shards.index, build(SplitConfig, facts["data"]["split"]))
        rows, kind, warnings = {name: drawn.rows[name]}, drawn.kind, drawn.warnings
    elif facts["data"]["index_digest"] == shards.manifest["index_digest"]:
        warnings = ["these tracks include those the model was trained on: the figures say nothing about others"]
    for warning in warnings:
        run.warn(warning)
    rows = known_rows(rows, shards.index["label"].to_numpy(object), folder.classes, run)
    if not len(rows[name]):
        raise UserError(
            f"evaluate.split={name}: holds no track whose label the model knows ({', '.join(folder.classes)})"
        )
    source = CropSource(
        shards, rows, folder.classes, window=facts["windows"]["num_frames"], overlap=facts["windows"]["overlap"], mesh=mesh
    )  # fmt: skip
    judge = Frozen(folder.model, mesh.device, log_mel=source.log_mel, **facts["standardise"])
    answers = metrics.Judged(rows[name], trainer.judge(judge, source, name, mesh), source.targets(name))
    found = metrics.classification(
        answers.probabilities, answers.targets, folder.classes, group_numbers(shards, rows[name])
    )
    return {
        "task": "genre",
        "metrics": {"train": None, "valid": None, "test": None, name: found},
        "split": {"name": name, "kind": kind, "warnings": warnings},
        "num_unknown": len(everything if name == "all" else drawn.rows[name]) - len(rows[name]),
        "front_end": facts["fingerprint"],
        "classes": folder.classes,
        "judged": [answers],
    }
