"""The suite `tables`: from KKBOX's tables to columns, and training on them, beside the ways of the seed."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parallel_tunes import files
from parallel_tunes.benchmark.medians import estimate_ratio
from parallel_tunes.benchmark.relisten_judging import judge_rows
from parallel_tunes.benchmark.suite import Cell, Comparison, Suite
from parallel_tunes.benchmark.tables_place import ROWS, TRAINER, UNIT, Place
from parallel_tunes.config import BenchmarkJob
from parallel_tunes.parallel.workers import Worker
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError, suggest

FOLDER = "listens"  # of tables and columns, within the run's: removed when all is done, since they are large
READINGS = "readings.jsonl"  # what a reading tells besides its time
COMPARISONS = (
    Comparison("tables_vs_pandas_time", "tables to columns: ours against the seed's way", "tables_seed", "tables_ours"),
    Comparison("relisten_vs_seed_rows_per_s", "training: ours against the seed's loop", "relisten_seed", "relisten_ours"),
    Comparison("relisten_static_vs_seed_rows_per_s", "training: ours, without causal features, against the seed's loop",
               "relisten_seed", "relisten_static"),
)  # fmt: skip
MEMORY = "tables_vs_pandas_memory"
METHOD = (
    "A row is a process of its own, the seed's with the allocator as it comes, ours as hpc/torchrun.sh sets it. Every repetition"
    " times each once, in a new random order; a figure is the median over them, a ratio the median of the ratios within each.",
    "Tables: a new process for each reading, which has its imports and its compiled kernels before the time begins, and whose peak"
    " of memory, the tables that it maps among it, is that reading's alone. The files lie in the page cache. From CSV on disk to 20"
    " encoded columns, a row a listen: pandas, merges, -1 for what is missing, scikit-learn's LabelEncoder; ours writes its columns"
    " to disk besides. Both give the same codes, up to their names: that is checked.",
    "Training: the same batches, columns and table of embeddings for all, 64 wide; codes of fewer than 3 rows share, which the seed's"
    " did not: its steps go over the whole table and are the shorter for it. Its batches are laid out before its time begins; ours"
    " read and gather theirs within. After steps that are not kept.",
)  # fmt: skip


@contextlib.contextmanager
def open_tables(cfg: BenchmarkJob, run: Run, machine: Mapping[str, Any]) -> Iterator[Suite]:
    """Ours beside the seed's; what lies on disk stays there if the block is left by an error, to go on with.

    Args:
        machine: names where this runs.
    """
    if cfg.data.root is not None:
        raise UserError(f"data.root={cfg.data.root}: suite=tables makes its own tables; leave data.root out")
    names, place = choose(cfg), Place(run.folder / FOLDER, cfg.benchmark.listens, cfg.benchmark.seed)
    trainers = [name for name in names if ROWS[name].module == TRAINER]
    facts = {**machine, "cells": sorted(names), "listens": place.num_listens, "seed": place.seed, "batch": place.batch}
    readings = Readings(run.folder / READINGS, files.digest_json(facts)[:16])
    with contextlib.ExitStack() as ending:
        place.fill(run, with_rows=bool(trainers))
        cells = [make_reading(name, place, readings) for name in names if name not in trainers]
        workers = start_trainers(trainers, place, run, ending)
        cells += [make_training(name, worker, place, cfg.benchmark.seconds) for name, worker in workers.items()]
        known = {cell.name for cell in cells}

        def examine(medians_ms: Mapping[str, float]) -> dict[str, Any]:
            peaks = {name: worker.ask("go 1")["peak_memory_mib"] for name, worker in workers.items()}
            found = describe(place, readings, medians_ms) | readings.summarise(peaks)
            if workers:
                found["auc"] = judge_rows(place.rows, workers, place.folder, place.batch, run)
                found["auc"]["bayes"] = place.truth["bayes_auc_late"]
            return found

        yield Suite(
            unit="thousand",
            groups={cell.group: place.words[cell.group] for cell in cells},
            cells=tuple(cells),
            comparisons=tuple(each for each in COMPARISONS if {each.slow, each.fast} <= known),
            method=METHOD,
            notes=(),
            key=readings.key,
            examine=examine,
        )
    shutil.rmtree(place.folder)


def choose(cfg: BenchmarkJob) -> list[str]:
    """The rows that benchmark.rows names; by default all."""
    for name in cfg.benchmark.rows:
        if name not in ROWS:
            raise UserError(f"benchmark.rows={name}: expected some of {', '.join(ROWS)}{suggest(name, list(ROWS))}")
    return [name for name in ROWS if not cfg.benchmark.rows or name in cfg.benchmark.rows]


class Readings:
    """What each reading of tables has told, kept in a file: an interruption loses none.

    Args:
        key: of the suite; others' are passed over.
    """

    def __init__(self, file: Path, key: str) -> None:
        self.file, self.key = file, key

    def add(self, name: str, told: Mapping[str, Any]) -> None:
        """Keep what a row has told.

        Raises:
            UserError: the codes of the two ways differ.
        """
        with self.file.open("a") as stream:  # what an interruption has torn ends with the line before
            stream.write("\n" + json.dumps({"key": self.key, "row": name, **told}))
        found = self.digests()
        if len(found) == 2 and found["tables_seed"] != found["tables_ours"]:
            ours, other = found["tables_ours"], found["tables_seed"]
            wrong = sorted(name for name in {*ours, *other} if ours.get(name) != other.get(name))
            raise UserError(
                f"suite=tables: the two ways make different columns of {', '.join(wrong)}: please report it"
            )

    def of(self, name: str) -> list[dict[str, Any]]:
        """What a row has told, in order; a torn line is none."""
        found = []
        for line in self.file.read_text().splitlines() if self.file.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                told = json.loads(line)
                if told["key"] == self.key and told["row"] == name:
                    found.append(told)
        return found

    def digests(self) -> dict[str, dict[str, str]]:
        """Of each way that has told them, the digest of each column."""
        every = {
            name: [told["digests"] for told in self.of(name) if "digests" in told]
            for name in ("tables_seed", "tables_ours")
        }
        return {name: each[0] for name, each in every.items() if each}

    def summarise(self, others: Mapping[str, float]) -> dict[str, Any]:
        """Peaks of memory, those of others among them, and the ratio of ours to the seed's, of the i-th readings of both."""
        peaks = {name: [told["peak_mib"] for told in self.of(name)] for name in ROWS if self.of(name)}
        medians = {name: statistics.median(each) for name, each in peaks.items()} | dict(others)
        found: dict[str, Any] = {"peak_mib": {name: round(each, 1) for name, each in medians.items()}}
        if {"tables_seed", "tables_ours"} <= set(peaks):
            num = min(len(peaks["tables_seed"]), len(peaks["tables_ours"]))
            ratio = estimate_ratio(peaks["tables_ours"][:num], peaks["tables_seed"][:num])
            what = "tables, peak of memory: ours as a share of the seed's; less is better"
            found["other_ratios"] = {MEMORY: {"what": what, **ratio._asdict()}}
        return found


