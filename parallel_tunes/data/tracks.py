"""Tables of tracks in Spotify's schema: features, popularity, artists and years, cleaned, and what was left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from parallel_tunes.config_tracks import PopularityConfig, TracksConfig
from parallel_tunes.data import artists, descriptor_tables, index, tables
from parallel_tunes.data import track_features as columns
from parallel_tunes.data.track_features import Numbers, Sieve
from parallel_tunes.files import digest_bytes, digest_json
from parallel_tunes.schema import UserError

IDS_OF_ARTISTS = "id_artists"
IDS = ("id", "track_id", "filename", "path")  # columns that may hold a track's id, the first one found


@dataclass(frozen=True)
class Tracks:
    """What is learnt from a table, its rows in the order of files and lines.

    frame: id, path (the id too), where (`FILE line N`), name, artist (the main one's name), group, label and split (None
        where unknown), popularity (0 to 100; NaN where the target is the genre and there is none), hash (alike for the
        same title by the same artists) and, where the table has dates, year.
    features: shape (num_rows, num_features).
    names: of the features.
    report: what was read and left out, as JSON.
    """

    frame: pd.DataFrame
    features: Numbers
    names: list[str]
    report: dict[str, Any]


def read_tracks(cfg: TracksConfig, task: PopularityConfig) -> Tracks:
    """Read and clean a table of tracks.

    A cell of a needed column that is no finite number is refused, or with `drop_bad` its row left out. Values that cannot
    be true are left out, and so are tracks listed twice: of the same id, or the same recording (artists and all features
    alike), the earliest by year, then by place, is kept.

    Raises:
        UserError: no table, columns that are missing or do not vary, cells that are no numbers, or no row left.
    """
    if cfg.root is None:
        raise UserError("data.root: say where the tracks are, a CSV or parquet file or a folder of them")
    needs_popularity = task.target != "genre"
    table = read_table(cfg, ["popularity"] if needs_popularity else [])
    frame, where = table.frame, str(table.sources[0].path)
    chosen, unused = columns.choose(task.features, frame, where)
    years = columns.to_years(frame)
    if task.year and years is None:
        raise UserError(f"task.year=true: {where} has no column release_date or year")
    checked = [*(["popularity"] if needs_popularity else []), *chosen]
    numbers = {name: columns.to_numbers(frame[name]) for name in checked}
    credits = read_credits(frame)
    sieve = Sieve(np.ones(len(frame), np.bool_))
    _sift_bad(table, numbers, credits, cfg.drop_bad, sieve)
    for name in checked:
        columns.sift_impossible(name, numbers[name], frame[name], sieve)
    if years is not None:
        dates = "release_date" if "release_date" in frame else "year"
        bounds = f"{dates} unreadable, or its year outside {columns.FIRST_YEAR} to the next"
        sieve.drop(bounds, np.isnan(years), dates, frame[dates])
    num_duplicates = _sift_duplicates(frame, numbers, years, credits, chosen, sieve)
    if not sieve.keeps.any():
        reasons = ", ".join(f"{len(rows)}: {reason}" for reason, rows in sieve.rows.items())
        raise UserError(f"{cfg.root}: none of {len(frame)} rows is left ({reasons})")
    kept = np.flatnonzero(sieve.keeps)
    features = {name: numbers[name][kept] for name in chosen}
    if task.year and years is not None:
        features["year"] = years[kept]
    matrix, names = columns.to_matrix(features, str(cfg.root))
    facts = describe(table, kept, credits, cfg.group)
    facts["popularity"] = numbers["popularity"][kept] if needs_popularity else _known_popularity(frame.iloc[kept])
    if years is not None:
        facts["year"] = years[kept].astype(np.int64)
    report = _report(table, sieve, facts["group"]) | {
        "num_duplicates": num_duplicates,
        "columns_not_learnt_from": unused,
    }
    return Tracks(facts, matrix, names, report)


def read_table(cfg: TracksConfig, required: list[str]) -> tables.Table:
    """The table, its column of ids named so."""
    assert cfg.root is not None
    if descriptor_tables.is_run(cfg.root):
        return descriptor_tables.read(cfg.root)
    refused: UserError | None = None
    for name in IDS:
        try:
            table = tables.read(cfg.root, [name, *required], max_mib=cfg.max_mib, max_rows=cfg.max_rows)
        except UserError as error:  # by the header already, where the column is missing
            refused = refused or error
            if f"no column {name!r}" not in str(error):
                raise
        else:
            frame = table.frame
            # a column of ids that come more than once names the tracks of which the rows are segments
            own = next((column for column in (name, *IDS) if column in frame and frame[column].is_unique), name)
            names = {own: "id"} if own == name else {name: "recording", own: "id"}
            return replace(table, frame=frame.rename(columns=names))
    assert refused is not None
    raise refused


def index_digest(tracks: Tracks) -> str:
    """Identifies the data wherever it lies: features, their names, popularity, groups, labels and years."""
    frame = tracks.frame
    numbers = [tracks.features, *(frame[name].to_numpy() for name in ("popularity", "year") if name in frame)]
    digests = [digest_bytes(np.ascontiguousarray(values).tobytes()) for values in numbers]
    return digest_json([tracks.names, digests, frame[["id", "group", "label"]].to_numpy().tolist()])


def read_credits(frame: pd.DataFrame) -> dict[str, list[artists.Names | None]]:
    """Names and ids of each track's artists, from the columns that are there."""
    named = [name for name in artists.COLUMNS if name in frame][:1]
    ids = [IDS_OF_ARTISTS] if IDS_OF_ARTISTS in frame else []
    return {name: artists.parse_column(frame[name].to_list()) for name in (*named, *ids)}


