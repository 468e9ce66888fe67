"""A model folder of task=popularity, judged by a table of tracks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from parallel_tunes.config_run import SplitConfig
from parallel_tunes.config_tracks import EvaluateTracksJob, PopularityConfig
from parallel_tunes.data import splits
from parallel_tunes.data.tracks import Tracks, index_digest, read_tracks
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, build
from parallel_tunes.tasks import genre_svm
from parallel_tunes.tasks.margin_fit import Goal, number_groups
from parallel_tunes.tasks.popularity import report_cleaning
from parallel_tunes.tasks.protocols import TWINS, find_labels, judge
from parallel_tunes.train import margin_model
from parallel_tunes.train.judging import Resamples
from parallel_tunes.train.margin_model import MarginModel


def evaluate(cfg: EvaluateTracksJob, run: Run) -> dict[str, Any]:
    """Judge a model folder by a table, or by a split of the one it was trained on.

    Raises:
        UserError: columns that the model takes are missing, or other data for a split.
    """
    model, facts = margin_model.load(cfg.model_path)
    settings: PopularityConfig = build(PopularityConfig, facts["settings"], "settings.")
    tracks = read_tracks(replace(cfg.data, group=facts["data"]["group"]), replace(settings, year=False))
    report_cleaning(tracks, run)
    columns = {name: tracks.features[:, at] for at, name in enumerate(tracks.names)}
    if "year" in tracks.frame:
        columns["year"] = tracks.frame["year"].to_numpy(np.float64)
    columns |= {
        name: np.zeros(len(tracks.frame)) for name in model.names if name.startswith("key_") and name not in columns
    }
    missing = [name for name in model.names if name not in columns]
    if missing:
        raise UserError(f"{cfg.data.root}: no column {', '.join(missing)}, which model={cfg.model_path} takes")
    features = np.column_stack([columns[name] for name in model.names])
    goal = _goal_of(model, facts, tracks, cfg)
    rows, kind = np.arange(len(tracks.frame)), "all"
    same = facts["data"]["index_digest"] == index_digest(tracks)
    if cfg.evaluate.split != "all":
        if not same:
            raise UserError(
                f"evaluate.split={cfg.evaluate.split}: this table is not what the model was trained on; evaluate.split=all judges all of it"
            )
        split = build(SplitConfig, facts["data"]["split"])
        by_genre = facts["task"] == "genre_svm"
        drawn = (
            genre_svm.deal(tracks, split)
            if by_genre
            else splits.draw(tracks.frame.assign(label=""), split, twins=TWINS)
        )
        rows, kind = drawn.rows[cfg.evaluate.split], drawn.kind
    elif same:
        run.warn("these tracks include those the model was trained on: the figures say nothing about others")
    rows = rows[goal.values[rows] >= 0] if goal.target == "genre" else rows
    if not len(rows):
        raise UserError(f"evaluate.split={cfg.evaluate.split}: holds no track whose class the model knows")
    groups = None if kind in ("random", "stratified", "lists") else number_groups(tracks.frame)
    resamples = Resamples(len(rows), None if groups is None else groups[rows], cfg.evaluate.resamples)
    found = judge(model, features, goal, rows, resamples)
    return {
        "task": facts["task"],
        "target": model.target,
        "metrics": {"train": None, "valid": None, "test": None, cfg.evaluate.split: found},
        "split": {"name": cfg.evaluate.split, "kind": kind},
        "cleaning": tracks.report,
        "classes": model.classes,
        "front_end": model.fingerprint,
    }


def _goal_of(model: MarginModel, facts: dict[str, Any], tracks: Tracks, cfg: EvaluateTracksJob) -> Goal:
    popularity = tracks.frame["popularity"].to_numpy(np.float64)
    if model.target == "regression":
        return Goal("regression", popularity)
    if model.target == "binary":
        threshold = float(facts["threshold"])
        return Goal("binary", (popularity > threshold).astype(np.float64), model.classes, threshold)
    labels = find_labels(cfg, tracks)
    numbers = {label: number for number, label in enumerate(model.classes)}
    return Goal("genre", np.array([numbers.get(label, -1) for label in labels], np.float64), model.classes)
