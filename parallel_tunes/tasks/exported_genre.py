"""What an exported genre model is worth on the tracks of a split, beside the model that it was exported from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.decode import AudioError
from parallel_tunes.config_export import ExportConfig
from parallel_tunes.data import label_sets
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.tasks import genre
from parallel_tunes.train import metrics
from parallel_tunes.train.judging import Resamples, judge_sums
from parallel_tunes.train.model_folder import ModelFolder
from parallel_tunes.train.windows import Feed, cut_windows

Answer = Callable[[Feed], Mapping[str, NDArray[np.floating[Any]]]]  # of windows, probabilities by runtime
SHOWN = ("accuracy", "map", "macro_auc", "auc", "loss")  # of all figures
MAX_BYTES = 1 << 31
NUM_RESAMPLES = 2000


def judge(folder: ModelFolder, shards: ShardSet, answer: Answer, cfg: ExportConfig, run: Run) -> dict[str, Any]:
    """Judge each runtime by the tracks of a split, decoded anew; and let them answer the windows of the validation split too.

    Returns:
        `split`, each runtime's figures, and under `lost` what float32 has of them and int8 has not, with a paired interval;
        under `turned` the share of tracks that one of the two names rightly and the other wrongly.

    Raises:
        UserError: this is other data than the model was trained on, or none of it can be decoded.
    """
    rows, _, split = genre.choose_tracks(folder, shards, cfg.split, run, "export.split")
    rows, found = _answer_tracks(folder, shards, rows, answer, cfg, run)
    compared = [cfg.split]
    if cfg.split not in ("valid", "all"):
        with contextlib.suppress(UserError):  # there may be none
            valid, _, _ = genre.choose_tracks(folder, shards, "valid", run, "export.split")
            _answer_tracks(folder, shards, valid, answer, cfg, run)
            compared.append("valid")
    held = label_sets.tabulate(
        shards.index["label"].to_numpy(object)[rows], folder.classes, multi_label=folder.multi_label
    )
    targets: NDArray[np.integer] = held if folder.multi_label else held.argmax(1)
    groups = genre.group_numbers(shards, rows)
    answers = {name: metrics.Judged(rows, chances, targets) for name, chances in found.items()}
    figures = {
        name: _show(genre.judge(each, folder.thresholds, folder.classes, groups)) for name, each in answers.items()
    }
    right = {name: _is_right(each, folder.thresholds) for name, each in answers.items()}
    change = right["float32"].astype(np.float64) - right["int8"]
    lost = judge_sums(
        np.column_stack([np.ones(len(rows)), change]),
        {"accuracy": lambda sums: sums[:, 1] / sums[:, 0]},
        Resamples(len(rows), groups, NUM_RESAMPLES),
    )
    if not change.any():
        lost["accuracy_ci95"] = None  # resamples of zeros know no doubt; `turned` has an interval all the same
    turned, method = metrics.interval_of_mean(np.abs(change), groups)
    return {
        "split": split,
        "parity_of": f"the {' and '.join(compared)} tracks",
        "n": len(rows),
        "unit": "tracks",
        **figures,
        "lost": lost,
        "turned": {"share": float(np.abs(change).mean()), "share_ci95": turned, "share_ci95_method": method},
    }


def _answer_tracks(
    folder: ModelFolder, shards: ShardSet, rows: Ids, answer: Answer, cfg: ExportConfig, run: Run
) -> tuple[Ids, dict[str, NDArray[np.float64]]]:
    """The rows that could be decoded, of `export.max_tracks` at most, and by runtime each one's mean over its windows."""
    root, paths, hashes = Path(shards.manifest["root"]), shards.index["path"], shards.index["hash"]
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, cfg.max_tracks).round().astype(np.int64))]
    windows = {"window": int(folder.facts["windows"]["num_frames"]), "overlap": folder.facts["windows"]["overlap"]}
    means, decoded = list[dict[str, NDArray[np.float64]]](), list[int]()
    with run.progress("compare", len(chosen)) as bar:
        for row in chosen.tolist():
            bar.update()
            try:
                clip = front_end.extract(root / paths[row], folder.features, max_bytes=MAX_BYTES)
            except AudioError as error:
                run.warn(f"{paths[row]}: left out: {error}")
                continue
            if clip.source.hash != hashes[row]:
                run.warn(f"{paths[row]}: left out: not the file that the shards were made of")
                continue
            parts = [answer(feed) for feed in cut_windows(clip, folder.features, **windows)]
            means.append(
                {name: np.concatenate([part[name] for part in parts]).mean(0, np.float64) for name in parts[0]}
            )
            decoded.append(row)
    if not decoded:
        raise UserError(f"data.root={root}: none of these tracks can be decoded; export without data compares on noise")
    return np.array(decoded, np.int64), {name: np.stack([mean[name] for mean in means]) for name in means[0]}


def _is_right(answers: metrics.Judged, thresholds: genre.Thresholds | None) -> NDArray[np.bool_]:
    if thresholds is None:
        return np.asarray(answers.probabilities.argmax(1) == answers.targets)
    return np.asarray(((answers.probabilities >= thresholds) == (answers.targets > 0)).all(1))


def _show(found: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in found.items() if name.removesuffix("_ci95").removesuffix("_ci95_method") in SHOWN
    }
