"""What task=relisten found, in sentences: every comparison is told from the intervals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from parallel_tunes.reports.popularity_words import (
    AUC,
    contrast_words,
    decimals,
    overlap,
    percent,
    place_words,
    show_ends,
)
from parallel_tunes.reports.scaling.look import Facts

RATES = ("the song's earlier rate", "the user's earlier rate")
SEEN, COLD = "user and song seen", ("unseen user", "unseen song")
# split and features before and after a step
STEPS = {
    "random static time static": "Random → time. What goes is the leak of a random split, which shows a network a user's later days "
    "when it is asked about earlier ones",
    "time static time causal": "Time → causal. What comes is honest history: counts and rates of the rows before each row, as a "
    "service has them too",
    "time causal time transductive": "Causal → transductive. What comes is a look into the future, counts of rows that come later, "
    "which no service has",
}
PATTERNS = {
    r"num_(train)_rows": "listens in {0}",
    r"num_(test)_rows": "listens in {0}, whose target is not known",
    r"num_(users|songs)": "{0} in these listens",
    r"num_(users|songs)_in_test_alone": "{0} that only test has",
    r"num_rows_without_(\w+)": "listens without {0}, a category of its own",
    r"num_(\w+)_nobody_has": "rows of {0} for which there is no listen: left out",
    r"num_(\w+)_twice": "rows of {0} whose id was there before: the first counts",
    r"num_(members|songs|song_extra_info)_without_id": "rows of {0} without an id: left out",
    r"num_(users|songs)_not_in_(\w+)": "{0} that the table {1} lacks: what it would tell is missing",
    r"num_(users|songs)_odd_(\w+)": "{0} whose column {1} makes no sense: taken as missing",
}


def verdict_words(report: Facts, found: Facts, split: str) -> list[str]:
    """Whether the network beats what needs none, and what it loses on users and songs it has not seen."""
    baselines = (report["baselines"] or {}) if split == "test" else {}
    words = [said for name in RATES if name in baselines and (said := beat_words(found, baselines[name], name))]
    share = found["majority_share"]
    naming = f"always naming the commoner answer, which would be right for {percent(share)} of these rows"
    placed = place_words(found["accuracy_ci95"], share, naming, units="rows")
    return [*words, f"Accuracy: {placed[0].lower()}{placed[1:]}", *cold_words(found)]


def beat_words(found: Facts, other: Facts, name: str) -> str | None:
    """Whether the network's AUC is above another's on the same rows; None where one is not known."""
    mine, its = found["auc"], other["auc"]
    if mine is None or its is None:
        return None
    ends = found["auc_ci95"], other["auc_ci95"]
    verdict, why = "Beats" if mine > its else "Is worse than", "the intervals do not overlap"
    if not all(ends):
        verdict, why = "Cannot be told from", "there are no intervals"
    elif overlap(*ends):
        verdict, why = "Is not clearly told from", "the intervals overlap"
    told = [
        f"{decimals(auc)} ({show_ends(each)})" if each else decimals(auc)
        for auc, each in zip((mine, its), ends, strict=True)
    ]
    return f"{verdict} {name}: AUC {told[0]} against {told[1]}; {why}."


def cold_words(found: Facts) -> list[str]:
    """Unseen users and unseen songs, each beside the rows whose user and song are both known."""
    slices, words = found.get("slices") or {}, []
    known = slices.get(SEEN)
    for name in COLD:
        cold = slices.get(name)
        if cold:
            said = known and contrast_words(AUC, cold, known, "rows whose user and song the training rows both have")
            start = f"Of the rows {percent(cold['n'] / found['n'])} have an {name}"
            words.append(f"{start}: the {said}" if said else f"{start}; their AUC cannot be compared.")
    return words


def caveat_words(report: Facts, delay: int | None) -> list[str]:
    """What to keep in mind: how rows were split, and what features know of them.

    Args:
        delay: features.delay; None where it is not known.
    """
    words, kind = [], report["features"]["kind"]
    if report["split"]["kind"] == "random":
        words.append(
            "split=random: this reads higher than an honest split by time would. The order of the rows is time, and rows drawn at "
            "random leave some of a user's later days among the training rows, where they help to tell the earlier ones. "
            "A service has no later days: believe split=time."
        )
    if kind == "transductive":
        words.append(
            "features=transductive: rows that come later were counted, which no service has. This is what a look into the future "
            "is worth, not what the network will be."
        )
    if kind != "static":
        words.append(delay_words(delay))
        words.append(
            "An unseen user or song is one that the training rows lack. The features count what it did in earlier test rows all the "
            "same; only its very first row has no past."
        )
    return words


def delay_words(delay: int | None) -> str:
    """When labels count as known, and what that leaves out."""
    late = f"known {delay + 1} rows later" if delay else "known by the very next row"
    return (
        "Rates use the labels of earlier rows, also those of the test rows before each row. A label counts as "
        f"{'known as late as the training said' if delay is None else late} (features.delay). Whether somebody listens again within a "
        "month is known a month later: unless the delay, in rows, is as long as that, this reads higher than a service would."
    )


def ladder_words(rows: Sequence[Facts]) -> list[str]:
    """What each step of the ladder takes or gives."""
    words = []
    for before, after in pairwise(rows):
        kinds = " ".join(row[key] for row in (before, after) for key in ("split", "features"))
        said = [
            f"{name} {contrast}"
            for key, name in (("test", "the network's"), ("control", "LightGBM's"))
            if before[key]
            and after[key]
            and (contrast := contrast_words(AUC, after[key], before[key], "the step before"))
        ]
        start = STEPS.get(kinds, f"{before['name']} → {after['name']}")
        words.append(f"{start}: {' And '.join(said) or 'not judged.'}")
    return words


def count_words(tables: Facts) -> tuple[list[tuple[str, int]], int]:
    """What the tables hold and what was odd in them, in words, without what there is none of; and how many kinds of that."""
    told = [
        (said.format(*found.groups()), num)
        for pattern, said in PATTERNS.items()
        for key, num in tables.items()
        if (found := re.fullmatch(pattern, key))
    ]
    return [(words, num) for words, num in told if num], sum(not num for _, num in told)


def whole(number: int) -> str:
    """A number of things; long ones in groups of three, by narrow spaces that do not break."""
    return f"{number:,}".replace(",", "\u202f") if number >= 10_000 else str(number)
