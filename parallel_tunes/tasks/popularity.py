"""Popularity: what makes a track popular, or of which genre it is, told from a table by a linear support vector machine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from parallel_tunes.config_tracks import PopularityJob
from parallel_tunes.data import splits
from parallel_tunes.data.tracks import Tracks, index_digest, read_tracks
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, to_plain
from parallel_tunes.tasks import findings
from parallel_tunes.tasks.margin_fit import SCORES, Fitted, fit, number_groups
from parallel_tunes.tasks.protocols import Case, climb_ladder, judge, judge_baselines, make_case, resamples_of
from parallel_tunes.train import margin_model
from parallel_tunes.train.back_ends import check_learner
from parallel_tunes.train.margin import Solution, Stopped
from parallel_tunes.train.margin_model import MarginModel
from parallel_tunes.train.stopwatch import Stopwatch, describe_cost


def train(cfg: PopularityJob, mesh: Mesh, run: Run) -> dict[str, Any] | None:
    """Learn from a table of tracks, judge by its test split, and say what can be said of the features.

    Fits take seconds: one that is stopped begins again, and ends with the same bits.

    Returns:
        The report's facts and, under `table`, the answers on the test split; None when asked to stop.
    """
    try:
        return _train(cfg, mesh, run)
    except Stopped:
        return None


def _train(cfg: PopularityJob, mesh: Mesh, run: Run) -> dict[str, Any]:
    check_learner(cfg.learner)
    watch = Stopwatch("data", "compute", "comm", "eval", "checkpoint")
    # the year is read where there is one; whether it is learnt from is each case's
    tracks = read_tracks(cfg.data, replace(cfg.task, year=False))
    watch.lap("data")
    report_cleaning(tracks, run)
    if cfg.task.year and "year" not in tracks.frame:
        raise UserError(f"task.year=true: {cfg.data.root} has no column release_date or year")
    case = make_case(cfg, tracks, mesh, run, split=cfg.split, year=cfg.task.year, leaks=cfg.data.leaks)
    say_case(case, run)
    fitted_at = time.perf_counter()
    made = fit(case.ground, case.goal, case.rows["train"], case.rows["valid"])
    fit_s = time.perf_counter() - fitted_at
    for solution in made.solutions:
        if not solution.is_certified:
            run.warn(
                f"the gap is {solution.gap:.2g} where {cfg.learner.tolerance:g} was asked for: a larger learner.max_iterations may help"
            )
    judged = _judge_splits(case, tracks, made, cfg)
    groups = number_groups(tracks.frame)
    facts = {
        **_describe(cfg, case, made, tracks, read_s=watch.seconds["data"], fit_s=fit_s),
        "baselines": _judge_baselines(case, tracks, cfg),
        "protocols": climb_ladder(cfg, tracks, mesh, run),
        "coefficients": findings.find_coefficients(
            case.ground, case.goal, made, case.rows["train"], groups, cfg.task, run
        ),
    }
    save(cfg, case, made, tracks, judged, run)
    watch.lap("compute")
    return {
        **facts,
        "metrics": judged,
        **describe_cost(watch, mesh),
        "table": tabulate(made.model, case, tracks),
    }


def _judge_baselines(case: Case, tracks: Tracks, cfg: PopularityJob) -> dict[str, Any] | None:
    test = case.rows["test"]
    return judge_baselines(case, tracks, resamples_of(case, tracks, test, cfg.task.resamples)) if len(test) else None


def _judge_splits(case: Case, tracks: Tracks, made: Fitted, cfg: PopularityJob) -> dict[str, Any]:
    """metrics: each split's figures, None where it has no tracks."""
    return {
        name: judge(
            made.model, case.ground.features, case.goal, rows, resamples_of(case, tracks, rows, cfg.task.resamples)
        )
        if len(rows)
        else None
        for name, rows in case.rows.items()
    }


def _describe(
    cfg: PopularityJob, case: Case, made: Fitted, tracks: Tracks, *, read_s: float, fit_s: float
) -> dict[str, Any]:
    num_train = len(case.rows["train"])
    return {
        "task": "popularity",
        "target": case.goal.target,
        "threshold": case.goal.threshold,
        "classes": case.goal.classes,
        "features": case.ground.names,
        "score": SCORES[case.goal.target],
        "solver": {
            "learner": cfg.learner.name, "solver": cfg.learner.solver, "loss": cfg.model.loss, "C": made.C,
            "tolerance": cfg.learner.tolerance, "candidates": made.candidates,
            "solutions": [describe_solution(solution) for solution in made.solutions],
            "fit_s": round(fit_s, 3),
        },
        "samples_per_s": round(num_train / max(sum(s.seconds for s in made.solutions), 1e-9), 1),
        "global_batch": num_train,
        "steps": sum(solution.iterations for solution in made.solutions),
        "front_end": made.model.fingerprint,
        "cleaning": tracks.report,
        "read_s": round(read_s, 3),
        "split": describe_split(case, tracks),
        "leaks": case.leaks,
    }  # fmt: skip


