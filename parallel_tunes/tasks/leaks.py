"""What a training would know of the tracks it is judged by: copies, artists, fits; found, listed, and acted on as data.leaks says.

A figure on tracks that were learnt from says nothing, whichever file they came in: Sturm 2013, "The GTZAN dataset: its contents,
its faults, their effects on evaluation, and its future use". An artist on both sides is learnt instead of the genre: Flexer 2007,
"A closer look on artist filters for musical genre classification".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.audio import fingerprints, front_end
from parallel_tunes.audio.fingerprints import Pair
from parallel_tunes.data import splits
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.files import digest_json
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.shard_work import read_levels

MOST_TRACKS = 20_000  # among more, near copies are not looked for: the other ranks wait for it
SUSPECT = 0.4  # of scores below the threshold: in real music, other cuts of a recording lie above, all else below 0.33
SUSPECT_S = 10.0  # length from which on that holds
MOST_SUSPECTS = 200  # that are listed
ORDER = ("train", "valid", "test")  # what leaks goes from the earlier one

Sides = NDArray[np.int64]


class LeakError(UserError):
    """Leaks where data.leaks=fail; they are in the report all the same."""

    def __init__(self, line: str, found: dict[str, Any]) -> None:
        super().__init__(line)
        self.facts = {"leaks": found}


def guard(
    shards: ShardSet, split: splits.Split, action: str, mesh: Mesh, run: Run
) -> tuple[splits.Split, dict[str, Any]]:
    """Look for tracks and groups on both sides of a split; the split that is trained on, and the report's `leaks`.

    Args:
        action: fail; warn; or drop, which leaves out what training and validation have of a later split.

    Raises:
        LeakError: there are some, and `action` is fail.
        UserError: nothing is left to learn from.
    """
    index, sides = shards.index, np.full(len(shards.index), -1, np.int64)
    for side, name in enumerate(ORDER):
        sides[split.rows[name]] = side
    pairs = None
    if int((sides >= 0).sum()) <= MOST_TRACKS:
        pairs = mesh.on_first(lambda: _find_near(shards, sides, run))
    else:
        run.warn(f"near copies are not looked for among more than {MOST_TRACKS} tracks")
    near = [pair for pair in pairs or () if pair.score >= fingerprints.THRESHOLD]
    suspects = [pair for pair in pairs or () if pair.score < fingerprints.THRESHOLD and _is_suspect(index, pair)]
    found: dict[str, Any] = {
        "action": action,
        "pairs": [_tell_pair(index, sides, pair, "exact") for pair in _pair_twins(index, sides)]
        + [_tell_pair(index, sides, pair, "near") for pair in near],
        "groups": _find_groups(index, sides),
        "suspects": [_tell_pair(index, sides, pair, "suspect") for pair in suspects[:MOST_SUSPECTS]],
        "num_suspects": len(suspects),
        "threshold": fingerprints.THRESHOLD if pairs is not None else None,  # null: near copies were not looked for
        "num_dropped": dict.fromkeys(ORDER, 0),
        "fits": [],
    }
    words = summarise(found)
    advice = "data.leaks=drop leaves them out of training and validation"
    advice += ", split=grouped keeps all of an artist on one side" if found["groups"] else ""
    if words and action == "fail":
        raise LeakError(f"data.leaks=fail: {words}; {advice}", found)
    if action == "drop":
        split = _drop(index, split, sides, near, found)
        if words:
            told = ", ".join(f"{number} {name}" for name, number in found["num_dropped"].items() if number)
            run.log(f"data.leaks=drop: {words}; left out: {told} tracks")
    elif near or found["groups"]:  # of byte-identical files the split itself has warned
        added = summarise({**found, "pairs": found["pairs"][len(found["pairs"]) - len(near) :]})
        split.warnings.append(f"{added}; {advice}")
    if suspects:
        split.warnings.append(
            f"{len(suspects)} pairs of tracks on both sides may be versions of one recording: leaks.suspects in report.json"
        )
    return split, found


def check_fits(found: dict[str, Any], fits: Mapping[str, Ids], train: Ids, run: Run) -> None:
    """Add to `leaks` what was fitted on how many tracks, and on how many that are not learnt from.

    Args:
        fits: rows by what was fitted on them.

    Raises:
        LeakError: there are such tracks, and the action is not warn: fits cannot be dropped.
    """
    found["fits"] = [
        {"name": name, "n": len(rows), "num_outside_train": int((~np.isin(rows, train)).sum())}
        for name, rows in fits.items()
    ]
    words = summarise({**found, "pairs": [], "groups": []})
    if words and found["action"] != "warn":
        raise LeakError(f"data.leaks={found['action']}: {words}", found)
    if words:
        run.warn(words)


def summarise(found: Mapping[str, Any]) -> str:
    """What leaks, in words; empty where nothing does."""
    pairs = {kind: [pair for pair in found["pairs"] if pair["kind"] == kind] for kind in ("exact", "near")}
    nouns = {"exact": "byte-identical files", "near": "copies of one recording"}
    parts = [f"{_count(len(some), 'pair')} of {nouns[kind]}" for kind, some in pairs.items() if some]
    if found["groups"]:
        parts.append(f"{_count(len(found['groups']), 'group')} (artists)")
    told = [f"{' and '.join(parts)} lie on both sides of the split"] if parts else []
    told += [
        f"{fit['name']} was fitted on {_count(fit['num_outside_train'], 'track')} outside train"
        for fit in found["fits"]
        if fit["num_outside_train"]
    ]
    example = next((some[0]["paths"] for some in pairs.values() if some), None)
    return "; ".join(told) + (f" ({example[0]} = {example[1]}, say)" if example else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _find_near(shards: ShardSet, sides: Sides, run: Run) -> list[Pair]:
    """Pairs of tracks of different splits that sound alike, best first; kept beside the shards, for the next training."""
    facts = shards.manifest
    key = [fingerprints.VERSION, SUSPECT, facts["fingerprint"], facts["index_digest"], sides.tolist()]
    name = f"near-{digest_json(key)[:16]}"
    kept = shards.recall(name)
    if kept is not None and "pairs" in kept:
        try:
            pairs = [Pair(int(row), int(other), *map(float, rest)) for row, other, *rest in kept["pairs"]]
        except (TypeError, ValueError):
            pairs = None
        if pairs is not None and all(
            0 <= pair.other < len(sides) and 0 <= pair.row < len(sides) and all(map(math.isfinite, pair))
            for pair in pairs
        ):
            return pairs
    num_looked_at = int((sides >= 0).sum() + (sides > sides[sides >= 0].min()).sum())
    with run.progress("leaks", num_looked_at) as bar:
        pairs = fingerprints.find_pairs(
            sides, lambda row: read_levels(shards, row), fingerprints.Printer(front_end.restore(facts["features"])),
            bar.update, lowest=SUSPECT, hashes=shards.index["hash"].to_numpy(object),
        )  # fmt: skip
    pairs.sort(key=lambda pair: -pair.score)
    shards.keep(name, {"pairs": pairs})
    return pairs


def _is_suspect(index: pd.DataFrame, pair: Pair) -> bool:
    """Whether tracks are long enough to be suspected, and not known to be of one artist."""
    one, other = index.iloc[pair.row], index.iloc[pair.other]
    is_group = one["group"] is not None and one["group"] == other["group"]
    return min(one["duration_s"], other["duration_s"]) >= SUSPECT_S and not is_group


def _pair_twins(index: pd.DataFrame, sides: Sides) -> list[Pair]:
    """Each byte-identical file that another split has too, with one of the last split that has it."""
    pairs = []
    for rows in _by_key(index["hash"], sides).values():
        last = rows[int(sides[rows].argmax())]
        pairs += [Pair(int(last), int(row), 1.0, 0.0, 0.0) for row in rows if sides[row] < sides[last]]
    return pairs


def _find_groups(index: pd.DataFrame, sides: Sides) -> list[dict[str, Any]]:
    """The groups that several splits have tracks of."""
    return [
        {"group": str(group), "tracks": {name: int((sides[rows] == side).sum()) for side, name in enumerate(ORDER)}}
        for group, rows in _by_key(index["group"], sides).items()
    ]


def _by_key(keys: pd.Series[Any], sides: Sides) -> dict[Any, Ids]:
    """Rows by key, of the keys that several splits have."""
    rows = np.flatnonzero((sides >= 0) & keys.notna().to_numpy())
    numbers, names = pd.factorize(keys.iloc[rows], sort=True)
    order = np.argsort(numbers, kind="stable")
    parts = np.split(rows[order], np.flatnonzero(np.diff(numbers[order])) + 1) if len(rows) else []
    return {name: part for name, part in zip(names, parts, strict=True) if len(set(sides[part].tolist())) > 1}


def _drop(
    index: pd.DataFrame, split: splits.Split, sides: Sides, near: list[Pair], found: dict[str, Any]
) -> splits.Split:
    """Leave out of validation what the test split has too, then of training what either has."""
    kept = sides.copy()
    keys = [index[name].where(index[name].notna(), None).to_numpy(object) for name in ("hash", "group")]
    for side in (1, 0):
        later = kept > side
        lost = np.zeros(len(kept), np.bool_)
        for key in keys:
            theirs = set(key[later].tolist()) - {None}
            lost |= np.fromiter((each in theirs for each in key.tolist()), np.bool_, len(key))
        lost[[pair.other for pair in near if later[pair.row]]] = True
        lost &= kept == side
        kept[lost] = -1
        found["num_dropped"][ORDER[side]] = int(lost.sum())
    rows = {name: part[kept[part] >= 0] for name, part in split.rows.items()}
    if not len(rows["train"]):
        raise UserError(
            "data.leaks=drop leaves no track to learn from; split=grouped keeps all of an artist on one side"
        )
    drawn = pd.Series([ORDER[side] if side >= 0 else "" for side in kept.tolist()], index=index.index, dtype=object)
    duplicates = splits.find_duplicates(index, drawn)
    num_dropped = split.num_dropped + sum(found["num_dropped"].values())
    stale = splits.warn_of_twins(split.duplicates)
    warnings = [warning for warning in split.warnings if warning not in stale]
    return replace(split, rows=rows, num_dropped=num_dropped, duplicates=duplicates, warnings=warnings)


def _tell_pair(index: pd.DataFrame, sides: Sides, pair: Pair, kind: str) -> dict[str, Any]:
    """A pair for the report, the track of the earlier split first."""
    rows = [pair.other, pair.row]
    labels = {index["label"].iloc[row] for row in rows} - {None}
    return {
        "kind": kind,
        "paths": [str(index["path"].iloc[row]) for row in rows],
        "splits": [ORDER[int(sides[row])] for row in rows],
        "labels_differ": len(labels) > 1,
        "score": round(pair.score, 4),
        "shift_s": round(pair.shift_s, 3),
        "speed": pair.speed,
    }
