"""Who is there: every track's path, label and group, from a folder tree or a list."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from parallel_tunes.config import DataConfig
from parallel_tunes.data import label_sets, synthetic, tables
from parallel_tunes.files import digest_json, escape
from parallel_tunes.schema import UserError

Say = Callable[[str], None]
# endings of audio and of video, which has a sound track: what cannot be read of these is listed as failed
ENDINGS = (
    "3g2 3gp aac ac3 aif aifc aiff amr ape asf au avi caf dsf dts eac3 flac flv m2ts m4a m4b m4p m4r m4v mka mkv mov mp1 mp2 mp3 mp4 "
    "mpc mpeg mpg mpga oga ogg ogv ogx opus ra rf64 rm shn snd spx tak tta voc w64 wav wave weba webm wma wmv wv"
)
EXTENSIONS = frozenset(f".{name}" for name in ENDINGS.split())
# how such a file begins, whatever its name: containers, then MPEG audio and AAC without one
AUDIO = re.compile(
    rb"RIFF.{4}(?:WAVE|AVI )|RIFX.{4}WAVE|RF64|riff|FORM.{4}(?:AIF[FC]|8SVX)|\.snd|dns\.|fLaC|OggS|caff|wvpk|TTA1|tBaK|MAC |MPCK|MP\+"
    rb"|.{4}ftyp(?!hei|hev|mif|msf|avi)|\x1aE\xdf\xa3|0&\xb2u\x8ef\xcf\x11|#!AMR|DSD |FLV\x01|\.RMF|Creative Voice|ID3|ADIF|\x0bw"
    rb"|\x7f\xfe\x80\x01|\0\0\x01\xba|\xff[\xe2-\xe7\xf0-\xfd\xff][^\xf0-\xff]",
    re.DOTALL,
)
PICTURES = frozenset((".jpg", ".jpeg", ".png"))
# what pictures are called that lie beside music, and show none of it
COVERS = ("cover", "folder", "front", "back", "album", "artwork", "booklet", "inlay", "cd", "disc", "scan")
LIST_EXTENSIONS = (".csv", ".parquet")
# a segment of a track, by its name: song_seg3, song-part2, song (chunk 4), and GTZAN's blues.00000.3
SEGMENT = re.compile(
    r"(.+?)[ _.-]*[(\[]?(?:seg|segment|part|chunk|clip|slice|excerpt|snippet)[ _.-]*\d+[)\]]?|(.+\.\d{3,})\.\d{1,3}",
    re.IGNORECASE,
)


def scan(data: DataConfig, say: Say = lambda _: None) -> tuple[pd.DataFrame, Path]:
    """All tracks of a data set, audio or pictures, in the order of their paths.

    In a folder, a file is one by its ending or, where that says nothing, by how it begins.

    Args:
        say: takes lines for people: what else lies in a folder.

    Returns:
        Columns path (relative to the folder), label, group (None where unknown), split (None where no list gives it),
        bytes and mtime_ns (-1 where the file cannot be seen); and the folder that paths are relative to.

    Raises:
        UserError: no such folder or list, nothing in it, audio and pictures in one, or a list without the columns it needs.
    """
    if data.root is None:
        hint = (
            "; `ptunes synth run.name=corpus` writes one: data.root=logs/synth/corpus"
            if data.kind == "synthetic"
            else ""
        )
        raise UserError(f"data.root: say where the tracks are, a folder <label>/<file> or a CSV or parquet list{hint}")
    root = data.root / synthetic.LIST if data.kind == "synthetic" and data.root.is_dir() else data.root
    if not root.exists():
        raise UserError(f"data.root={root}: no such {'list' if root.suffix in LIST_EXTENSIONS else 'folder'}")
    others = Counter[str]()
    tracks, folder = (_scan_tree(root, others, say), root) if root.is_dir() else (_read_list(root), root.parent)
    chosen = np.array(_choose(tracks["path"].tolist(), data.media, root), bool)
    others.update(Path(path).suffix.lower() for path in tracks["path"][~chosen])
    tracks = tracks.loc[chosen].copy()
    _count_others(others, say)
    if tracks.empty:
        drawn = " ".join(sorted(PICTURES))
        wanted = {
            "audio": "audio files as <label>/<file> (wav, flac, mp3, ogg, m4a, …)",
            "pictures": f"pictures as <label>/<file> ({drawn})",
        }
        wanted["auto"] = f"{wanted['audio']} or spectrogram pictures ({drawn})"
        raise UserError(f"data.root={root}: no tracks; expected {wanted[data.media]}, or a list of them")
    if data.merge_labels:
        tracks["label"] = label_sets.merge_alike(tracks["label"].tolist())
    names = tracks["path"].map(escape).astype(object)  # the paths themselves, which open the files, stay as they are
    tracks["label"] = tracks["label"].map(escape)
    if data.group_regex is not None:
        tracks["group"] = _match_groups(names, data.group_regex)
    tracks["group"] = tracks["group"].fillna(find_recordings(names, tracks["label"]))
    states = [stat(folder / path) for path in tracks["path"]]
    tracks["bytes"] = [size for size, _ in states]
    tracks["mtime_ns"] = [mtime for _, mtime in states]
    return tracks.sort_values("path", kind="stable", ignore_index=True), folder


def find_recordings(paths: pd.Series[str], labels: pd.Series[str]) -> pd.Series[Any]:
    """The track that each file is a segment of, by the names; None for one that is a track by itself.

    Where a label's files would all be of one track, their names mean something else.
    """
    stems = paths.str.replace(r"\.[A-Za-z]\w{1,4}$", "", regex=True)
    parts = stems.map({stem: SEGMENT.fullmatch(stem) for stem in stems.unique()})
    found = parts.map(lambda match: match[1] or match[2], na_action="ignore").astype(object)
    found = found.where(
        found.notna(), stems.where(stems.isin(set(found.dropna())))
    )  # the whole track, beside its segments
    found = found.where(found.duplicated(keep=False) & found.notna(), None)
    labels = labels.where(labels.notna(), "")
    units = found.where(found.notna(), paths).groupby(labels.to_numpy()).nunique()
    sizes = labels.groupby(labels.to_numpy()).size()
    misread = set(units.index[(units == 1) & (sizes > 1)])
    return found.where(~labels.isin(misread), None)


def holds_pictures(tracks: pd.DataFrame) -> bool:
    """Whether a data set is of pictures, by the endings of its files."""
    return bool(len(tracks)) and _is_picture(str(tracks["path"].iloc[0]))


def _choose(paths: list[str], media: str, root: Path) -> list[bool]:
    """Which files are taken: all of one kind; beside audio, what is called like the cover of an album is none."""
    pictures = [_is_picture(path) for path in paths]
    num_audio = len(paths) - sum(pictures)
    if media == "pictures" or not num_audio:
        return pictures if media != "audio" else [False] * len(paths)
    shown = [path for path, is_picture in zip(paths, pictures, strict=True) if is_picture and not _is_cover(path)]
    if shown and media == "auto":
        raise UserError(
            f"data.root={root}: holds {num_audio} audio files and {len(shown)} pictures, {shown[0]} say; "
            "say which with data.media=audio or data.media=pictures, or give a folder of one kind"
        )
    return [not is_picture for is_picture in pictures]


def _is_picture(path: str) -> bool:
    return ("." + path.rpartition(".")[2].lower()) in PICTURES


def _is_cover(path: str) -> bool:
    return path.rpartition("/")[2].lower().startswith(COVERS)


def listing_digest(tracks: pd.DataFrame) -> str:
    """Names what `scan` saw: paths, labels, groups, sizes and times."""
    columns = ["path", "label", "group", "split", "bytes", "mtime_ns"]
    return digest_json(tracks[columns].astype(object).where(tracks[columns].notna(), None).values.tolist())


def _scan_tree(root: Path, others: Counter[str], say: Say) -> pd.DataFrame:
    """The tree <label>/…/<file>: the first folder is the label; what else lies there is counted by its endings."""
    rows: list[tuple[str, str]] = []
    misnamed: list[Path] = []  # folders that are called like tracks
    for relative, subfolders, names in _walk(root):
        found = _find_tracks(root / relative, names, EXTENSIONS | PICTURES, others)
        if not relative.parts:
            loose = [escape(name) for name in found if not _is_picture(name)]
            others.update(Path(name).suffix.lower() for name in found if _is_picture(name))
            if loose:
                shown = ", ".join(loose[:3]) + (", …" if len(loose) > 3 else "")
                say(
                    f"audio files above the folders that give labels are left out: {len(loose)} ({shown}); "
                    "move them into such a folder, or give a list (CSV: path, label)"
                )
            continue
        rows += [((relative / name).as_posix(), relative.parts[0].strip()) for name in found]
        misnamed += [relative / name for name in subfolders if _is_called_track(name)]
    # one that holds tracks is an album; any other stands where a track should be, and is listed to be told as failed
    for kind in (True, False) if misnamed else ():  # a picture makes no album of a folder that is called like audio
        held = [path for path, _ in rows if kind or not _is_picture(path)]
        albums = {above for path in held for above in Path(path).parents}
        alike = [folder for folder in misnamed if _is_picture(folder.name) == kind and folder not in albums]
        rows += [(folder.as_posix(), folder.parts[0].strip()) for folder in alike]
    return pd.DataFrame(
        {"path": [r[0] for r in rows], "label": [r[1] for r in rows], "group": None, "split": None}, dtype=object
    )


def list_tracks(root: Path, *, pictures: bool, say: Say = lambda _: None) -> list[Path]:
    """Every audio file, or picture, at any depth below a folder, in the order of their paths; `say` as for `scan`."""
    found, others = list[Path](), Counter[str]()
    for relative, _, names in _walk(root):
        tracks = _find_tracks(root / relative, names, PICTURES if pictures else EXTENSIONS, others)
        found += [relative / name for name in tracks]
    _count_others(others, say)
    return [root / path for path in sorted(found)]


def _find_tracks(folder: Path, names: list[str], endings: frozenset[str], others: Counter[str]) -> list[str]:
    """The names of tracks; the others are counted, by their endings."""
    found = list[str]()
    for name in names:
        ending = Path(name).suffix.lower()
        if name.startswith("."):  # .DS_Store, and what macOS leaves beside each file on foreign disks
            others["hidden"] += 1
        elif ending in endings or (ending not in PICTURES and endings != PICTURES and is_audio(folder / name)):
            found.append(name)
        else:
            others[ending] += 1
    return found


def _count_others(others: Counter[str], say: Say) -> None:
    if others:
        first = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:8]
        counts = ", ".join(f"{num} {escape(ending) or 'without ending'}" for ending, num in first)
        say(f"other files, left alone: {others.total()} ({counts}{', …' if len(others) > 8 else ''})")


def is_audio(path: Path) -> bool:
    """Whether a file is audio, or video, by how it begins, or would be by its ending."""
    if path.suffix.lower() in EXTENSIONS:
        return True
    try:
        if not path.is_file():  # a pipe would wait
            return False
        with path.open("rb") as stream:
            return AUDIO.match(stream.read(16)) is not None
    except OSError:
        return False


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders, relative to `root`, with their visible subfolders and their files."""
    for folder, subfolders, names in os.walk(root, followlinks=True):
        visible = sorted(name for name in subfolders if not name.startswith("."))
        subfolders[:] = [name for name in visible if not _leads_back(folder, name)]
        yield Path(folder).relative_to(root), visible, names


