"""Tracks that have several labels, `a|b` in an index: taken apart, as a table, and dealt to splits."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.config_run import SplitConfig

SEPARATOR = "|"
Labels = NDArray[np.object_]  # (num_tracks,), as the index has them


def take_apart(label: str, *, multi_label: bool = True) -> tuple[str, ...]:
    """`b| a||b` → ("a", "b"): sorted, each once, without blanks around it; without `multi_label` the label as it is."""
    return tuple(sorted({part.strip() for part in label.split(SEPARATOR)} - {""})) if multi_label else (label,)


def list_classes(labels: Labels, *, multi_label: bool) -> list[str]:
    """Every label that occurs, sorted."""
    return sorted({part for label in set(labels) for part in take_apart(label, multi_label=multi_label)})


def tabulate(labels: Labels, classes: list[str], *, multi_label: bool) -> NDArray[np.int8]:
    """Which of some labels each track has, 0 or 1, shape (num_tracks, num_classes)."""
    columns = {name: column for column, name in enumerate(classes)}
    codes, distinct = pd.factorize(labels)
    rows = np.zeros((len(distinct), len(classes)), np.int8)
    for row, label in zip(rows, distinct, strict=True):
        row[[columns[part] for part in take_apart(label, multi_label=multi_label) if part in columns]] = 1
    return np.asarray(rows[codes])


def find_alike(labels: Sequence[str]) -> list[list[str]]:
    """Labels that differ in case, blanks or Unicode form alone, each group with its most frequent spelling first."""
    counts = Counter(part for label in labels for part in take_apart(label))
    groups: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        plain = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
        groups.setdefault(plain, []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def merge_alike(labels: Sequence[str]) -> list[str]:
    """The same labels, each in the most frequent spelling."""
    spelling = {label: group[0] for group in find_alike(labels) for label in group}
    return [SEPARATOR.join(spelling.get(part, part) for part in take_apart(label)) for label in labels]


def list_oddities(labels: Labels, *, multi_label: bool) -> list[str]:
    """What is odd about labels, with or without task.multi_label."""
    found = [
        f"the labels {', '.join(map(repr, group))} count as {len(group)}; data.merge_labels=true makes them one"
        for group in find_alike(labels.tolist())
    ]
    joined = sorted({label for label in labels if len(take_apart(label)) > 1})
    if joined and not multi_label:
        found.append(
            f"{len(joined)} labels hold a {SEPARATOR}, {joined[0]} say, and count as one each; task.multi_label=true takes them apart"
        )
    if multi_label and not joined:
        found.append(f"task.multi_label=true: no track has more than one label (a{SEPARATOR}b)")
    return found


class Dealer:
    """Gives groups of tracks to splits, each to the one that wants it most.

    Args:
        counts: shape (num_groups, num_columns): tracks of each label in a group, of any, and of what is dealt just now.
        shares: of the splits.
    """

    def __init__(self, counts: NDArray[np.int64], shares: list[float]) -> None:
        self.counts, self.shares = counts, np.array(shares)
        self.wanted = np.outer(self.shares, counts.sum(0))
        self.has = np.zeros_like(self.wanted, bool)
        self.side = np.full(len(counts), -1)

    def deal(self, mine: NDArray[np.intp], column: int) -> None:
        """Some groups, largest first, by what the splits want of a column."""
        for place, group in enumerate(mine[np.argsort(-self.counts[mine, column], kind="stable")]):
            empty: list[int] = np.flatnonzero(~self.has[:, column]).tolist()
            # the last groups fill what is still empty, so that every split sees every label where it can
            candidates = empty if 0 < len(mine) - place <= len(empty) else list(range(len(self.shares)))
            chosen = max(candidates, key=lambda at: (self.wanted[at, column], self.wanted[at, -2]))
            self.wanted[chosen] -= self.counts[group]
            self.has[chosen] |= self.counts[group] > 0
            self.side[group] = chosen

    def deal_stratum(self, mine: NDArray[np.intp]) -> None:
        """Some groups, as if they were all."""
        self.counts[mine, -1] = self.counts[mine, -2]
        self.wanted[:, -1] = self.shares * self.counts[mine, -2].sum()
        self.has[:, -1] = False
        self.deal(mine, -1)

    def deal_rest(self, order: NDArray[np.intp]) -> None:
        """All other groups, label by label, that with the fewest tracks left first."""
        while (left := order[self.side[order] < 0]).size:
            totals = self.counts[left, :-2].sum(0)
            column = int(np.where(totals > 0, totals, np.inf).argmin()) if totals.any() else -2
            self.deal(left[self.counts[left, column] > 0], column)


def find_commonest(members: NDArray[np.intp], values: NDArray[np.intp]) -> NDArray[np.intp]:
    """The commonest of the values, numbers from 0 on, of each group's members, the largest of equally common ones."""
    num = int(values.max(initial=0)) + 1
    pairs, counts = np.unique(members * num + values, return_counts=True)
    pairs = pairs[np.lexsort((counts, pairs // num))]
    return np.asarray(pairs[np.diff(pairs // num, append=-1) != 0] % num)


def stratify_sets(labels: pd.Series[str], groups: pd.Series[str], cfg: SplitConfig, warnings: list[str]) -> Labels:
    """Deal whole groups so that each label comes near its shares, and each set of labels that is common enough.

    Sets that cannot be in every split are dealt by their labels, the rarest first, whose tracks must not be given away
    before (Sechidis et al. 2011). A group that has several sets goes with its most common one.
    """
    every = {"train": cfg.train, "test": cfg.test, "valid": cfg.valid}
    shares = {name: share for name, share in every.items() if share > 0}
    values = labels.to_numpy(object)
    classes = list_classes(values, multi_label=True)
    held = tabulate(values, classes, multi_label=True)
    numbers, members = np.unique(groups.to_numpy(str), return_inverse=True)
    columns = (*held.T, np.ones(len(held)), np.zeros(len(held)))
    counts = np.column_stack([np.bincount(members, column) for column in columns]).astype(np.int64)
    dealer = Dealer(counts, list(shares.values()))
    order = np.random.Generator(np.random.Philox(key=cfg.seed)).permutation(len(numbers))
    own = find_commonest(members, np.unique(held, axis=0, return_inverse=True)[1].ravel())[order]
    strata = np.split(order[np.argsort(own, kind="stable")], np.flatnonzero(np.diff(np.sort(own))) + 1)
    for mine in sorted(strata, key=len):
        if len(mine) * min(shares.values()) >= 1:
            dealer.deal_stratum(mine)
    dealer.deal_rest(order)
    names: Labels = np.array(list(shares), object)[dealer.side[members]]
    for column, label in enumerate(classes):
        lacking = [name for name in shares if not held[names == name, column].any()]
        if lacking:
            num = int((counts[:, column] > 0).sum())
            warnings.append(f"label {label!r} is in {num} groups or tracks: none is left for {' and '.join(lacking)}")
    return names
