"""Under which split, with or without the year, and beside what: the ladder that tells a model's worth from a leak's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parallel_tunes.config_run import SplitConfig
from parallel_tunes.config_tracks import EvaluateTracksJob, PopularityJob
from parallel_tunes.data import genres, splits
from parallel_tunes.data.tracks import Tracks
from parallel_tunes.models.hinge import Floats
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks import row_leaks
from parallel_tunes.tasks.margin_fit import Fitted, Goal, Ground, Ids, fit, number_groups
from parallel_tunes.train.judging import Resamples, judge_classes, judge_numbers, judge_ranking
from parallel_tunes.train.margin_model import MarginModel

LADDER = ("random", "grouped", "time")
TWINS = "tracks of the same title by the same artists"


@dataclass(frozen=True)
class Case:
    """A split, what is learnt under it, and from what.

    Args:
        kind: how the split was drawn.
        rows: tracks by split; those whose genre is not learnt are in none.
        num_left: tracks without a genre that is learnt.
        leaks: what both sides have, for the report; None where that was not looked for.
    """

    kind: str
    rows: dict[str, Ids]
    goal: Goal
    ground: Ground
    split: splits.Split
    num_left: int = 0
    leaks: dict[str, Any] | None = None


def make_case(
    cfg: PopularityJob,
    tracks: Tracks,
    mesh: Mesh,
    run: Run,
    *,
    split: SplitConfig,
    year: bool,
    leaks: str | None = None,
) -> Case:
    """Draw a split and set the goal by its training tracks.

    Args:
        leaks: what becomes of rows that both sides have: fail, warn or drop; by default they are not looked for.

    Raises:
        UserError: groups or years are not known, or nothing is left to learn from; or such rows, with fail.
    """
    frame = tracks.frame.assign(label="")  # tracks are dealt whatever their genre
    kind = split.kind
    if kind == "auto":
        kind = "grouped" if frame["group"].notna().any() else "random"
    if kind == "grouped" and frame["group"].nunique() < 3:
        raise UserError(
            f"split=grouped: all tracks are by {frame['group'].nunique()} artist or group, where train, valid and test want one each; "
            "take split=random or time, or data.group=main"
        )
    drawn, found = splits.draw(frame, replace(split, kind=kind), twins=TWINS), None
    if leaks:
        drawn, found = row_leaks.guard(drawn, tracks.features, frame, leaks, run)
    goal, rows, num_left = set_goal(cfg, tracks, drawn.rows)
    columns = [at for at, name in enumerate(tracks.names) if name != "year"]
    features, names = tracks.features[:, columns], [tracks.names[at] for at in columns]
    if year:
        features = np.column_stack([features, tracks.frame["year"].to_numpy(np.float64)])
        names = [*names, "year"]
    groups = number_groups(tracks.frame) if kind == "grouped" else None
    years = tracks.frame["year"].to_numpy(np.int64) if kind == "time" else None
    ground = Ground(features, names, cfg.model, cfg.learner, mesh, lambda: run.should_stop, groups, years)
    return Case(kind, rows, goal, ground, drawn, num_left, found)


def set_goal(cfg: PopularityJob, tracks: Tracks, rows: dict[str, Ids]) -> tuple[Goal, dict[str, Ids], int]:
    """The goal, decided by the training tracks alone; the tracks it is known of; how many are left out."""
    popularity, train = tracks.frame["popularity"].to_numpy(np.float64), rows["train"]
    if cfg.task.target == "regression":
        return Goal("regression", popularity), rows, 0
    if cfg.task.target == "binary":
        wanted = cfg.task.threshold
        threshold = float(np.median(popularity[train])) if isinstance(wanted, str) else float(wanted)
        above = (popularity > threshold).astype(np.float64)
        classes = [f"popularity ≤ {threshold:g}", f"popularity > {threshold:g}"]
        return Goal("binary", above, classes, threshold), rows, 0
    labels = find_labels(cfg, tracks)
    known, counts = np.unique([label for label in labels[train] if label is not None], return_counts=True)
    if len(known) < 2:
        raise UserError(f"task.target=genre: the training tracks have {len(known)} genres, two are needed at least")
    classes = sorted(known[np.argsort(-counts, kind="stable")][: cfg.task.num_genres])
    numbers = {label: number for number, label in enumerate(classes)}
    values = np.array([numbers.get(label, -1) for label in labels], np.float64)
    kept = {name: part[values[part] >= 0] for name, part in rows.items()}
    return Goal("genre", values, classes), kept, int((values < 0).sum())


def find_labels(cfg: PopularityJob | EvaluateTracksJob, tracks: Tracks) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Each track's genre: of the table, else the family of its artist's; None where unknown."""
    if tracks.frame["label"].notna().any():
        return tracks.frame["label"].to_numpy(object)
    table = genres.read_genres(genres.find_table(cfg.data), max_mib=cfg.data.max_mib, max_rows=cfg.data.max_rows)
    return genres.label_by_family(tracks.frame["artist"], table)


def resamples_of(case: Case, tracks: Tracks, rows: Ids, num: int) -> Resamples:
    """Draws of the judged tracks: of whole artists, but where the split itself has mixed them."""
    groups = None if case.kind in ("random", "stratified", "lists") else number_groups(tracks.frame)
    return Resamples(len(rows), None if groups is None else groups[rows], num)