def _is_called_track(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS | PICTURES and not name.startswith(".")


def _leads_back(folder: str, name: str) -> bool:
    """Whether a subfolder is a link to a folder above it, through which a walk would go round in circles."""
    link = Path(folder).absolute() / name
    return link.is_symlink() and any(link.samefile(above) for above in link.parents)


def _read_list(path: Path) -> pd.DataFrame:
    """A CSV or parquet list with columns path and label, and if known group (or artist) and split."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(tables.open_list(path), dtype=str, keep_default_na=False)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"data.root={path}: not a table that can be read ({str(error).splitlines()[0]})") from error
    table.columns = table.columns.astype(str).str.strip()
    for column in ("path", "label"):
        if column not in table.columns:
            raise UserError(f"data.root={path}: no column {column!r}; it has {', '.join(map(str, table.columns))}")
    groups = next((name for name in ("group", "artist") if name in table.columns), None)
    chosen = {"path": "path", "label": "label", "group": groups, "split": "split" if "split" in table.columns else None}
    tracks = pd.DataFrame(
        {
            name: table[source].where(table[source].notna(), "").astype(str) if source else None
            for name, source in chosen.items()
        },
        dtype=object,
    )
    # blanks that people leave after a comma; a file may really be called so
    tracks = tracks.map(lambda text: _strip(text, path.parent), na_action="ignore").replace({"": None})
    for column in ("path", "label"):
        missing = tracks.index[tracks[column].isna()]
        if len(missing):
            raise UserError(f"data.root={path}: no {column} in line {missing[0] + 2}")
    twice = tracks["path"][tracks["path"].duplicated()]
    if len(twice):
        raise UserError(f"data.root={path}: {twice.iloc[0]} is listed twice")
    return tracks


def _strip(text: str, folder: Path) -> str:
    return text if text != text.strip() and (folder / text).is_file() else text.strip()


def _match_groups(paths: pd.Series[str], expression: str) -> list[str]:
    try:
        regex = re.compile(expression)
    except re.error as error:
        raise UserError(f"data.group_regex={expression}: {error}") from error
    if regex.groups < 1:
        raise UserError(f"data.group_regex={expression}: put the group in parentheses, for example ^[^/]+/(.+?) - ")
    found = [regex.search(path) for path in paths]
    for path, match in zip(paths, found, strict=True):
        if match is None or not match[1]:
            raise UserError(f"data.group_regex={expression}: finds no group in {path!r}")
    return [match[1] for match in found if match is not None]


def stat(path: Path) -> tuple[int, int]:
    """Bytes and mtime_ns of a file, -1 where it cannot be seen."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
