"""Reports of task=popularity for the tests of their page, filled by the judging functions themselves."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from parallel_tunes.train.judging import Resamples, judge_classes, judge_numbers, judge_ranking

Facts = dict[str, Any]
CLASSES = {"binary": ["popularity ≤ 44", "popularity > 44"], "regression": [], "genre": ["folk", "jazz", "rock"]}


def judge(target: str, skill: float, seed: int = 0) -> Facts:
    """Scores of made-up answers on 120 tracks of 40 groups; with more skill there is less noise in them."""
    rng = np.random.default_rng(seed)
    resamples = Resamples(120, np.arange(120) // 3, 40)
    truth = rng.normal(50, 15, 120)
    said = 50 + skill * (truth - 50) + (1 - skill) * rng.normal(0, 15, 120)
    if target == "regression":
        return judge_numbers(said, truth, resamples)
    edges = [44] if target == "binary" else [40, 60]
    found = judge_classes(np.digitize(said, edges), np.digitize(truth, edges), CLASSES[target], resamples)
    found["loss"] = 0.6
    if target == "binary":
        bins = [{"n": n, "predicted": p, "observed": min(1.1 * p, 1)} for n, p in ((3, 0.1), (60, 0.4), (57, 0.8))]
        found |= judge_ranking(said, truth > 44, resamples) | {"brier": 0.21, "reliability": bins}
    return found


def list_coefficients(target: str) -> Facts:
    """Of three features the second's sign cannot be said."""
    rows = [("loudness", 0.7, 0.2), ("tempo", 0.05, 0.2), ("valence", -0.4, 0.2)]
    entries = [{"feature": name, "value": value, "ci95": [value - half, value + half]} for name, value, half in rows]
    names = (
        ["popularity"] if target == "regression" else CLASSES[target][-1:] if target == "binary" else CLASSES[target]
    )
    columns = [{"name": name, "coefficients": copy.deepcopy(entries)} for name in names]
    return {
        "unit": "share of the weights' norm",
        "method": "percentile bootstrap over 40 groups, 40 fits",
        "columns": columns,
    }


def make_report(target: str) -> Facts:
    """A train run's report, whole."""
    score = {"binary": "AUC", "regression": "R²", "genre": "accuracy"}[target]
    naive = judge(target, 0.0) | {"auc": None, "auc_ci95": None} if target == "binary" else judge(target, 0.0)
    steps: list[Facts] = [
        {
            "split": split, "year": year, "test": judge(target, 0.5 + 0.3 * year, seed), "C": 0.1,
            "tracks": {"train": 400, "valid": 40, "test": 120}, "threshold": 44.0 - 3 * (split == "time"),
        }
        for seed, split in enumerate(("random", "grouped", "time")) for year in (False, True)
    ]  # fmt: skip
    steps[5] = {"split": "time", "year": True, "test": None, "reason": "the years of release are not known"}
    for row in steps[:5]:
        row["threshold"] = row["threshold"] if target == "binary" else None
    solution = {"objective": 45.9, "bound": 45.8, "gap": 3e-4, "iterations": 4, "seconds": 0.01, "is_certified": True}
    coefficients = list_coefficients(target)
    candidates = [
        {"C": C, "score": 0.6 + C / 10, "standard_error": 0.01, "scores": [0.6] * 5} for C in (0.01, 0.1, 1.0)
    ]
    return {
        "job": "train", "name": "made", "status": "complete", "seconds": 26.1, "device": "cpu", "git": None,
        "versions": {"numpy": "2.4.6"}, "front_end": "9b72edea", "task": "popularity", "target": target,
        "threshold": 44.0 if target == "binary" else None, "classes": CLASSES[target], "score": score,
        "features": ["loudness", "tempo", "valence"],
        "metrics": {"train": judge(target, 0.8), "valid": judge(target, 0.6), "test": judge(target, 0.7)},
        "solver": {
            "learner": "numba", "solver": "newton", "loss": "squared_hinge", "C": 0.1, "tolerance": 1e-3,
            "candidates": candidates, "solutions": [solution] * len(coefficients["columns"]), "fit_s": 0.8,
        },
        "cleaning": {
            "num_read": 600, "num_kept": 560, "files": ["tracks_a.csv"], "skipped": ["artists.csv"], "num_groups": 90,
            "largest_group_share": 0.3, "num_duplicates": 2, "columns_not_learnt_from": ["mood"],
            "dropped": {"tempo 0: none was found": {"num": 40, "examples": ["tracks_a.csv line 7: tempo=0.0"]}},
        },
        "split": {
            "kind": "grouped", "tracks": {"train": 400, "valid": 40, "test": 120}, "num_left": 5, "num_excluded": 0,
            "groups": {"train": 40, "valid": 10, "test": 40}, "num_dropped": 1, "num_twins_across": 2,
            "years": {"train": [1970, 2020], "valid": None, "test": [1980, 2021]}, "warnings": ["one group has 30 %"],
        },
        "baselines": {
            "mean" if target == "regression" else "majority": naive, "year_only": judge(target, 0.1),
            "linear_regression": judge(target, 0.65), "linear_regression_and_year": None,
        },
        "protocols": steps, "coefficients": coefficients,
        "learning_curve": [{"share": n / 400, "n": n, "train": 0.9 - n / 2000, "valid": 0.5 + n / 4000} for n in (40, 400)],
        "importances": {
            "score": score, "whole": 0.6, "n": 40, "num_shuffles": 10,
            "features": [{"feature": name, "loss": loss, "deviation": 0.01} for name, loss in (("loudness", 0.2), ("tempo", 0.0))],
        },
    }  # fmt: skip


def make_evaluation(target: str) -> Facts:
    """What an evaluate run's report has."""
    kept = (
        "name",
        "status",
        "seconds",
        "device",
        "git",
        "versions",
        "front_end",
        "task",
        "target",
        "classes",
        "cleaning",
    )
    whole = make_report(target)
    metrics = {"train": None, "valid": None, "test": None, "all": whole["metrics"]["test"]}
    return {key: whole[key] for key in kept} | {
        "job": "evaluate", "metrics": metrics, "split": {"name": "all", "kind": "all"},
    }  # fmt: skip
