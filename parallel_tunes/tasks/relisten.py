"""Re-listen: whether a user listens to a song again, learnt by a network from tables of listens."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from parallel_tunes.config_listens import EvaluateListensJob, ListenFeaturesConfig, RelistenJob, RelistenModelConfig
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.causal import CausalState
from parallel_tunes.data.listen_columns import WORDS_OF
from parallel_tunes.data.listens import Listens
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build, to_plain
from parallel_tunes.tasks import listen_judging as judging
from parallel_tunes.tasks.listen_plan import ListenPlan, keys_of, plan
from parallel_tunes.tasks.listen_source import ListenSource
from parallel_tunes.tasks.seeds import Fitted, describe_training, fit_seeds
from parallel_tunes.train import relisten_model, trainer
from parallel_tunes.train.gradient import learning_rate, scale_lr
from parallel_tunes.train.relisten_learner import FrozenListens, RelistenLearner
from parallel_tunes.train.stopwatch import Stopwatch

REFUSED = {"compile": False, "weight_decay": 0.0}  # what only task=genre has


def make_plan(cfg: RelistenJob, listens: Listens) -> ListenPlan:
    """What a job's training is made of."""
    return plan(listens, cfg.split, cfg.features, cfg.model)


def begin(
    cfg: RelistenJob, made: ListenPlan, mesh: Mesh, *, batch: int, seed: int
) -> tuple[ListenSource, RelistenLearner]:
    """The data and the learner of a training, before its first step.

    Raises:
        UserError: a key that only genre models have.
    """
    if cfg.train.ema or cfg.train.label_smoothing:
        raise UserError("train.ema, train.label_smoothing: only task=genre has them; leave them 0")
    source = ListenSource(made, mesh, batch=batch, seed=seed)
    model = relisten_model.build(cfg.model, made.sizes, seed)
    model.describe("user", made.users.codes, made.users.numbers)
    model.describe("song", made.songs.codes, made.songs.numbers)
    total_steps, highest = cfg.train.num_epochs * source.num_steps, scale_lr(cfg.train, batch)
    learner = RelistenLearner(
        model, mesh, learning_rate=lambda step: learning_rate(cfg.train, highest, step, total_steps),
        precision=cfg.train.precision, accumulate=cfg.train.accumulate,
    )  # fmt: skip
    return source, learner


def train(cfg: RelistenJob, listens: Listens, mesh: Mesh, run: Run) -> dict[str, Any] | None:
    """Train each seed, judge it by the test rows and write the model folder: the best seed's by validation.

    Returns:
        The report's facts; None when asked to stop.
    """
    check(cfg)
    more = [name for name in ("profile", "timing") if getattr(cfg.train, name)]
    watch = Stopwatch("data", "compute", "comm", "eval", "checkpoint", *more)
    made = make_plan(cfg, listens)
    watch.lap("data")
    say_plan(cfg, made, mesh, run)
    fitted = fit_seeds(
        cfg.train, mesh, run, watch, name=cfg.model.name, digest=made.digest, begin=partial(begin, cfg, made),
        find_batch=lambda chosen: chosen or int(cfg.train.batch), test=made.rows["test"],
    )  # fmt: skip
    if fitted is None:
        return None
    facts = {
        "data": {"index_digest": made.digest, "split": to_plain(cfg.split)},
        "features": to_plain(cfg.features),
        "architecture": to_plain(cfg.model),
        "training": fitted.summary,
    }
    mesh.on_first(
        lambda: relisten_model.save(run, fitted.best["weights"], dictionary_of(made, cfg.features), made.sizes, facts)
    )
    return {
        "task": "relisten",
        "metrics": summarise(cfg, made, fitted),
        "front_end": listens.manifest["digest"],
        "classes": judging.CLASSES,
        **describe(made, cfg.features, cfg.task.resamples),
        **describe_training(cfg.train, fitted, mesh, run, watch),
    }


def check(cfg: RelistenJob) -> None:
    """Refuse what a re-listen training does not have.

    Raises:
        UserError: such a key is set.
    """
    for name, usual in REFUSED.items():
        if getattr(cfg.train, name) != usual:
            raise UserError(f"train.{name}: task=relisten has no such thing; leave it out")
    if cfg.train.batch == "auto":
        raise UserError("train.batch=auto: task=relisten takes a number of rows, 65536 say")
    if len(set(cfg.train.seeds)) < len(cfg.train.seeds):
        raise UserError(f"train.seeds={list(cfg.train.seeds)}: a seed is listed twice")


def say_plan(cfg: RelistenJob, made: ListenPlan, mesh: Mesh, run: Run) -> None:
    """The split in a line, and what was noticed.

    Raises:
        UserError: more ranks than training rows.
    """
    num_train = len(made.rows["train"])
    if mesh.world_size > num_train:
        raise UserError(f"{mesh.world_size} ranks for {num_train} training rows: start at most {num_train}")
    if made.kind == "random":
        run.warn(
            "split=random mixes past and future: rows of a user's later days help to tell earlier ones; split=time does not"
        )
    if cfg.features.kind == "transductive":
        run.warn("features=transductive counts rows that come later, which no service can")
    sizes = ", ".join(f"{len(part)} {name}" for name, part in made.rows.items())
    test = made.rows["test"]
    if len(test):
        cold = [100 * float((~made.is_known(kind)[test]).mean()) for kind in ("user", "song")]
        sizes += f" rows, of whose test {cold[0]:.1f} % have an unseen user, {cold[1]:.1f} % an unseen song"
    run.log(f"{made.kind} split: {sizes}; {len(made.sizes.columns)} columns, {len(made.number_names)} numbers a row")


