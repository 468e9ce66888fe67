"""Which tracks are learnt from, chosen by and judged by: drawn by track or group, before any segmenting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from parallel_tunes.config_run import SplitConfig
from parallel_tunes.data import gtzan
from parallel_tunes.data.label_sets import stratify_sets
from parallel_tunes.schema import UserError

SPLITS = ("train", "valid", "test")
UNGROUPED = (
    "no artists, recordings or other groups are known: the split is random, and tracks of one artist may lie on both sides;"
    " a column artist or group tells them, of files also data.group_regex"
)


@dataclass(frozen=True)
class Split:
    """Rows of the index by split, and what was noticed while drawing them."""

    kind: str
    rows: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]
    num_excluded: int = 0  # tracks in no list
    num_dropped: int = 0  # duplicates left out
    duplicates: list[dict[str, object]] = field(default_factory=list)  # byte-identical files
    warnings: list[str] = field(default_factory=list)


def draw(
    tracks: pd.DataFrame, cfg: SplitConfig, *, twins: str = "byte-identical files", multi_label: bool = False
) -> Split:
    """Split an index (columns path, label, group, split, hash; for split=time also year) as `cfg` says.

    Args:
        twins: what tracks of equal hash are.
        multi_label: whether a label may be several, a|b.

    Raises:
        UserError: shares that do not add up, groups or lists that are not there, or no track to learn from.
    """
    if abs(cfg.train + cfg.valid + cfg.test - 1) > 1e-6 or cfg.train == 0:
        raise UserError(
            f"split.train={cfg.train:g} split.valid={cfg.valid:g} split.test={cfg.test:g}: shares must add up to 1, train above 0"
        )
    kind = cfg.kind
    has_groups = bool(tracks["group"].notna().any())
    warnings: list[str] = []
    if kind == "auto":
        kind = "grouped" if has_groups else "stratified"
        if not has_groups:
            warnings.append(UNGROUPED)
    if kind == "grouped" and not has_groups:
        raise UserError(
            "split=grouped: no groups are known; give a list with a column group or artist, or data.group_regex"
        )
    kept = tracks[~tracks["hash"].duplicated()] if cfg.drop_duplicates else tracks
    if kind == "lists":
        names = _listed(kept, cfg)
    elif kind == "gtzan_fault_filtered":
        names = np.array(gtzan.draw(kept["path"]), object)
    elif kind in ("random", "time"):
        names = _deal(_order(kept, kind, cfg.seed), cfg)
    else:
        # without groups, every track is its own
        groups = kept["group"].where(kept["group"].notna(), kept["path"]) if kind == "grouped" else kept["path"]
        stratify = stratify_sets if multi_label else _stratify
        names = stratify(kept["label"], groups, cfg, warnings)
    rows = {name: np.asarray(kept.index[names == name], np.int64) for name in SPLITS}
    if not len(rows["train"]):
        raise UserError("the split leaves no track to learn from; see split.train and the lists")
    drawn = pd.Series("", index=tracks.index, dtype=object)
    drawn[kept.index] = names
    duplicates = find_duplicates(tracks, drawn)
    warnings += warn_of_twins(duplicates, twins)
    num_left = int((names == "").sum())
    if num_left:
        warnings.append(f"{num_left} tracks are in no list and left out")
    return Split(kind, rows, num_left, len(tracks) - len(kept), duplicates, warnings)


def say(kind: str) -> str:
    """A kind of split in words: what is stratified by label is random within each."""
    return "random, stratified" if kind == "stratified" else kind


def warn_of_twins(duplicates: list[dict[str, object]], twins: str = "byte-identical files") -> list[str]:
    """A line of warning where `find_duplicates` found some in different splits."""
    num = sum(bool(pair["leaks"]) for pair in duplicates)
    text = f"{num} sets of {twins} lie on both sides of the split; split.drop_duplicates=true keeps one of each"
    return [text] if num else []


def _order(tracks: pd.DataFrame, kind: str, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What tracks are dealt in the order of: their year of release, or a lot."""
    if kind == "random":
        return np.random.Generator(np.random.Philox(key=seed)).random(len(tracks))
    if "year" not in tracks or not tracks["year"].notna().all():
        raise UserError(
            "split=time: the years of release are not known; give a table with a column release_date or year"
        )
    return tracks["year"].to_numpy(np.float64)


