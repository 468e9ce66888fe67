"""Which tracks are learnt from, chosen by and judged by: drawn by track or group, before any segmenting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from parallel_tunes.config import SplitConfig
from parallel_tunes.schema import UserError

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Split:
    """Rows of the index by split, and what was noticed while drawing them."""

    kind: str
    rows: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]
    num_excluded: int = 0  # tracks in no list
    num_dropped: int = 0  # duplicates left out
    duplicates: list[dict[str, object]] = field(default_factory=list)  # byte-identical files
    warnings: list[str] = field(default_factory=list)


def draw(tracks: pd.DataFrame, cfg: SplitConfig) -> Split:
    """Split an index (columns path, label, group, split, hash) as `cfg` says.

    Raises:
        UserError: shares that do not add up, groups or lists that are not there, or no track to learn from.
    """
    if abs(cfg.train + cfg.valid + cfg.test - 1) > 1e-6 or cfg.train == 0:
        raise UserError(
            f"split.train={cfg.train:g} split.valid={cfg.valid:g} split.test={cfg.test:g}: shares must add up to 1, train above 0"
        )
    kind = cfg.kind
    has_groups = bool(tracks["group"].notna().any())
    if kind == "auto":
        kind = "grouped" if has_groups else "stratified"
    if kind == "grouped" and not has_groups:
        raise UserError(
            "split=grouped: no groups are known; give a list with a column group or artist, or data.group_regex"
        )
    kept = tracks[~tracks["hash"].duplicated()] if cfg.drop_duplicates else tracks
    warnings: list[str] = []
    if kind == "lists":
        names = _listed(kept, cfg)
    else:
        # without groups, every track is its own
        groups = kept["group"].where(kept["group"].notna(), kept["path"]) if kind == "grouped" else kept["path"]
        names = _stratify(kept["label"], groups, cfg, warnings)
    rows = {name: np.asarray(kept.index[names == name], np.int64) for name in SPLITS}
    if not len(rows["train"]):
        raise UserError("the split leaves no track to learn from; see split.train and the lists")
    drawn = pd.Series("", index=tracks.index, dtype=object)
    drawn[kept.index] = names
    duplicates = find_duplicates(tracks, drawn)
    across = [pair for pair in duplicates if pair["leaks"]]
    if across:
        warnings.append(
            f"{len(across)} sets of byte-identical files lie on both sides of the split; split.drop_duplicates=true keeps one of each"
        )
    num_left = int((names == "").sum())
    if num_left:
        warnings.append(f"{num_left} tracks are in no list and left out")
    return Split(kind, rows, num_left, len(tracks) - len(kept), duplicates, warnings)


def find_duplicates(tracks: pd.DataFrame, drawn: pd.Series[str]) -> list[dict[str, object]]:
    """Sets of byte-identical files: their paths, whether their labels differ, whether they lie in different splits."""
    found: list[dict[str, object]] = []
    twins = tracks[tracks["hash"].duplicated(keep=False)]
    for _, rows in twins.groupby("hash", sort=False):
        sides = {drawn[row] for row in rows.index} - {""}
        found.append(
            {"paths": list(rows["path"]), "labels_differ": rows["label"].nunique() > 1, "leaks": len(sides) > 1}
        )
    return found


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
        for row, known in enumerate(spellings):
            if known & wanted:
                if names[row]:
                    raise UserError(
                        f"split=lists: {tracks['path'].iloc[row]} is in the lists of {names[row]} and {name}"
                    )
                names[row] = name
    return names
