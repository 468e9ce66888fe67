"""What the launches of a study came to: a row for each, in results.parquet and results.csv; pages are drawn from nothing else."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from parallel_tunes.run import Run
from parallel_tunes.scaling.grid import Launch, TrainCell
from parallel_tunes.scaling.study import Study, read_json
from parallel_tunes.schema import UserError

Row = dict[str, Any]
FILE = "results.parquet"


def collect(study: Study) -> list[Row]:
    """A row for each launch, those that are missing too."""
    return [read_row(study, launch) for launch in study.launches]


def read_row(study: Study, launch: Launch) -> Row:
    """What one launch came to."""
    outcome, place, cell = study.outcome(launch), study.place(launch), launch.cell
    common = {
        "cell": cell.name,
        "launch": launch.number,
        **{name: outcome.get(name) for name in ("status", "reason", "seconds")},
    }
    if isinstance(cell, TrainCell):
        axes = {name: getattr(cell, name) for name in ("gpus", "batch", "global_batch", "precision", "ddp")}
        row = {**common, "kind": "train", **axes}
        if outcome["status"] == "ok":
            return row | read_training(read_json(place / "report.json"), read_rows(place))
        peak = outcome.get("peak_memory_mib")
        return row | {"peak_memory_mib": [] if peak is None else [peak]}
    row = {**common, "kind": "preprocess", "engines": cell.engines, "shard_mib": cell.shard_mib}
    if outcome["status"] != "ok":
        return row
    if cell.engines is None:
        made = read_json(place / "librosa.json")
        return row | {"num_tracks": made["num_tracks"], "tracks_per_s": made["num_tracks"] / made["seconds"]}
    found = read_json(place / "report.json")["metrics"]
    return row | {name: found[name] for name in ("num_tracks", "num_shards", "tracks_per_s")}


def read_rows(place: Path) -> list[dict[str, Any]]:
    """The rows of a training's metrics.jsonl."""
    return [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]


def read_training(report: dict[str, Any], epochs: list[dict[str, Any]]) -> Row:
    """Of a training's report and epochs: its windows, the rest of an epoch, memory and target."""
    timing, spent = report["timing"], report["time_s"]
    shared, bare = timing["shared"], timing["bare"] or {}
    target = report.get("target", {"seconds": [None], "epochs": [None]})
    joules = [each for each in shared["joules"] if each is not None]
    return {
        **{name: shared[name] for name in ("step_s", "samples_per_s", "data_s", "norm_s", "agree_s")},
        "bare_step_s": bare.get("step_s", []),
        "is_stable": timing["is_stable"],
        "num_steps": timing["num_steps"],
        "first_steps_s": timing["first_steps_s"],
        "compile_s": spent.get("compile"),
        "setup_s": report["seconds"] - sum(spent.values()),
        "eval_s": statistics.median(row["eval_s"] for row in epochs),
        "checkpoint_s": spent["checkpoint"] / len(epochs),
        "peak_memory_mib": timing["peak_memory_mib"],
        "joules_a_sample": statistics.median(joules) if joules else None,
        "precision_used": report["precision"],
        "target_s": target["seconds"][0],
        "target_epochs": target["epochs"][0],
        "num_epochs": len(epochs),
        "machines": json.dumps(timing["machines"]),
        "versions": json.dumps(report["versions"]),
        "git": report["git"],
        "device": report["device"],
    }


def save(run: Run, rows: list[Row]) -> None:
    """Write results.parquet and, for people, results.csv."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    whole = [{name: row.get(name) for name in names} for row in rows]
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(whole), stream)
    run.write_bytes(FILE, stream.getvalue())
    run.write_bytes("results.csv", pd.DataFrame(whole).to_csv(index=False).encode())


def load(folder: Path) -> list[Row]:
    """The rows of a study's results.parquet.

    Raises:
        UserError: there are none that can be read.
    """
    path = folder / FILE
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these
        raise UserError(
            f"{path}: no results of a scaling study ({type(error).__name__}); name a study's folder"
        ) from error
    if not {"cell", "launch", "status", "kind"} <= set(table.column_names):
        raise UserError(f"{path}: no results of a scaling study; name a study's folder")
    return [dict(row) for row in table.to_pylist()]


def list_machines(rows: list[Row]) -> list[dict[str, Any]]:
    """The machines that launches ran on, each once."""
    every = [machine for row in rows if row.get("machines") for machine in json.loads(row["machines"])]
    return list({machine["host"]: machine for machine in every}.values())