def _sift_bad(
    table: tables.Table,
    numbers: dict[str, Numbers],
    credits: dict[str, list[artists.Names | None]],
    drop_bad: bool,
    sieve: Sieve,
) -> None:
    """Refuse the first cell that is not what its column should hold, or leave such rows out."""
    bad = {name: ~np.isfinite(values) for name, values in numbers.items()}
    bad["id"] = np.array([not text for text in columns.to_texts(table.frame["id"])])
    bad |= {name: np.array([not names for names in found]) for name, found in credits.items()}
    if drop_bad:
        for name, rows in bad.items():
            sieve.drop(f"{name} is {_expected(name)}", rows, name, table.frame[name])
        return
    firsts = {name: int(np.argmax(rows)) for name, rows in bad.items() if rows.any()}
    if firsts:
        name = min(firsts, key=firsts.__getitem__)
        row = firsts[name]
        text = columns.to_texts(table.frame[name].iloc[row : row + 1])[0]
        holds = f"holds {text[:80]!r}, which is {_expected(name)}" if text else "is empty"
        raise UserError(
            f"{table.places([row], is_full=True)[0]}: column {name} {holds}; "
            "mend it, or leave such rows out with data.drop_bad=true"
        )


def _expected(name: str) -> str:
    if name in (*artists.COLUMNS, IDS_OF_ARTISTS):
        return "no list of names" if name.endswith("artists") else "no name"
    return "no id" if name == "id" else "no number"