def describe_split(case: Case, tracks: Tracks) -> dict[str, Any]:
    """How the tracks were split, and what was noticed."""
    return {
        "kind": case.kind,
        "tracks": {name: len(part) for name, part in case.rows.items()},
        "groups": _count_groups(case, tracks),
        "years": _list_years(case, tracks),
        "num_left": case.num_left,
        "num_excluded": case.split.num_excluded,
        "num_dropped": case.split.num_dropped,
        "num_twins_across": sum(bool(found["leaks"]) for found in case.split.duplicates),
        "warnings": case.split.warnings,
    }


def _count_groups(case: Case, tracks: Tracks) -> dict[str, int] | None:
    groups = number_groups(tracks.frame)
    return None if groups is None else {name: len(np.unique(groups[part])) for name, part in case.rows.items()}


def _list_years(case: Case, tracks: Tracks) -> dict[str, list[int] | None] | None:
    if "year" not in tracks.frame:
        return None
    years = tracks.frame["year"].to_numpy(np.int64)
    return {
        name: [int(years[part].min()), int(years[part].max())] if len(part) else None
        for name, part in case.rows.items()
    }


def describe_solution(solution: Solution) -> dict[str, Any]:
    """What a solver ended with, as JSON."""
    return {
        "objective": solution.objective,
        "bound": solution.bound,
        "gap": solution.gap if np.isfinite(solution.gap) else None,
        "iterations": solution.iterations,
        "seconds": round(solution.seconds, 6),
        "is_certified": solution.is_certified,
    }


def report_cleaning(tracks: Tracks, run: Run) -> None:
    """A line of what was read and left out, and one for each reason."""
    found = tracks.report
    for remark in found["remarks"]:
        run.log(remark)
    run.log(f"{found['num_read']} tracks read, {found['num_kept']} kept")
    for reason, dropped in found["dropped"].items():
        run.log(f"  {dropped['num']} left out, {reason}: {'; '.join(dropped['examples'])}")
    if found["skipped"]:
        run.log(f"  no tables of tracks: {', '.join(found['skipped'])}")


def say_case(case: Case, run: Run) -> None:
    """The split and the goal in a line, and what was noticed."""
    for warning in case.split.warnings:
        run.warn(warning)
    if not len(case.rows["valid"]) and case.goal.classes:
        run.warn("no validation tracks: probabilities are calibrated on training tracks, and will be too sure")
    sizes = ", ".join(f"{len(part)} {name}" for name, part in case.rows.items())
    goal = f"; {len(case.goal.classes)} classes" if case.goal.classes else ""
    run.log(f"{splits.say(case.kind)} split: {sizes} tracks; {len(case.ground.names)} features{goal}")


def save(cfg: PopularityJob, case: Case, made: Fitted, tracks: Tracks, judged: dict[str, Any], run: Run) -> None:
    """Write the model folder."""
    valid = judged["valid"]
    kept = {name: valid[name] for name in ("accuracy", "auc", "r2", "n") if valid and name in valid}
    facts = {
        "threshold": case.goal.threshold,
        "data": {
            "index_digest": index_digest(tracks),
            "split": to_plain(replace(cfg.split, kind=case.kind)),
            "group": cfg.data.group,
        },
        "settings": to_plain(cfg.task),
        "training": {
            "C": made.C,
            "loss": cfg.model.loss,
            "gaps": [solution.gap for solution in made.solutions],
            "valid": kept,
        },
    }
    margin_model.save(run, made.model, facts)


def tabulate(model: MarginModel, case: Case, tracks: Tracks) -> pd.DataFrame:
    """A row a test track: id, title, artist, what is true and what the model says."""
    rows = case.rows["test"]
    features = case.ground.features[rows]
    table = tracks.frame.iloc[rows][["id", "name", "artist", "popularity"]].reset_index(drop=True)
    if model.target == "regression":
        return table.assign(predicted=model.numbers(features).round(3))
    labels, chances = model.labels(features), model.probabilities(features)
    values = case.goal.values[rows].astype(int)
    return table.assign(
        label=[model.classes[value] for value in values],
        predicted=[model.classes[label] for label in labels],
        probability=chances[np.arange(len(labels)), labels].round(6),
    )