def _deal(
    order: np.ndarray[tuple[int], np.dtype[np.float64]], cfg: SplitConfig
) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Train first, then valid, then test; those of equal order, a year say, stay together, where the shares come nearest."""
    values, counts = np.unique(order, return_counts=True)
    shares = np.concatenate([[0.0], np.cumsum(counts) / len(order)])
    ends = [int(np.abs(shares - share).argmin()) for share in (cfg.train, cfg.train + cfg.valid)]
    place = np.searchsorted(values, order)
    names = np.full(len(order), "test", object)
    names[place < ends[1]] = "valid"
    names[place < ends[0]] = "train"
    return names


def find_duplicates(tracks: pd.DataFrame, drawn: pd.Series[str]) -> list[dict[str, object]]:
    """Sets of byte-identical files: their paths, whether their labels differ, whether they lie in different splits."""
    twins = tracks.index[tracks["hash"].duplicated(keep=False)]
    sets, paths = pd.factorize(tracks.loc[twins, "hash"])[0], tracks.loc[twins, "path"].to_list()
    labels, sides = tracks.loc[twins, "label"].to_list(), drawn[twins].to_list()
    members: dict[int, list[int]] = {}
    for place, number in enumerate(sets):
        members.setdefault(int(number), []).append(place)
    return [
        {
            "paths": [paths[place] for place in places],
            "labels_differ": len({labels[place] for place in places} - {None}) > 1,
            "leaks": len({sides[place] for place in places} - {""}) > 1,
        }
        for places in members.values()
    ]


def _stratify(
    labels: pd.Series[str], groups: pd.Series[str], cfg: SplitConfig, warnings: list[str]
) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Deal whole groups so that each label comes near its shares; a label's first group goes to train, its next to test."""
    names = np.full(len(labels), "", object)
    shares = {
        name: share for name, share in (("train", cfg.train), ("test", cfg.test), ("valid", cfg.valid)) if share > 0
    }
    rng = np.random.Generator(np.random.Philox(key=cfg.seed))
    members = {
        str(group): np.asarray(rows)
        for group, rows in groups.reset_index(drop=True).groupby(groups.to_numpy(), sort=True).indices.items()
    }
    values = labels.to_numpy()
    # groups are dealt label by label, largest first, in random order among equals; one that spans labels goes with its main one
    main_label = {
        group: max(sorted(set(values[rows])), key=lambda label: int((values[rows] == label).sum()))
        for group, rows in members.items()
    }
    for label in sorted(set(values)):
        mine = [group for group in members if main_label[group] == label]
        order = [mine[at] for at in rng.permutation(len(mine))]
        order.sort(key=lambda group: -len(members[group]))
        total = sum(len(members[group]) for group in order)
        dealt = dict.fromkeys(shares, 0)
        for place, group in enumerate(order):
            empty = [name for name in shares if dealt[name] == 0]
            # the last groups fill what is still empty, so that every split sees every label where it can
            candidates = empty if empty and len(order) - place <= len(empty) else list(shares)
            name = max(candidates, key=lambda name: shares[name] * total - dealt[name])
            names[members[group]] = name
            dealt[name] += len(members[group])
        lacking = [name for name in shares if dealt[name] == 0]
        if lacking:
            unit = "track" if len(order) == total else "group"
            plural = unit if len(order) == 1 else unit + "s"
            warnings.append(f"label {label!r} has {len(order)} {plural}: none is left for {' and '.join(lacking)}")
    return names


def _listed(tracks: pd.DataFrame, cfg: SplitConfig) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """Splits from text files of names, or from the list's own column."""
    files = {"train": cfg.train_list, "valid": cfg.valid_list, "test": cfg.test_list}
    if not any(files.values()):
        if not tracks["split"].notna().any():
            raise UserError(
                "split=lists: give split.train_list, split.valid_list, split.test_list, or a list with a column split"
            )
        names = tracks["split"].where(tracks["split"].notna(), "").to_numpy(object)
        strange = sorted(set(names) - {*SPLITS, ""})
        if strange:
            raise UserError(f"split=lists: the column split holds {strange[0]!r}; expected train, valid or test")
        return names
    names = np.full(len(tracks), "", object)
    # a line may be a path, a file name, or a name without its ending
    spellings = [{path, Path(path).name, Path(path).stem, str(Path(path).with_suffix(""))} for path in tracks["path"]]
    is_flat = not tracks["path"].str.contains("/").any()  # a table's names have no folders, those of a list may
    for name, file in files.items():
        if file is None:
            continue
        try:
            lines = {line.strip() for line in file.read_text().splitlines()} - {""}
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"split.{name}_list={file}: cannot be read ({error})") from error
        wanted = lines | {
            str(Path(line).with_suffix(""))
            for line in lines
            if Path(line).suffix.lower() in (".wav", ".au", ".mp3", ".flac", ".ogg", ".jpg", ".png")
        }
        if is_flat:
            wanted |= {Path(line).name for line in wanted}
        for row, known in enumerate(spellings):
            if known & wanted:
                if names[row]:
                    raise UserError(
                        f"split=lists: {tracks['path'].iloc[row]} is in the lists of {names[row]} and {name}"
                    )
                names[row] = name
    return names
