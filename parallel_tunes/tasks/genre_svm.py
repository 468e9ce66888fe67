"""Genre from descriptors: support vector machines on a table's rows, everything fitted and chosen on training tracks alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parallel_tunes.audio import front_end
from parallel_tunes.config import GenreSvmJob
from parallel_tunes.config_svm import SvmConfig
from parallel_tunes.config_tracks import HingeConfig, MarginConfig, PopularityConfig, TracksConfig
from parallel_tunes.data import descriptor_tables, splits, tables
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.data.tracks import Tracks, index_digest, read_tracks
from parallel_tunes.descriptor_names import NAMES
from parallel_tunes.files import digest_bytes
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build, defaults, to_plain
from parallel_tunes.tasks import row_leaks
from parallel_tunes.tasks.margin_fit import (
    EQUAL,
    SCORES,
    Fitted,
    Goal,
    Ground,
    Ids,
    cross_validate,
    fit,
    number_groups,
)
from parallel_tunes.tasks.popularity import describe_solution, describe_split, report_cleaning, say_case
from parallel_tunes.tasks.protocols import Case, judge, judge_baselines, resamples_of
from parallel_tunes.train import margin_model
from parallel_tunes.train.back_ends import check_learner
from parallel_tunes.train.components import find_components
from parallel_tunes.train.margin import Stopped
from parallel_tunes.train.stopwatch import Stopwatch, describe_cost

TWINS = "tracks with the very same numbers"


def holds_rows(root: Path | None, features: tuple[str, ...]) -> bool:
    """Whether this is a table of descriptors or a preprocess run, rather than audio or a list of it."""
    if root is None or root.is_dir():
        return root is not None and descriptor_tables.is_run(root)
    if root.suffix.lower() not in tables.ENDINGS or not root.is_file():
        return False
    header = set(tables.read_header(root))
    return bool(header & {*NAMES, *features}) or not {"path", "label"} <= header


def train(cfg: GenreSvmJob, root: Path, mesh: Mesh, run: Run) -> dict[str, Any] | None:
    """Learn genres from a table, or a preprocess run, of descriptors, and judge by the splits.

    Fits take seconds: one that is stopped begins again, and ends with the same bits.

    Returns:
        The report's facts and, under `table`, the answers on the tracks that are judged by; None when asked to stop.
    """
    try:
        return _train(cfg, root, mesh, run)
    except Stopped:
        return None


def _train(cfg: GenreSvmJob, root: Path, mesh: Mesh, run: Run) -> dict[str, Any]:
    learner = to_margins(cfg.learner)
    check_learner(learner)
    watch = Stopwatch("data", "compute", "comm", "eval", "checkpoint")
    of_table, task = to_table_configs(cfg, root)
    tracks = read_tracks(of_table, task)
    watch.lap("data")
    report_cleaning(tracks, run)
    case = make_case(cfg, learner, tracks, mesh, run)
    say_case(case, run)
    fitted_at = time.perf_counter()
    case, made = choose(case, cfg.learner)
    fit_s = time.perf_counter() - fitted_at
    shown = "test" if len(case.rows["test"]) else "valid" if len(case.rows["valid"]) else "train"
    draws = {name: resamples_of(case, tracks, rows, cfg.task.resamples) for name, rows in case.rows.items()}
    judged = {
        name: judge(made.model, case.ground.features, case.goal, rows, draws[name]) if len(rows) else None
        for name, rows in case.rows.items()
    }
    beside = replace(case, rows=case.rows | {"test": case.rows[shown]})
    facts = {
        **describe(cfg, case, made, tracks, fit_s=fit_s),
        "split": {"name": shown, **describe_split(case, tracks)},
        "baselines": judge_baselines(beside, tracks, draws[shown]),
    }
    save(cfg, case, made, tracks, task, judged, root, run)
    watch.lap("compute")
    return {
        **facts,
        "metrics": judged,
        **describe_cost(watch, mesh),
        "table": tabulate(made, case, tracks, case.rows[shown]),
    }


def to_table_configs(cfg: GenreSvmJob, root: Path) -> tuple[TracksConfig, PopularityConfig]:
    """How a table of tracks is read of which the genre is learnt; rows that hold no numbers are left out and counted."""
    of_table = {"root": str(root), "drop_bad": True, "max_mib": cfg.data.max_mib}
    of_task = {"target": "genre", "features": list(cfg.task.features), "resamples": cfg.task.resamples}
    return (
        build(TracksConfig, defaults("data", "spotify") | of_table),
        build(PopularityConfig, defaults("task", "popularity") | of_task),
    )


def to_margins(cfg: SvmConfig) -> MarginConfig:
    """The solver of linear machines that a config means."""
    names = ("folds", "tolerance", "max_s", "seed")
    values = defaults("learner", cfg.back_end) | {name: getattr(cfg, name) for name in names}
    candidates = cfg.candidates if isinstance(cfg.C, str) else (cfg.C,)
    return build(MarginConfig, values | {"candidates": candidates})


def deal(tracks: Tracks, cfg: Any) -> splits.Split:
    """Draw a split, of each genre alike; twins are tracks whose numbers are the same."""
    signs = [digest_bytes(row.tobytes()) for row in np.ascontiguousarray(tracks.features)]
    return splits.draw(tracks.frame.assign(label=tracks.frame["label"].fillna(""), hash=signs), cfg, twins=TWINS)


def make_case(cfg: GenreSvmJob, learner: MarginConfig, tracks: Tracks, mesh: Mesh, run: Run) -> Case:
    """Draw the split; the genres are those of the training tracks, and tracks of no other are judged.

    Raises:
        UserError: there are no labels, or the training tracks have one alone.
    """
    labels = tracks.frame["label"]
    if not labels.notna().any():
        raise UserError("task=genre: the table has no column label or genre")
    drawn, found = row_leaks.guard(
        deal(tracks, cfg.split), tracks.features, tracks.frame, cfg.data.leaks, run, is_told=True
    )
    classes = sorted(set(labels.iloc[drawn.rows["train"]].dropna()))
    if len(classes) < 2:
        raise UserError(f"task=genre: the training tracks have {len(classes)} genres, two are needed at least")
    numbers = {label: number for number, label in enumerate(classes)}
    values = np.array([numbers.get(label, -1) for label in labels], np.float64)
    rows = {name: part[values[part] >= 0] for name, part in drawn.rows.items()}
    model = build(
        HingeConfig, defaults("model", "hinge") | {"C": cfg.learner.C, "class_weight": cfg.learner.class_weight}
    )
    groups = number_groups(tracks.frame) if drawn.kind == "grouped" else None
    ground = Ground(
        tracks.features, tracks.names, model, learner, mesh, lambda: run.should_stop, groups, pca=cfg.learner.pca
    )
    return Case(drawn.kind, rows, Goal("genre", values, classes), ground, drawn, int((values < 0).sum()), found)


def choose(case: Case, cfg: SvmConfig) -> tuple[Case, Fitted]:
    """Fit on the training tracks, C and gamma chosen by cross-validation inside them; calibrate on the validation tracks.

    Of settings that do as well but for the third digit, the smoothest is taken: the smallest gamma, then the smallest C.
    """
    train, valid = case.rows["train"], case.rows["valid"]
    describe_components(case)  # what cannot be had is said here; folds that cannot be learnt from are passed over
    gammas: tuple[float | None, ...] = (None,)
    if cfg.kernel == "rbf":
        gammas = tuple(sorted(cfg.gammas)) if isinstance(cfg.gamma, str) else (cfg.gamma,)
    grounds = [replace(case.ground, gamma=gamma) for gamma in gammas]
    found: list[dict[str, Any]] = []
    if isinstance(cfg.C, str) or len(grounds) > 1:
        looked_at = _draw_some(train, cfg)
        for ground in grounds:
            found += [{"gamma": ground.gamma, **row} for row in cross_validate(ground, case.goal, looked_at)]
    best = max((row["score"] for row in found), default=0.0)
    first: dict[str, Any] = next(
        (row for row in found if row["score"] >= best - EQUAL), {"gamma": gammas[0], "C": cfg.C}
    )
    case = replace(case, ground=replace(case.ground, gamma=first["gamma"]))
    made = fit(case.ground, case.goal, train, valid, C=first["C"])
    return case, replace(made, candidates=found)


def _draw_some(train: Ids, cfg: SvmConfig) -> Ids:
    rng = np.random.Generator(np.random.Philox(key=cfg.seed))
    return train if len(train) <= cfg.search_rows else np.sort(rng.choice(train, cfg.search_rows, replace=False))


def describe(cfg: GenreSvmJob, case: Case, made: Fitted, tracks: Tracks, *, fit_s: float) -> dict[str, Any]:
    """What was learnt, and how."""
    learner, num_train = cfg.learner, len(case.rows["train"])
    is_linear = learner.kernel == "linear"
    return {
        "task": "genre",
        "learner": "svm",
        "target": "genre",
        "machine": f"support vector machines, one genre against the rest, {learner.kernel} kernel",
        "classes": case.goal.classes,
        "features": case.ground.names,
        "score": SCORES["genre"],
        "solver": {
            "learner": learner.back_end if is_linear else "sklearn", "kernel": learner.kernel,
            "solver": case.ground.learner.solver if is_linear else "svc", "loss": case.ground.model.loss,
            "C": made.C, "gamma": case.ground.gamma, "tolerance": learner.tolerance, "candidates": made.candidates,
            "solutions": [describe_solution(solution) for solution in made.solutions], "fit_s": round(fit_s, 3),
        },
        "pca": describe_components(case),
        "samples_per_s": round(num_train / max(fit_s, 1e-9), 1),
        "global_batch": num_train,
        "steps": sum(solution.iterations for solution in made.solutions),
        "front_end": made.model.fingerprint,
        "cleaning": tracks.report,
        "leaks": case.leaks,
    }  # fmt: skip


def describe_components(case: Case) -> dict[str, Any] | None:
    """Principal components of the training tracks, and the share of the variance along each that is kept.

    Raises:
        UserError: there are not so many.
    """
    if case.ground.pca is None:
        return None
    rows = case.ground.features[case.rows["train"]]
    deviations = rows.std(0)
    found = find_components((rows - rows.mean(0)) / np.where(deviations > 0, deviations, 1), case.ground.pca)
    kept = found.shares[: len(found.directions)]
    return {
        "num_components": len(kept),
        "explained_variance": kept.tolist(),
        "explained_variance_sum": float(kept.sum()),
    }


def save(
    cfg: GenreSvmJob, case: Case, made: Fitted, tracks: Tracks, task: PopularityConfig, judged: dict[str, Any],
    root: Path, run: Run,
) -> None:  # fmt: skip
    """Write the model folder; of a preprocess run with its front end, by which audio can be asked about."""
    valid = judged["valid"]
    features = ShardSet(root).manifest["features"] if descriptor_tables.is_run(root) else None
    facts = {
        "threshold": None,
        "data": {
            "index_digest": index_digest(tracks),
            "split": to_plain(replace(cfg.split, kind=case.kind)),
            "group": "linked",
        },
        "settings": to_plain(task),
        "audio": features,
        "audio_fingerprint": front_end.fingerprint(front_end.restore(features)) if features else None,
        "training": {
            "kernel": cfg.learner.kernel, "C": made.C, "gamma": case.ground.gamma, "pca": cfg.learner.pca,
            "valid": {name: valid[name] for name in ("accuracy", "n")} if valid else {},
        },
    }  # fmt: skip
    margin_model.save(run, made.model, facts, task="genre_svm")


def tabulate(made: Fitted, case: Case, tracks: Tracks, rows: Ids) -> pd.DataFrame:
    """A row a track: id, what is true and what the model says."""
    features = case.ground.features[rows]
    labels, chances = made.model.labels(features), made.model.probabilities(features)
    return tracks.frame.iloc[rows][["id", "label"]].assign(
        predicted=[case.goal.classes[label] for label in labels],
        probability=chances[np.arange(len(labels)), labels].round(6),
    )
