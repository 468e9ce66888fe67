"""A table as material to explore: which columns are numbers, what is missing in them or cannot be true, who made the tracks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.config_explore import ExploreTableJob
from parallel_tunes.config_tracks import TracksConfig
from parallel_tunes.data import genres, tables, tracks
from parallel_tunes.data import track_features as columns
from parallel_tunes.data.material import Floats, Material, Matrix, draw_sample
from parallel_tunes.data.track_features import Sieve
from parallel_tunes.schema import UserError, suggest

SHARE = 0.9  # of a column's cells that must be numbers for the others to count as faults
PROBED = 1000  # cells, by which most columns of text are told
MOST_LABELS = 1000
FEWEST_NUMBERS = 4  # columns that must be alike before rows count as doubles
NO_SOUND = ("popularity", "year")  # numbers that are no feature of the music
UNKNOWN = {
    "duration_s": "no column duration_ms or duration_s",
    "level_db": "no column loudness or rms_mean",
    "tempo_bpm": "no column tempo",
}


def summarise(cfg: ExploreTableJob) -> Material:
    """The rows of a table, or of the tables in a folder.

    Raises:
        UserError: no table, no column of numbers, or no labels where they are asked for.
    """
    data = cfg.data
    table, id_name = _read(data)
    label = _find_label_column(cfg, table.frame)
    numbers, facts = _find_numbers(table, id_name, label)
    kept = np.arange(len(table.frame))
    if data.drop_bad:
        kept = np.flatnonzero(np.all([np.isfinite(values) for values in numbers.values()], axis=0))
        if not len(kept):
            raise UserError(
                f"{data.root}: data.drop_bad=true leaves none of {len(table.frame)} rows: each has a bad cell"
            )
        numbers = {name: values[kept] for name, values in numbers.items()}
    frame, has_artists = _describe(table, kept, data.group)
    facts |= {"num_read": len(table.frame), "num_dropped": len(table.frame) - len(kept)}
    frame["label"], facts["label"] = _to_labels(cfg, table.frame.iloc[kept], frame, label, has_artists)
    frame["duration_s"] = (
        numbers["duration_ms"] / 1000 if "duration_ms" in numbers else _or_nan(numbers, "duration_s", kept)
    )
    frame["level_db"], facts["level_unit"] = _to_levels(numbers, kept)
    frame["tempo_bpm"] = _or_nan(numbers, "tempo", kept)
    chosen, facts["left_out"] = _choose(numbers)
    rows = draw_sample(len(kept), cfg.explore.max_tracks, cfg.explore.seed)
    features = {name: _fill(values)[rows] for name, values in chosen.items()}
    has_titles = has_artists and "name" in table.frame
    return Material(
        frame=frame, rows=rows, facts=facts, unknown=UNKNOWN,
        features=Matrix(np.column_stack([*features.values()]) if features else np.empty((len(rows), 0)), [*features]),
        duplicates=_find_duplicates(frame, numbers, has_ids=bool(id_name), has_titles=has_titles),
    )  # fmt: skip


def _read(data: TracksConfig) -> tuple[tables.Table, str | None]:
    """The table with a column `id`, and what that was called; None where it had none, and rows are called by their places."""
    if data.root is None:
        raise UserError("data.root: say where the table is, a CSV or parquet file or a folder of them")
    if data.root.is_dir():
        return tracks.read_table(data, []), "id"
    table = tables.read(data.root, [], max_mib=data.max_mib, max_rows=data.max_rows)
    name = next((name for name in tracks.IDS if name in table.frame), None)
    if name is None:
        return replace(table, frame=table.frame.assign(id=table.places())), None
    return replace(table, frame=table.frame.rename(columns={name: "id"})), name


def _find_label_column(cfg: ExploreTableJob, frame: pd.DataFrame) -> str | None:
    """The column that labels are in, if they are in one."""
    wanted = cfg.explore.label
    if wanted in ("none", "genres"):
        return None
    if wanted == "auto":
        return next((name for name in ("label", "genre") if name in frame), None)
    if wanted not in frame:
        known = [str(name) for name in frame.columns]
        raise UserError(
            f"explore.label={wanted}: no such column{suggest(wanted, known)}; {cfg.data.root} has {', '.join(known[:30])}"
        )
    return wanted


def _find_numbers(
    table: tables.Table, id_name: str | None, label: str | None
) -> tuple[dict[str, Floats], dict[str, Any]]:
    """The columns of numbers, NaN where one is missing or cannot be true; and of all columns, what is in them."""
    frame = table.frame
    is_spotify = set(columns.AUDIO) <= set(frame.columns)  # else columns of these names may hold anything
    numbers: dict[str, Floats] = {}
    described: list[dict[str, Any]] = []
    impossible: list[dict[str, Any]] = []
    for name in map(str, frame.columns if id_name else frame.columns.drop("id")):
        column, is_text = frame[name], name == label or name in columns.NO_FEATURES - set(NO_SOUND)
        is_empty = (column.isna() | (column.astype(object) == "")).to_numpy(np.bool_)
        facts: dict[str, Any] = {"name": id_name if name == "id" else name, "num_missing": int(is_empty.sum())}
        if is_text or not _is_numbers(column, is_empty):
            described.append(facts | {"kind": "text", "num_distinct": int(column[~is_empty].astype(str).nunique())})
            continue
        values = columns.to_numbers(column).copy()
        values[~np.isfinite(values)] = np.nan
        facts["num_bad"] = int((np.isnan(values) & ~is_empty).sum())
        sieve = Sieve(np.isfinite(values))
        if is_spotify:
            columns.sift_impossible(name, values, column, sieve)
        for reason, rows in sieve.rows.items():
            values[rows] = np.nan
            shown = zip(table.places(rows[: columns.NUM_SHOWN]), sieve.shown[reason], strict=True)
            impossible.append(
                {"reason": reason, "num": len(rows), "examples": [f"{place}: {said}" for place, said in shown]}
            )
        facts["num_impossible"] = sum(map(len, sieve.rows.values()))
        described.append(facts | {"kind": "number", **_describe_numbers(values)})
        numbers[name] = values
    if "release_date" in frame and (years := columns.to_years(frame)) is not None and np.isfinite(years).any():
        numbers["year"] = years
        described.append(
            {
                "name": "year, of release_date",
                "num_missing": int(np.isnan(years).sum()),
                "kind": "number",
                **_describe_numbers(years),
            }
        )
    if not numbers:
        raise UserError(
            f"{table.sources[0].path}: no column of numbers; it has {', '.join(map(str, frame.columns[:30]))}"
        )
    files = {"files": [source.path.name for source in table.sources], "skipped": table.skipped}
    files["remarks"] = table.remarks
    return numbers, {"columns": described, "impossible": impossible, **files}


def _is_numbers(column: pd.Series[Any], is_empty: NDArray[np.bool_]) -> bool:
    """Whether what is there are numbers, but for a few faults."""
    there = column[~is_empty]
    return all(
        len(some) and float(np.isfinite(columns.to_numbers(some)).mean()) >= SHARE
        for some in (there.iloc[:PROBED], there)
    )


def _describe_numbers(values: Floats) -> dict[str, Any]:
    there = values[np.isfinite(values)]
    ends = np.quantile(there, [0, 0.5, 1]).tolist() if len(there) else [None] * 3
    return {"num_distinct": len(np.unique(there)), **dict(zip(("min", "median", "max"), ends, strict=True))}


def _describe(table: tables.Table, kept: NDArray[np.int64], group: str) -> tuple[pd.DataFrame, bool]:
    """Who the tracks are, and whether their artists are known."""
    credits = tracks.read_credits(table.frame)
    # a cell that names nobody makes its track the only one of its artist
    for found in credits.values():
        found[:] = [names or (f"? {row}",) for row, names in enumerate(found)]
    frame = tracks.describe(table, kept, credits, group)
    frame["where"] = frame["where"].where(frame["where"] != frame["path"], "")
    return frame, bool(credits)


def _to_labels(
    cfg: ExploreTableJob, kept: pd.DataFrame, frame: pd.DataFrame, label: str | None, has_artists: bool
) -> tuple[pd.Series[Any], str | None]:
    """Each track's label, None where it has none; and where labels come from."""
    found: list[str | None]
    assert cfg.data.root is not None
    beside = genres.place_beside(cfg.data.root)
    path = cfg.data.artists or (beside if beside.is_file() else None)
    if label is not None:
        found, origin = [text or None for text in columns.to_texts(kept[label])], f"column {label}"
    elif cfg.explore.label in ("auto", "genres") and path and has_artists:
        listed = genres.read_genres(path, max_mib=cfg.data.max_mib, max_rows=cfg.data.max_rows)
        found, origin = (
            genres.label_by_family(frame["artist"], listed).tolist(),
            f"families of the artists' genres, {path.name}",
        )
    elif cfg.explore.label == "genres":
        raise UserError(
            "explore.label=genres: give a table of tracks with a column artists, and as data.artists the artists' genres"
        )
    else:
        return pd.Series([None] * len(frame), dtype=object), None
    num = len(set(found) - {None})
    if label is not None and num > MOST_LABELS:
        raise UserError(
            f"explore.label={cfg.explore.label}: {num} labels in column {label!r}, over {MOST_LABELS}; name another, or none"
        )
    return pd.Series(found, dtype=object), origin


