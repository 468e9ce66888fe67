"""predict on audio and pictures: files, folders and lists are answered part by part, each kept as it comes, into one table."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parallel_tunes.config import PredictJob
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts

if TYPE_CHECKING:
    from parallel_tunes.parallel.engines import Engines
    from parallel_tunes.serve.answering import Answered, Answerer, AnswerTask
    from parallel_tunes.serve.labels import Answer

PART_S = 4.0  # of one core, about: what a kill may cost
JUDGE_S = 5e-3  # … of the model, for a second of music
PARTS = "answers"
MOST_TOLD = 1000  # files whose answers are told one by one: more are counted, and stand in the table


def predict(answerer: Answerer, cfg: PredictJob, run: Run) -> Facts:
    """Answer all files; one that fails is said in a line and makes the exit code 1.

    Raises:
        UserError: there is no such model, or no file.
    """
    from parallel_tunes.parallel.engines import map_tasks
    from parallel_tunes.serve.answering import answer

    if not cfg.files and cfg.predict.files_from is None:
        raise UserError(
            "predict: which files? ptunes predict model=PATH -- FILE_OR_FOLDER …, or predict.files_from=LIST"
        )
    predictor = answerer.load()
    paths = find_files(cfg.files, cfg.predict.files_from, pictures=answerer.features.kind == "picture", say=run.log)
    tasks, work_s = plan(paths, answerer)
    journal = Journal(run, tasks, cfg.predict.output, _columns(answerer))
    todo = journal.find_missing()
    num_todo = sum(task.num_units for task in todo)
    engines = _choose_engines(cfg, answerer, [work_s[task.key] for task in todo], run)
    if len(todo) > 1 or num_todo < len(paths):
        run.log(f"{len(paths)} files, {num_todo} to do")
    began = time.perf_counter()
    try:
        with run.progress("predict", len(paths), " files", done=len(paths) - num_todo) as bar:

            def advance(num: int) -> None:
                bar.update(num)

            for answered in map_tasks(answer, todo, engines=engines, advance=advance, say=run.log):
                journal.keep(answered)
    finally:  # whatever stops it, the table holds what has been answered
        journal.write_table()
    rate = {"num_computed": num_todo, "files_per_s": round(num_todo / (time.perf_counter() - began), 2)}
    facts = journal.summarise()
    facts["metrics"] |= rate
    how = {"engines": engines.num, "threads": engines.threads, "launcher": cfg.parallel.launcher}
    return {**facts, **how, "front_end": predictor.facts["fingerprint"]}


def find_files(
    given: Sequence[Path], listed: Path | None, *, pictures: bool, say: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """The files given, those at any depth in folders that are given, and those of a list, in this order.

    Args:
        say: takes lines for people: what else lies in the folders.

    Raises:
        UserError: a folder has none, or the list cannot be read.
    """
    from parallel_tunes.data import index

    found: list[Path] = []
    for path in given:
        inside = index.list_tracks(path, pictures=pictures, say=say) if path.is_dir() else [path]
        if not inside:
            kinds = " ".join(sorted(index.PICTURES)) if pictures else "wav, flac, mp3, ogg, m4a, …"
            raise UserError(f"predict: {path} holds no file that this model takes ({kinds})")
        found += inside
    found += read_list(listed) if listed else []
    return found


def read_list(path: Path) -> list[Path]:
    """The files of a text, one a line (m3u is such a one), or of a table's column `path`."""
    import pandas as pd

    from parallel_tunes.data import tables

    try:
        if path.suffix in (".csv", ".parquet"):
            is_packed = path.suffix == ".parquet"
            table = pd.read_parquet(path) if is_packed else pd.read_csv(tables.open_list(path), dtype=str)
            lines = table["path"].dropna().astype(str).tolist()
        else:
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
            lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
    except (OSError, ValueError, KeyError) as error:
        why = "no column path" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise UserError(f"predict.files_from={path}: {why}") from error
    if not lines:
        raise UserError(f"predict.files_from={path}: names no file")
    return [path.parent / line for line in lines]


def plan(paths: list[Path], answerer: Answerer) -> tuple[list[AnswerTask], dict[str, float]]:
    """Cut the files, in their order, into tasks; and about how long one core takes for each of these, by their keys."""
    import pandas as pd

    from parallel_tunes import files
    from parallel_tunes.data import estimates, index, partition
    from parallel_tunes.serve.answering import AnswerTask

    features, names = answerer.features, [os.fspath(path) for path in paths]
    seen = [index.stat(path) for path in paths]
    table = pd.DataFrame(
        {"path": names, "bytes": [max(size, 0) for size, _ in seen]}, dtype=object
    )  # a name may be no text
    seconds = estimates.find_seconds(table, features)
    costs = estimates.find_costs(table, features) + JUDGE_S * seconds
    what = {**vars(answerer), "folder": "", "device": ""}  # the model counts, not where it is
    tasks, work_s = [], {}
    for rows in partition.cut(names, costs, PART_S):
        stretch = slice(rows.start, rows.stop)
        key = files.digest_json({"of": what, "files": list(zip(names[stretch], seen[stretch], strict=True))})
        tasks.append(AnswerTask(key=key, paths=tuple(names[stretch]), answerer=answerer))
        work_s[key] = float(np.sum(costs[stretch]))
    return tasks, work_s