def make_reading(name: str, place: Place, readings: Readings) -> Cell:
    """The cell of a row that reads, each time in a new process."""
    row, spent_s = ROWS[name], [0.0]

    def measure() -> float:
        with contextlib.closing(place.start(name)) as worker:
            told = worker.ask("go")
            if row.word != "reload" and name not in readings.digests():
                told |= worker.ask("digest")
            spent_s[0] += worker.cpu_s()
        readings.add(name, told)
        return float(told["seconds"]) * place.thousands * UNIT / place.num_listens

    return Cell(name, row.what, row.group, row.kind, place.thousands, measure, cold=True, cpu_s=lambda: spent_s[0])


def start_trainers(names: Sequence[str], place: Place, run: Run, ending: contextlib.ExitStack) -> dict[str, Worker]:
    """Processes that train and have made their first steps; they stay up, idle while others are timed."""
    workers = dict[str, Worker]()
    with run.progress("start", len(names), " rows") as bar:
        for name in names:
            workers[name] = place.start(name)
            ending.callback(workers[name].close)
            workers[name].ask("go 1")
            bar.update()
    return workers


def make_training(name: str, worker: Worker, place: Place, wanted_s: float) -> Cell:
    """The cell of a row that trains, its measurements about so long."""
    row, per_s = ROWS[name], worker.ask("go 1")["rows_per_s"]
    num_steps = max(round(wanted_s * per_s / place.batch), 1)
    num = max(num_steps * place.batch // UNIT, 1)

    def measure() -> float:
        return float(num * UNIT / worker.ask(f"go {num_steps}")["rows_per_s"])

    return Cell(name, row.what, row.group, row.kind, num, measure, cpu_s=worker.cpu_s)


def describe(place: Place, readings: Readings, medians_ms: Mapping[str, float]) -> dict[str, Any]:
    """What the tables are, and the seconds of each way."""
    stars = [told["star_s"] for told in readings.of("tables_ours")]
    seconds = {
        name: round(medians_ms[name] / 1000 * place.num_listens / UNIT, 4)
        for name in ROWS
        if name in medians_ms and not name.startswith("relisten_")
    }
    tables = {
        "num_listens": place.num_listens,
        "num_columns": place.num_columns,
        "num_bytes": place.num_bytes,
        "seconds": seconds,
        "star_s": round(statistics.median(stars), 4) if stars else None,
        "has_equal_codes": True if len(readings.digests()) == 2 else None,  # else there were an error
    }
    return {"tables": tables, "reload_s": seconds.get("tables_reload")}
