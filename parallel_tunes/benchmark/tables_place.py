"""What the suite `tables` measures: its rows, and the place on disk where their tables and columns lie."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from parallel_tunes import files
from parallel_tunes.benchmark import relisten_rows
from parallel_tunes.data import listens, synthetic_listen_tables, synthetic_listens
from parallel_tunes.data.listen_tables import COLUMNS
from parallel_tunes.parallel.launch import Command
from parallel_tunes.parallel.workers import Worker, launcher_settings, plain_command
from parallel_tunes.run import Run

READER, TRAINER = "parallel_tunes.benchmark.tables_worker", "parallel_tunes.benchmark.relisten_worker"
UNIT = 1000  # listens
USERS, SONGS = 34_000 / 7_400_000, 2_300_000 / 7_400_000  # a listen, as in the real tables
MISSING = 0.01  # of the songs have no metadata
BATCH = 65_536


@dataclass(frozen=True)
class Row:
    """A process: what it does, and which allocator it has."""

    what: str
    group: str
    kind: str
    module: str
    word: str  # what the module calls it
    is_tuned: bool = True


ROWS = {
    "tables_seed": Row("the seed's way: pandas, LabelEncoder", "tables", "peer", READER, "seed", is_tuned=False),
    "tables_ours": Row("ours, all cells gathered to rows", "tables", "ours", READER, "ours"),
    "tables_reload": Row("ours, made before: opened, every byte read", "tables", "part", READER, "reload"),
    "relisten_seed": Row("the seed's network and loop", "relisten", "peer", TRAINER, "seed", is_tuned=False),
    "relisten_ours": Row("ours, causal features too", "relisten", "ours", TRAINER, "ours"),
    "relisten_static": Row("ours, without causal features", "relisten", "part", TRAINER, "ours_static"),
}


@dataclass(frozen=True)
class Place:
    """Folders of the tables, the columns and the training rows."""

    folder: Path
    num_listens: int
    seed: int

    @property
    def batch(self) -> int:
        """Rows of a step; fewer where there are few in all."""
        return min(BATCH, self.num_listens // 10)

    @property
    def thousands(self) -> int:
        """Units of the whole tables."""
        return max(self.num_listens // UNIT, 1)

    @property
    def words(self) -> dict[str, str]:
        """The groups, in words."""
        num, batch = (f"{each:,}".replace(",", "\u202f") for each in (self.num_listens, self.batch))
        return {
            "tables": f"Tables of {num} listens to columns, by thousands of listens",
            "relisten": f"Training on them, a batch of {batch}, by thousands of listens",
        }

    @cached_property
    def truth(self) -> dict[str, Any]:
        """What was planted."""
        found: dict[str, Any] = json.loads((self.folder / "csv" / synthetic_listen_tables.TRUTH).read_text())
        return found

    @cached_property
    def rows(self) -> relisten_rows.Listens:
        """What is trained on."""
        return relisten_rows.Listens.open(self.folder / "rows")

    @cached_property
    def num_bytes(self) -> int:
        """Of the tables."""
        return sum(path.stat().st_size for path in listens.find_tables(self.folder / "csv").values())

    @property
    def num_columns(self) -> int:
        """Of a listen with all that the tables say of its user and song."""
        return len(COLUMNS["train"]) + sum(len(COLUMNS[name]) - 1 for name in ("songs", "members", "song_extra_info"))

    def command(self, name: str) -> Command:
        """How a row's process is started."""
        row = ROWS[name]
        reads = (str(self.folder / "csv"), str(self.folder / "columns"))
        words = reads if row.module == READER else (str(self.folder / "rows"), str(self.batch))
        return plain_command(row.module, (row.word, *words), launcher_settings() if row.is_tuned else {})

    def start(self, name: str) -> Worker:
        """A row's process."""
        return Worker(name, self.command(name), self.folder / f"{name}.log")

    def fill(self, run: Run, *, with_rows: bool) -> None:
        """Make what is not there yet: the tables, the columns of our way, the rows to train on."""
        (self.folder / "csv").mkdir(parents=True, exist_ok=True)
        with run.progress("make", 3, " steps") as bar:
            # the file of the probabilities is the last
            if not (self.folder / "csv" / synthetic_listen_tables.PROBABILITY).is_file():
                made = synthetic_listens.make(
                    num_rows=self.num_listens, num_test=0, seed=self.seed, missing=MISSING,
                    num_users=max(round(USERS * self.num_listens), 20), num_songs=round(SONGS * self.num_listens),
                )  # fmt: skip
                for name, writer in synthetic_listen_tables.list_writers(made).items():
                    if name != "test.csv":  # the seed does not read it
                        files.write_file(self.folder / "csv" / name, writer)
                run.log(
                    f"{self.num_listens} listens, {self.num_bytes / 1e9:.2f} GB, in {self.folder / 'csv'} until all is done"
                )
            bar.update()
            if not listens.is_made(self.folder / "csv", self.folder / "columns"):
                with contextlib.closing(self.start("tables_ours")) as worker:
                    worker.ask("go")
            bar.update()
            if with_rows and not (self.folder / "rows" / relisten_rows.SIZES).is_file():
                relisten_rows.Listens.of(listens.Listens(self.folder / "columns")).keep(self.folder / "rows")