def _sift_duplicates(
    frame: pd.DataFrame,
    numbers: dict[str, Numbers],
    years: Numbers | None,
    credits: dict[str, list[artists.Names | None]],
    chosen: Sequence[str],
    sieve: Sieve,
) -> int:
    """Leave out tracks listed twice; how many. Features that are not learnt from tell recordings apart too."""
    rows = np.flatnonzero(sieve.keeps)
    order = rows if years is None else rows[np.argsort(years[rows], kind="stable")]
    before = int(sieve.keeps.sum())
    is_bad = np.zeros(len(frame), np.bool_)
    is_bad[order] = frame["id"].iloc[order].duplicated().to_numpy()
    sieve.drop("an id that is listed twice", is_bad, "id", frame["id"])
    if credits:
        order = order[sieve.keeps[order]]
        made_by = _made_by(credits)
        signs = {"made by": ["\0".join(made_by[row]) for row in order]}
        spread = {name: numbers[name][order] for name in chosen}
        spread |= {
            name: frame[name].to_numpy()[order] for name in columns.AUDIO if name in frame and name not in chosen
        }
        is_bad = np.zeros(len(frame), np.bool_)
        is_bad[order] = pd.DataFrame(signs | spread).duplicated().to_numpy()
        sieve.drop("a recording that is listed twice: artists and features alike", is_bad, "id", frame["id"])
    return before - int(sieve.keeps.sum())


def _made_by(credits: dict[str, list[artists.Names | None]]) -> list[artists.Names]:
    """Each track's artists, by id where there are ids: names may be shared."""
    found = credits.get(IDS_OF_ARTISTS) or next(iter(credits.values()))
    return [names or () for names in found]


def describe(
    table: tables.Table,
    kept: np.ndarray[Any, np.dtype[np.int64]],
    credits: dict[str, list[artists.Names | None]],
    group: str,
) -> pd.DataFrame:
    """The columns of `Tracks.frame` that hold text."""
    rows = table.frame.iloc[kept]
    ids = np.array(columns.to_texts(rows["id"]), object)
    places = np.array(table.places(), object)[kept]
    facts = pd.DataFrame({"id": ids, "path": ids, "where": places}, dtype=object)
    titles = columns.to_texts(rows["name"]) if "name" in rows else [""] * len(kept)
    facts["name"] = pd.Series(titles, dtype=object)
    facts["artist"], facts["group"], facts["hash"] = None, None, ids
    if credits:
        named = next(iter(credits.values()))
        everyone = _made_by(credits)
        made_by = [everyone[row] for row in kept]
        groups = artists.link(made_by) if group == "linked" else [names[0] for names in made_by]
        facts["artist"] = pd.Series([(named[row] or ("",))[0] for row in kept], dtype=object)
        facts["group"] = pd.Series(groups, dtype=object)
        # a track without a title, or without artists, may be any: it is like itself alone
        hashes = ["\0".join((t.casefold(), *a)) if t else i for t, a, i in zip(titles, made_by, ids, strict=True)]
        facts["hash"] = pd.Series(hashes, dtype=object)
    for name, sources in (("label", ("label", "genre")), ("split", ("split",)), ("recording", ("group", "recording"))):
        source = next((column for column in sources if column in rows), None)
        texts = [text or None for text in columns.to_texts(rows[source])] if source else [None] * len(kept)
        facts[name] = pd.array(texts, dtype=object)
    if not credits:
        recording = facts.pop("recording")
        facts["group"] = recording.where(recording.notna(), index.find_recordings(facts["id"], facts["label"]))
    return facts.drop(columns="recording", errors="ignore")


def _known_popularity(rows: pd.DataFrame) -> Numbers:
    return columns.to_numbers(rows["popularity"]) if "popularity" in rows else np.full(len(rows), np.nan)


def _report(table: tables.Table, sieve: Sieve, groups: pd.Series[Any]) -> dict[str, Any]:
    sizes = groups.value_counts()
    dropped = {}
    for reason, rows in sieve.rows.items():
        places = table.places(rows[: columns.NUM_SHOWN])
        examples = [f"{place}: {shown}" for place, shown in zip(places, sieve.shown[reason], strict=True)]
        dropped[reason] = {"num": len(rows), "examples": examples}
    return {
        "num_read": len(table.frame),
        "num_kept": int(sieve.keeps.sum()),
        "files": [source.path.name for source in table.sources],
        "skipped": table.skipped,
        "remarks": table.remarks,
        "dropped": dropped,
        "num_groups": len(sizes),
        "largest_group_share": float(sizes.max() / len(groups)) if len(sizes) else None,
    }
