"""The job export: a model as ONNX graphs, compared with torch and, where there is data, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_tunes import listen_jobs, summaries, table_jobs
from parallel_tunes.config import ExportJob
from parallel_tunes.config_export import ExportListensJob
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts, Job

if TYPE_CHECKING:
    from parallel_tunes.data.shards import ShardSet
    from parallel_tunes.serve.export import Graphs
    from parallel_tunes.serve.runtimes import Comparison
    from parallel_tunes.train.model_folder import ModelFolder
    from parallel_tunes.train.relisten_model import RelistenFolder
    from parallel_tunes.train.windows import Feed

# of a model.json, in an onnx.json
KEPT = ("features", "fingerprint", "windows", "standardise", "multi_label", "thresholds")
GRAPHS = {"float32": "model.onnx", "int8": "model.int8.onnx"}
NUM_ROWS = 1000  # of listens, whose time is taken


@dataclass(frozen=True)
class Exported:
    """A model's graphs, and what they are compared and timed by."""

    graphs: Graphs
    compared: Comparison
    timed: Feed
    timed_by: str  # what that is
    unit: str  # what a feed is of, in the plural
    about: Facts  # for onnx.json


def export(find_shards: Callable[..., ShardSet], cfg: ExportJob, mesh: Mesh, run: Run) -> Facts:
    """Export a model and compare its graphs with torch; exit code 1 where they differ."""
    from parallel_tunes.serve import runtimes
    from parallel_tunes.tasks import exported_genre
    from parallel_tunes.train import model_folder, relisten_model

    asked, task = cfg.export, table_jobs.task_of(cfg.model_path)
    has_data = bool(cfg.data.root or cfg.data.shards)
    if task == "relisten":
        if has_data:
            raise UserError(f"model={cfg.model_path}: learnt from tables of listens: data=kkbox data.root=PATH")
        listens = relisten_model.load(cfg.model_path)
        exported = _export_listens(listens)
        exported.compared.answer(runtimes.make_rows(listens, asked.num_windows, asked.seed))
        return _finish(cfg, exported, None, run)
    if task in table_jobs.TASKS:
        raise UserError(
            f"model={cfg.model_path}: a support vector machine of task={task}; networks are exported, task=genre and task=relisten"
        )
    folder = model_folder.load(cfg.model_path)
    shards = find_shards(cfg.data, folder.features, cfg, mesh, run) if has_data else None
    exported = _export_genre(folder, asked.seed)
    if shards is not None:
        return _finish(cfg, exported, exported_genre.judge(folder, shards, exported.compared.answer, asked, run), run)
    for feed in runtimes.make_windows(folder, asked.num_windows, asked.seed):
        exported.compared.answer(feed)
    return _finish(cfg, exported, None, run)


def export_listens(cfg: ExportListensJob, mesh: Mesh, run: Run) -> Facts:
    """Export a re-listen model, and judge it by a split of its tables."""
    from parallel_tunes.tasks import exported_listens
    from parallel_tunes.train import relisten_model

    folder = relisten_model.load(cfg.model_path)
    listens = listen_jobs.columns_for(cfg.data, cfg.run, mesh, run)
    exported = _export_listens(folder)
    judged = exported_listens.judge(folder, listens, exported.compared.answer, cfg.export)
    return _finish(cfg, exported, judged, run)


def _export_genre(folder: ModelFolder, seed: int) -> Exported:
    from parallel_tunes.serve import runtimes
    from parallel_tunes.serve.export import export_genre

    graphs = export_genre(folder)
    compared = runtimes.Comparison(runtimes.start_all(runtimes.run_genre(folder), graphs))
    about = {"task": "genre", "classes": folder.classes, **{name: folder.facts.get(name) for name in KEPT}}
    return Exported(graphs, compared, next(runtimes.make_windows(folder, 1, seed)), "a window", "windows", about)


def _export_listens(folder: RelistenFolder) -> Exported:
    from parallel_tunes.serve import runtimes
    from parallel_tunes.serve.export import export_listens

    graphs = export_listens(folder)
    compared = runtimes.Comparison(runtimes.start_all(runtimes.run_listens(folder), graphs))
    about = {"task": "relisten", **{name: folder.facts[name] for name in ("features", "sizes", "data")}}
    return Exported(graphs, compared, runtimes.make_rows(folder, NUM_ROWS, 0), f"{NUM_ROWS} rows", "rows", about)


def _finish(cfg: ExportJob | ExportListensJob, exported: Exported, judged: Facts | None, run: Run) -> Facts:
    """Time the runtimes, write the folder if the graphs are true to the model, and report."""
    import onnxruntime

    from parallel_tunes.benchmark.machine import one_thread
    from parallel_tunes.benchmark.medians import estimate, estimate_ratio
    from parallel_tunes.serve.runtimes import time_all

    compared, graphs = exported.compared, exported.graphs._asdict()
    is_true = compared.largest <= cfg.export.tolerance
    with one_thread():
        ms = time_all(compared.runtimes, exported.timed, cfg.export.rounds)
    if is_true:
        for name, graph in graphs.items():
            run.write_bytes(GRAPHS[name], graph)
        run.write_bytes("onnx.json", (json.dumps(exported.about, indent=1, ensure_ascii=False) + "\n").encode())
    else:
        run.warn(
            f"probabilities differ by up to {compared.largest:.2g} from torch's, more than export.tolerance: nothing written"
        )
    weights = (cfg.model_path or Path()) / "model.safetensors"
    return {
        "task": exported.about["task"],
        "metrics": {
            "parity": {
                "largest_difference": compared.largest, "n": compared.num, "unit": exported.unit,
                "tolerance": cfg.export.tolerance, "is_held": is_true,
                "of": "noise and tones" if judged is None else judged["parity_of"],
            },
            "num_bytes": {"torch": weights.stat().st_size, **{name: len(graph) for name, graph in graphs.items()}},
            "latency": {
                "unit": f"ms for {exported.timed_by}, one thread",
                "n": cfg.export.rounds,
                **{name: estimate(taken)._asdict() for name, taken in ms.items()},
            },
            "ratios": {
                f"{slow} / {fast}": estimate_ratio(ms[slow], ms[fast])._asdict()
                for slow, fast in (("torch", "float32"), ("torch", "int8"), ("float32", "int8"))
            },
            "judged": judged,
        },
        "onnxruntime": onnxruntime.__version__,
        "publish": partial(_publish, run),
        "exit_code": 0 if is_true else 1,
    }  # fmt: skip


def _publish(run: Run, report: Facts) -> None:
    from parallel_tunes.reports import export as page

    page.write(run, report)


def list_jobs(find_shards: Callable[..., ShardSet]) -> dict[str, Job]:
    """The jobs by name.

    Args:
        find_shards: finds or makes the shards of a config's data.
    """
    return {
        "export": Job(partial(export, find_shards), summaries.say_export),
        "export_listens": Job(export_listens, summaries.say_export),
    }