def summarise(cfg: RelistenJob, made: ListenPlan, fitted: Fitted) -> dict[str, Any]:
    """metrics: each split's figures; with several seeds the mean of the single models, the ensemble beside it."""
    rows = made.rows["test"]
    trained: dict[str, Any] = {name: fitted.best[name] for name in ("train", "valid")}
    if not len(rows):
        return {**trained, "test": None}
    answers = [judged.probabilities[:, 1] for judged in fitted.judged]
    single = [judging.judge(made, rows, given, cfg.task.resamples) for given in answers]
    test = single[0]
    if len(single) > 1:
        seeds = [str(seed) for seed in cfg.train.seeds]
        for name in ("accuracy", "auc", "loss", "brier", "precision", "recall"):
            figures = [found[name] for found in single]
            if any(found[f"{name}_ci95"] is None for found in single):
                continue  # undefined of one of them, such as the AUC of rows that all have the same target
            ends = np.mean([found[f"{name}_ci95"] for found in single], axis=0).tolist()
            test |= {name: float(np.mean(figures)), f"{name}_ci95": ends}
            test[f"{name}_seeds"] = dict(zip(seeds, figures, strict=True))
        test["ensemble"] = judging.judge(made, rows, np.mean(answers, axis=0), cfg.task.resamples)
    slices = judging.judge_slices(made, rows, np.mean(answers, axis=0), cfg.task.resamples, cfg.task.warm)
    return {**trained, "test": test | {"slices": slices}}


def describe(made: ListenPlan, features: ListenFeaturesConfig, num_resamples: int) -> dict[str, Any]:
    """Of the split and of what the network takes, for the report."""
    rows = made.rows["test"]
    return {
        "split": {"kind": made.kind, "rows": {name: len(part) for name, part in made.rows.items()}},
        "share_again": {
            name: float(made.targets[part].mean()) if len(part) else None for name, part in made.rows.items()
        },
        "features": to_plain(features) | {"numbers": list(made.number_names)},
        "columns": dict(zip(made.column_names, made.sizes.columns, strict=True)),
        "tables": {name: num for name, num in made.listens.manifest.items() if name.startswith("num_")},
        "baselines": judging.judge_baselines(made, rows, num_resamples, features.smoothing) if len(rows) else None,
    }


def dictionary_of(made: ListenPlan, features: ListenFeaturesConfig) -> relisten_model.Dictionary:
    """What serves the model besides its weights."""
    listens, num = made.listens, made.listens.num_labelled
    lookups = {**made.users.lookups, **made.songs.lookups, **made.own_lookups}
    state = None
    if features.kind != "static":
        keys = keys_of(listens, slice(0, num))
        state = CausalState.after(*keys, made.targets, smoothing=features.smoothing, delay=features.delay)
    vocabularies = {name: WORDS_OF.get(name, name) for name in lookups}
    words = {name: listens.words(name) for name in sorted(set(vocabularies.values()))}
    artist = np.asarray(listens.songs["artist"], np.int32)
    return relisten_model.Dictionary(words, lookups, vocabularies, artist, made.scale.center, made.scale.scale, state)


def plan_again(folder: relisten_model.RelistenFolder, listens: Listens, name: str) -> tuple[ListenPlan, Ids]:
    """What a model's training was made of, from the tables it was trained on, and the rows of one of its splits.

    Raises:
        UserError: other tables, or no rows.
    """
    facts = folder.facts
    architecture = build(RelistenModelConfig, facts["architecture"])
    made = plan(listens, build(SplitConfig, facts["data"]["split"]), folder.features, architecture)
    if made.digest != facts["data"]["index_digest"]:
        raise UserError(f"{listens.folder}: these are not the tables that the model was trained on")
    if not len(made.rows[name]):
        raise UserError(f"split {name}: the model's training left it no rows")
    return made, made.rows[name]


def evaluate(
    cfg: EvaluateListensJob, folder: relisten_model.RelistenFolder, listens: Listens, mesh: Mesh
) -> dict[str, Any]:
    """Judge a model folder by a split of the tables it was trained on, drawn as its training drew it.

    Raises:
        UserError: other tables, or no rows.
    """
    name = cfg.evaluate.split
    made, rows = plan_again(folder, listens, name)
    source = ListenSource(made, mesh, batch=len(made.rows["train"]), seed=0)
    judge = FrozenListens(folder.model, mesh.device)
    probabilities = trainer.judge(judge, source, name, mesh)[:, 1]
    found = judging.judge(made, rows, probabilities, cfg.evaluate.resamples)
    found["slices"] = judging.judge_slices(made, rows, probabilities, cfg.evaluate.resamples, cfg.evaluate.warm)
    return {
        "task": "relisten",
        "metrics": {"train": None, "valid": None, "test": None, name: found},
        "front_end": listens.manifest["digest"],
        "classes": judging.CLASSES,
        **describe(made, folder.features, cfg.evaluate.resamples),
    }