def _or_nan(numbers: dict[str, Floats], name: str, kept: NDArray[np.int64]) -> Floats:
    return numbers.get(name, np.full(len(kept), np.nan))


def _to_levels(numbers: dict[str, Floats], kept: NDArray[np.int64]) -> tuple[Floats, str]:
    """Loudness, or what the mean of the RMS makes of it; and its unit."""
    if "loudness" in numbers or "rms_mean" not in numbers:
        return _or_nan(numbers, "loudness", kept), "loudness (dB)"
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = 20 * np.log10(numbers["rms_mean"])
    return np.where(np.isfinite(levels), levels, np.nan), "mean RMS, dB below full scale"


def _choose(numbers: dict[str, Floats]) -> tuple[dict[str, Floats], dict[str, str]]:
    """The columns that serve as features, and why the others do not."""
    chosen, left_out = dict[str, Floats](), dict[str, str]()
    for name, values in numbers.items():
        there = values[np.isfinite(values)]
        if len(there) < 2 or (there == there[0]).all():
            left_out[name] = f"constant: {there[0]:g} throughout" if len(there) else "no number in any row"
        elif 2 * len(there) < len(values):
            left_out[name] = f"missing in {len(values) - len(there)} of {len(values)} rows"
        elif name == "key":
            left_out[name] = "keys form a circle: their numbers are no distances"
        elif name in NO_SOUND:
            left_out[name] = "no property of the sound"
        else:
            chosen[name] = values
    return chosen, left_out


def _fill(values: Floats) -> Floats:
    """Missing numbers stand at the column's median."""
    is_missing = np.isnan(values)
    return np.where(is_missing, np.median(values[~is_missing]), values)


def _find_duplicates(
    frame: pd.DataFrame, numbers: dict[str, Floats], *, has_ids: bool, has_titles: bool
) -> dict[str, list[str]]:
    """By kind of duplicate, a key per row; rows of the same key may be the same track."""
    keys: dict[str, list[str]] = {}
    if has_ids:
        keys["rows of the same id"] = frame["id"].to_list()
    if len(numbers) >= FEWEST_NUMBERS:
        hashes = pd.util.hash_pandas_object(pd.DataFrame(numbers), index=False)
        keys["rows alike in every number"] = hashes.astype(str).to_list()
    if has_titles:
        keys["the same title by the same artists"] = frame["hash"].to_list()
    return keys
