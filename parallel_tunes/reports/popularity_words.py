"""What task=popularity found, in sentences: every comparison is told from the intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from parallel_tunes.reports.numbers import decimals, interval_words, percent, show_ends
from parallel_tunes.reports.popularity_figures import Panel
from parallel_tunes.reports.scaling.look import Facts

MAJORITY = "share of the commonest class"
AUC = Panel("auc", "AUC", 0.5, "AUC of chance")
ACCURACY = Panel("accuracy", "accuracy", "majority_share", MAJORITY)
R2 = Panel("r2", "R²", 0.0, "R² of these tracks' own mean")
PANELS = {
    "binary": [AUC, ACCURACY],
    "regression": [R2, Panel("rmse", "RMSE (points of popularity)")],
    "genre": [ACCURACY, Panel("balanced_accuracy", "balanced accuracy")],
}
BASELINES = {
    "majority": "the commonest class of training",
    "mean": "the mean of training",
    "year_only": "regression on the year alone",
    "linear_regression": "linear regression",
    "linear_regression_and_year": "regression with the year",
}
SPLITS = {"random": "random", "grouped": "grouped by artist", "time": "time"}


def verdict_words(report: Facts, found: Facts) -> list[str]:
    """Whether the model beats what needs none, told from the intervals."""
    if report["target"] == "regression":
        own_mean = place_words(found["r2_ci95"], 0.0, "the mean of these very tracks, whose R² is 0")
        return [*_beat_mean(report, found), f"R² {decimals(found['r2'])}: {_go_on(own_mean)}"]
    share, own = found["majority_share"], found.get("majority_share_ci95")
    naming = f"always naming the commonest class of these tracks, whose share is {percent(share)}"
    words = [_doubt(place_words(found["accuracy_ci95"], share, naming), found["accuracy_ci95"], own, "share", percent)]
    balanced = found["balanced_accuracy"]
    if report["target"] == "genre" and balanced is not None:
        chance = 1 / sum(any(row) for row in found["confusion"]["counts"])
        placed = place_words(
            found["balanced_accuracy_ci95"], chance, f"naming one of them always, which reads {decimals(chance)}"
        )
        words.append(f"Every class counting alike, balanced accuracy {decimals(balanced)}: {_go_on(placed)}")
    if found.get("auc") is not None:
        interval = found["auc_ci95"]
        area = f"AUC {found['auc']:.3f}, {interval_words(interval)}"
        placed = place_words(interval, 0.5, "ranking by chance, which reads 0.5")
        words.append(f"{area}: {_go_on(placed)}")
    return words


def _beat_mean(report: Facts, found: Facts) -> list[str]:
    mean = (report.get("baselines") or {}).get("mean")
    if not mean:
        return []
    naming = f"always naming the mean of the training tracks, whose RMSE is {decimals(mean['rmse'], 2)} points"
    placed = place_words(found["rmse_ci95"], mean["rmse"], naming, more_is_better=False)
    return [_doubt(placed, found["rmse_ci95"], mean["rmse_ci95"], "RMSE", decimals)]


def _doubt(sentence: str, mine: Any, other: Any, name: str, show: Callable[[float], str]) -> str:
    """The sentence, and that what was beaten is uncertain too, where it is."""
    if not other or not sentence.startswith("Better") or not overlap(mine, other):
        return sentence
    return f"{sentence[:-1]}, but that {name}'s own interval, {show_ends(other, show)}, overlaps it."


def place_words(
    interval: Sequence[float] | None, mark: float, what: str, *, more_is_better: bool = True, units: str = "tracks"
) -> str:
    """Better, worse, or not to be told from a mark, by where an interval lies."""
    if not interval:
        return f"Whether it is better than {what}, cannot be said: there is no interval."
    low, high = interval
    if low <= mark <= high:
        return f"No better, as far as these {units} tell, than {what}: the interval holds that."
    is_better = (low > mark) == more_is_better
    return f"{'Better' if is_better else 'Worse'} than {what}: the whole interval lies {'above' if low > mark else 'below'} that."


def beside_words(report: Facts, found: Facts) -> list[str]:
    """The model against each baseline that learns."""
    panel, baselines = PANELS[report["target"]][0], report.get("baselines") or {}
    words = []
    for name in ("linear_regression", "year_only"):
        other = baselines.get(name)
        if other and (said := contrast_words(panel, found, other, BASELINES[name])):
            words.append(f"The support vector machine's {said}")
    return words


def contrast_words(panel: Panel, mine: Facts, other: Facts, than: str) -> str | None:
    """`AUC is 0.013 higher than …; the intervals overlap.`; None where a score is not known."""
    first, second = mine.get(panel.key), other.get(panel.key)
    if first is None or second is None:
        return None
    change = f"{abs(first - second):.3f} {'higher' if first > second else 'lower'} than"
    if f"{first:.3f}" == f"{second:.3f}":
        change = "the same as"
    ends = mine.get(f"{panel.key}_ci95"), other.get(f"{panel.key}_ci95")
    words = "do not overlap"
    if not all(ends):
        words = "are not known"
    elif overlap(*ends):
        words = "overlap"
    return f"{panel.label}, {decimals(first)}, is {change} that of {than}, {decimals(second)}; the intervals {words}."


def overlap(first: Any, second: Any) -> bool:
    """Whether two intervals have a point in common."""
    return bool(first[0] <= second[1] and second[0] <= first[1])


def leak_words(report: Facts) -> list[str]:
    """What the year, and artists known from training, add to the score."""
    panel = PANELS[report["target"]][0]
    tests = {(row["split"], row["year"]): row["test"] for row in report.get("protocols") or [] if row["test"]}
    words = []
    for split in ("grouped", "random", "time"):
        without, year = tests.get((split, False)), tests.get((split, True))
        if without and year and (said := contrast_words(panel, year, without, "the same model without")):
            words.append(f"The year, under the {split} split: with it the {said}")
    mixed, apart = tests.get(("random", False)), tests.get(("grouped", False))
    if mixed and apart and (said := contrast_words(panel, mixed, apart, "the grouped split")):
        words.append(f"The artists: under the random split, which has tracks of one artist on both sides, the {said}")
    return words


def time_words(report: Facts) -> str | None:
    """How the question itself shifts when later tracks are judged by earlier ones."""
    rows = {row["split"]: row for row in report.get("protocols") or [] if row["test"] and not row["year"]}
    later, other = rows.get("time"), rows.get("grouped") or rows.get("random")
    if not later or not other or "majority_share" not in later["test"]:
        return None
    now, then = (percent(row["test"]["majority_share"]) for row in (later, other))
    shift = f"the commonest class has {now} of the later tracks, where it has {then} under the {other['split']} split"
    if later["threshold"] is not None:
        was, is_now = other["threshold"], later["threshold"]
        moved = f"stays {is_now:g}" if was == is_now else f"is {is_now:g} instead of {was:g}"
        shift = f"the threshold {moved}, and {shift}"
    return f"Under the time split {shift}: accuracies of the two do not compare."


def _go_on(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