def _choose_engines(cfg: PredictJob, answerer: Answerer, work_s: list[float], run: Run) -> Engines:
    from parallel_tunes.parallel import engines
    from parallel_tunes.serve.answering import get_torch_ready

    ready, asked = f"{get_torch_ready.__module__}:{get_torch_ready.__name__}", cfg.parallel
    if asked.engines != "auto":
        return engines.Engines(int(asked.engines), asked.launcher, run.folder, ready=ready)
    if len(work_s) < 2:
        return engines.Engines(0)
    if answerer.device.startswith("cuda"):  # one process has the GPU: its threads decode for it
        return engines.Engines(0, threads=min(len(os.sched_getaffinity(0)), engines.MAX_THREADS))
    chosen = engines.choose(asked.launcher, run.folder, sum(work_s), len(work_s), run.log)
    return replace(chosen, ready=ready)


def _columns(answerer: Answerer) -> Facts:
    from parallel_tunes.serve import answer_table

    predictor = answerer.load()
    num_labels = min(answerer.top_k, len(predictor.classes))
    return answer_table.columns_of(num_labels, multi_label=predictor.thresholds is not None)


class Journal:
    """What has been answered so far: a file a part in answers/, and the table predictions.csv, .jsonl or .parquet.

    Args:
        tasks: in the order of the files.
        output: how the table is written.
    """

    def __init__(self, run: Run, tasks: list[AnswerTask], output: str, columns: Facts) -> None:
        self.run, self.tasks, self.columns = run, tasks, columns
        self.output, self.table = output, f"predictions.{output}"
        self.finished: set[str] = set()

    def find_missing(self) -> list[AnswerTask]:
        """The tasks that no part is there of."""
        self.finished = {task.key for task in self.tasks if self._read(task) is not None}
        return [task for task in {task.key: task for task in self.tasks}.values() if task.key not in self.finished]

    def keep(self, answered: Answered) -> None:
        """Write what has come of a task."""
        from parallel_tunes.serve.answer_table import to_lines

        self.run.write_bytes(self._name(answered.key), to_lines(answered.answers))
        self.finished.add(answered.key)

    def write_table(self) -> None:
        """Put all that is there into one table, in the order of the files."""
        from parallel_tunes.serve.answer_table import WRITERS

        self.run.write(self.table, lambda stream: WRITERS[self.output](stream, self._parts(), self.columns))

    def summarise(self) -> Facts:
        """The facts for the report, once all is there; parts of another plan go."""
        failed: list[Answer] = []
        kept: list[Answer] = []
        labels: Counter[str] = Counter()
        num, audio_s, num_failed = 0, 0.0, 0
        for answers in self._parts():
            num, audio_s = num + len(answers), audio_s + sum(answer.get("duration_s", 0.0) for answer in answers)
            labels.update(answer["top"][0]["label"] for answer in answers if "top" in answer)
            bad = [answer for answer in answers if "reason" in answer]
            num_failed, failed = num_failed + len(bad), (failed + bad)[:20]
            kept = (kept + answers)[: MOST_TOLD + 1]
        for answer in failed:
            self.run.warn(f"{answer['file']}: {answer['reason']}")
        if num_failed > len(failed):
            self.run.warn(f"… and {num_failed - len(failed)} more, all in {self.run.folder / self.table}")
        known = {self._name(task.key) for task in self.tasks}
        for stale in (self.run.folder / PARTS).glob("part-*.jsonl"):
            if f"{PARTS}/{stale.name}" not in known:
                stale.unlink()
        counts = dict(labels.most_common())
        figures = {"num_files": num, "num_failed": num_failed, "audio_s": round(audio_s, 3), "labels": counts}
        return {
            "metrics": figures,
            "predictions": kept if num <= MOST_TOLD else None,
            "table": self.table,
            "exit_code": 1 if num_failed else 0,
        }

    def _name(self, key: str) -> str:
        return f"{PARTS}/part-{key[:16]}.jsonl"

    def _parts(self) -> Iterator[list[Answer]]:
        for task in self.tasks:
            if task.key in self.finished and (answers := self._read(task)) is not None:
                yield answers

    def _read(self, task: AnswerTask) -> list[Answer] | None:
        try:
            text = (self.run.folder / self._name(task.key)).read_text(encoding="utf-8")
            answers = [json.loads(line) for line in text.splitlines()]
        except (OSError, ValueError):
            return None
        return answers if len(answers) == len(task.paths) else None
