"""The jobs on tables of listens: synth kind=listens, preprocess, train and evaluate data=kkbox, benchmark task=relisten."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from parallel_tunes import files, session, summaries
from parallel_tunes.config_listens import (
    EvaluateListensJob,
    ListenLadderJob,
    ListensConfig,
    PreprocessListensJob,
    RelistenJob,
    SynthListensJob,
)  # fmt: skip
from parallel_tunes.config_run import RunConfig
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts, Job

if TYPE_CHECKING:
    from parallel_tunes.data.listens import Listens

BAYES = ("bayes_auc", "bayes_auc_late", "bayes_auc_warm")
PREPROCESSED = Path("logs/preprocess")


def preprocess(cfg: PreprocessListensJob, mesh: Mesh, run: Run) -> Facts:
    """Make the columns, or those that are missing."""
    from parallel_tunes.data.listens import make_listens

    del mesh
    root, data = demand_root(cfg.data), cfg.data
    manifest = make_listens(
        root, run.folder, max_mib=data.max_mib, max_rows=data.max_rows, threads=data.threads or len(os.sched_getaffinity(0)),
        progress=run.progress, say=run.warn,
    )  # fmt: skip
    figures = {name: num for name, num in manifest.items() if name.startswith("num_")}
    run.log(f"{figures['num_train_rows']} listens of {figures['num_users']} users to {figures['num_songs']} songs")
    return {"metrics": figures, "front_end": manifest["digest"]}


def demand_root(data: ListensConfig) -> Path:
    """data.root.

    Raises:
        UserError: it is not given.
    """
    if data.root is None:
        raise UserError(
            "data.root: say where KKBOX's tables are, the folder that holds train.csv, songs.csv, members.csv …"
        )
    return data.root


def columns_for(data: ListensConfig, run_cfg: RunConfig, mesh: Mesh, run: Run) -> Listens:
    """The columns of these tables: those given, those found, or made now in a world of one.

    Raises:
        UserError: there are none, and there are several ranks.
    """
    from parallel_tunes.data.listens import Listens, is_made

    if data.columns is not None:
        return Listens(data.columns)
    root = demand_root(data)
    name = f"listens-{files.digest_json(str(root.resolve()))[:12]}"
    folder = PREPROCESSED / name
    if not mesh.on_first(lambda: is_made(root, folder)):
        if mesh.world_size > 1:
            raise UserError(
                f"data.root={root}: no columns of these tables yet; first, in one process: "
                f"ptunes preprocess data=kkbox data.root={root} run.name={name}"
            )
        run.log(f"no columns of these tables yet: making them under {folder}")
        job = PreprocessListensJob(data=data, run=replace(run_cfg, dir=None, name=name))
        session.run_job("preprocess", JOBS["preprocess_listens"], job, mesh=mesh)
    return Listens(folder)


def train(cfg: RelistenJob, mesh: Mesh, run: Run) -> Facts | None:
    """Train a network, judge it by the test rows, write its folder."""
    from parallel_tunes.tasks import relisten
    from parallel_tunes.train import trackers

    mesh.on_first(lambda: trackers.require(cfg.train.track))
    facts = relisten.train(cfg, columns_for(cfg.data, cfg.run, mesh, run), mesh, run)
    return facts and {**facts, "publish": partial(_publish, run)}


def _publish(run: Run, report: Facts) -> None:
    from parallel_tunes.reports import relisten

    relisten.write(run, report)


def evaluate(cfg: EvaluateListensJob, mesh: Mesh, run: Run) -> Facts:
    """Judge a model folder by a split."""
    from parallel_tunes.tasks import relisten
    from parallel_tunes.train import relisten_model

    folder = relisten_model.load(cfg.model_path)
    facts = relisten.evaluate(cfg, folder, columns_for(cfg.data, cfg.run, mesh, run), mesh)
    return {**facts, "publish": partial(_publish, run)}


def synth(cfg: SynthListensJob, mesh: Mesh, run: Run) -> Facts:
    """Write the five tables, in truth.json what was planted, and each row's probability in probability.npy."""
    from parallel_tunes.data import synthetic_listen_tables, synthetic_listens

    del mesh
    made = synthetic_listens.make(
        num_rows=cfg.num_rows, num_users=cfg.num_users, num_songs=cfg.num_songs, missing=cfg.missing, seed=cfg.seed
    )
    writers = synthetic_listen_tables.list_writers(made)
    with run.progress("synth", len(writers), " tables") as bar:
        for name, writer in writers.items():
            run.write(name, writer)
            bar.update()
    late = made.truth["bayes_auc_late"]
    run.log(
        f"{cfg.num_rows} listens; nothing that knows only earlier rows has an expected AUC above {late:.3f} on the last fifth"
    )
    return {"metrics": {"num_rows": cfg.num_rows, **{name: made.truth[name] for name in BAYES}}}


RUNGS = (
    ("random rows, columns alone", "random", "static"),
    ("time, columns alone", "time", "static"),
    ("time, causal features", "time", "causal"),
    ("time, counts of later rows too", "time", "transductive"),
)


def ladder(cfg: ListenLadderJob, mesh: Mesh, run: Run) -> Facts:
    """Train the same network under each protocol, from leaky to clean and beyond, each a run of its own, side by side."""
    from parallel_tunes.tasks import listen_control, relisten

    listens = columns_for(cfg.data, cfg.run, mesh, run)
    rows = []
    for name, split, features in RUNGS:
        folder = run.folder / "rungs" / f"{split}-{features}"
        job = RelistenJob(
            task=cfg.task, model=cfg.model, data=replace(cfg.data, columns=listens.folder), split=replace(cfg.split, kind=split),
            features=replace(cfg.features, kind=features), train=cfg.train, parallel=cfg.parallel,
            run=replace(cfg.run, dir=folder, name=None),
        )  # fmt: skip
        run.log(f"{name}:")
        session.run_job("train", JOBS["relisten"], job, mesh=mesh)
        report = json.loads((folder / "report.json").read_text())
        if report["status"] != "complete":
            raise KeyboardInterrupt
        control = listen_control.judge_control(relisten.make_plan(job, listens), cfg.task.resamples, cfg.benchmark.seed)
        row = {
            "name": name,
            "split": split,
            "features": features,
            "test": report["metrics"]["test"],
            "control": control,
        }
        rows.append(row | {"seconds": round(sum(report["time_s"].values()), 1)})
    if all(row["control"] is None for row in rows):
        run.warn("without LightGBM beside it: pip install -e '.[bench]' in the checkout")
    return {"suite": cfg.suite, "metrics": {"rows": rows, "ratios": {}}, "publish": partial(_publish_ladder, run)}


def _publish_ladder(run: Run, report: Facts) -> None:
    from parallel_tunes.reports import relisten

    relisten.write_ladder(run, report)


JOBS = {
    "preprocess_listens": Job(preprocess, summaries.say_columns, goes_on=True),
    "relisten": Job(train, summaries.say_relisten, group="train", on_ranks=True, finishes_step=True, counts_steps=True),
    "evaluate_listens": Job(evaluate, summaries.say_relisten, group="evaluate", on_ranks=True),
    "synth_listens": Job(synth, summaries.say_listens),
    "listen_ladder": Job(ladder, summaries.say_ladder, group="train", goes_on=True),
}