def judge(model: MarginModel, features: Floats, goal: Goal, rows: Ids, resamples: Resamples) -> dict[str, Any]:
    """Everything that is said of a model on some tracks."""
    values = goal.values[rows]
    if goal.target == "regression":
        return judge_numbers(model.numbers(features[rows]), values, resamples)
    return judge_margins(model.margins(features[rows]), goal, rows, resamples) | judge_probabilities(
        model, features, goal, rows
    )


def judge_margins(margins: Floats, goal: Goal, rows: Ids, resamples: Resamples) -> dict[str, Any]:
    """Scores of margins, shape (num_rows, num_columns)."""
    values = goal.values[rows].astype(np.int64)
    predicted = (margins[:, 0] > 0).astype(np.int64) if margins.shape[1] == 1 else margins.argmax(1)
    found = judge_classes(predicted, values, goal.classes, resamples)
    if margins.shape[1] == 1:
        found |= judge_ranking(margins[:, 0], values == 1, resamples)
    return found


def judge_probabilities(model: MarginModel, features: Floats, goal: Goal, rows: Ids) -> dict[str, Any]:
    """Log-loss, nats, and for two classes the Brier score and a reliability curve in ten bins."""
    values, found = goal.values[rows].astype(np.int64), model.probabilities(features[rows])
    likelihood = np.maximum(found[np.arange(len(rows)), values], 1e-12)
    facts: dict[str, Any] = {"loss": float(-np.log(likelihood).mean())}
    if len(goal.classes) == 2:
        above = found[:, 1]
        facts["brier"] = float(np.mean((above - values) ** 2))
        bins = np.minimum((above * 10).astype(int), 9)
        facts["reliability"] = [
            {"n": int(mine.sum()), "predicted": float(above[mine].mean()), "observed": float(values[mine].mean())}
            for mine in (bins == number for number in range(10))
            if mine.any()
        ]
    return facts


def judge_baselines(case: Case, tracks: Tracks, resamples: Resamples) -> dict[str, dict[str, Any] | None]:
    """What needs no SVM, on the test tracks: majority or mean, the year alone, linear regression without and with the year."""
    goal, train, test = case.goal, case.rows["train"], case.rows["test"]
    found: dict[str, dict[str, Any] | None] = {}
    if goal.target == "regression":
        mean = np.full(len(test), goal.values[train].mean())
        found["mean"] = judge_numbers(mean, goal.values[test], resamples)
    else:
        counts = np.bincount(goal.values[train].astype(np.int64), minlength=len(goal.classes))
        always = np.full(len(test), int(counts.argmax()))
        found["majority"] = judge_classes(always, goal.values[test].astype(np.int64), goal.classes, resamples)
    plain = case.ground.features[:, [at for at, name in enumerate(case.ground.names) if name != "year"]]
    columns: dict[str, Floats | None] = {
        "year_only": None,
        "linear_regression": plain,
        "linear_regression_and_year": None,
    }
    if "year" in tracks.frame:
        year = tracks.frame["year"].to_numpy(np.float64)[:, None]
        columns |= {"year_only": year, "linear_regression_and_year": np.column_stack([plain, year])}
    for name, features in columns.items():
        found[name] = None if features is None else _judge_regression(features, goal, train, test, resamples)
    return found


def _judge_regression(features: Floats, goal: Goal, train: Ids, test: Ids, resamples: Resamples) -> dict[str, Any]:
    """Least squares on the numbers, or on ±1 for each class."""
    design = np.column_stack(
        [(features - features[train].mean(0)) / np.maximum(features[train].std(0), 1e-12), np.ones(len(features))]
    )
    wanted = (
        goal.values[:, None]
        if goal.target == "regression"
        else np.column_stack([2.0 * side - 1 for side in goal.columns])
    )
    solved, *_ = np.linalg.lstsq(design[train], wanted[train], rcond=None)
    answers = design[test] @ solved
    if goal.target == "regression":
        return judge_numbers(answers[:, 0], goal.values[test], resamples)
    return judge_margins(answers, goal, test, resamples)


def climb_ladder(cfg: PopularityJob, tracks: Tracks, mesh: Mesh, run: Run) -> list[dict[str, Any]]:
    """The same model under every split, with and without the year; what cannot be drawn says why."""
    found = []
    has_years = "year" in tracks.frame
    with run.progress("protocols", 2 * len(LADDER), " fits") as bar:
        for kind in LADDER:
            for year in (False, True):
                row: dict[str, Any] = {"split": kind, "year": year, "test": None}
                try:
                    if year and not has_years:
                        raise UserError("the years of release are not known")
                    case = make_case(cfg, tracks, mesh, run, split=replace(cfg.split, kind=kind), year=year)
                    made = fit(case.ground, case.goal, case.rows["train"], case.rows["valid"])
                    row |= _judge_step(case, made, tracks, cfg)
                except UserError as error:
                    row["reason"] = str(error)
                found.append(row)
                bar.update()
    return found


def _judge_step(case: Case, made: Fitted, tracks: Tracks, cfg: PopularityJob) -> dict[str, Any]:
    test = case.rows["test"]
    if not len(test):
        raise UserError("the split leaves no track to judge by")
    resamples = resamples_of(case, tracks, test, cfg.task.resamples)
    judged = judge(made.model, case.ground.features, case.goal, test, resamples)
    sizes = {name: len(part) for name, part in case.rows.items()}
    return {"test": judged, "C": made.C, "tracks": sizes, "threshold": case.goal.threshold}
