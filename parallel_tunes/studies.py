"""Scaling studies carried out: here, by Slurm's job arrays, or drawn again from what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from parallel_tunes import files, submission
from parallel_tunes.config import ScalingJob, SubmitJob
from parallel_tunes.config_run import RunConfig
from parallel_tunes.parallel import partitions, slurm
from parallel_tunes.run import Run
from parallel_tunes.scaling import results
from parallel_tunes.scaling.comparing import compare
from parallel_tunes.scaling.grid import Launch, TrainCell, find_resources, list_cells
from parallel_tunes.scaling.study import Study, count_gpus
from parallel_tunes.scaling.summary import summarise
from parallel_tunes.schema import UserError, build, to_plain, to_words

Facts = dict[str, Any]
QUEUE = "jobs.json"  # the jobs that were submitted last


def reopen(cfg: ScalingJob) -> ScalingJob:
    """The study that `report` names, as it was begun.

    Raises:
        UserError: there is none.
    """
    assert cfg.report is not None
    wrong = f"report={cfg.report}: no scaling study; name the folder of one, logs/scaling/<run.name>"
    try:
        tree = yaml.safe_load((cfg.report / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        raise UserError(wrong) from None
    if not isinstance(tree, dict) or tree.pop("job", None) != "scaling":
        raise UserError(wrong)
    study = build(ScalingJob, merge(to_plain(cfg), tree))
    settings = replace(study.scaling, print=False, share=None)
    return replace(study, report=cfg.report, scaling=settings, run=replace(study.run, dir=cfg.report, name=None))


def merge(usual: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` with what it lacks, a key that is newer than it say."""
    return usual | {
        name: merge(usual[name], value) if isinstance(value, dict) and isinstance(usual.get(name), dict) else value
        for name, value in tree.items()
    }


def carry_out(cfg: ScalingJob, run: Run, find_shards: Callable[[], Path]) -> Facts:
    """A study, or a share of it, or a page about what is there.

    Args:
        find_shards: gives what trainings read, and makes it if need be.
    """
    if cfg.compare:
        return {"metrics": compare(cfg.compare, cfg.scaling.seed)}
    cells = list_cells(cfg)
    on_gpus = cfg.train.device != "cpu" and count_gpus() > 0
    is_trained = any(isinstance(cell, TrainCell) for cell in cells)
    study = Study(cfg, run.folder, cfg.data.shards, slurm.allocation(), on_gpus)
    if cfg.scaling.share:
        return run_share(study, run)
    if not cfg.report and cfg.scaling.launcher == "local":
        study.check()
    if cfg.report or cfg.scaling.print:
        return list_study(study, run) if cfg.scaling.print else tell(study, run)
    if is_trained:
        study = replace(study, shards=find_shards())
    if cfg.scaling.launcher == "slurm":
        jobs = submit(study, run)
        cause = f"with Slurm: jobs {', '.join(jobs)}; the last one writes the report"
        return tell(study, run) | ({"status": "preempted", "cause": cause} if jobs else {})
    study.carry_out_missing(run)
    return tell(study, run)


def list_study(study: Study, run: Run) -> Facts:
    """What would be run, and nothing of it is."""
    for line in study.describe():
        run.log(line)
    for request in list_requests(study) if study.cfg.scaling.launcher == "slurm" else ():
        run.log(submission.render(request))
    return {"metrics": {"cells": [], "num_missing": len(study.missing())}}


def tell(study: Study, run: Run) -> Facts:
    """The facts for a report of what has come to a result so far."""
    if (run.folder / "cells").is_dir() or not (run.folder / results.FILE).exists():
        results.save(run, results.collect(study))
    rows = fill_up(results.load(run.folder), study)
    done = [row for row in rows if row["kind"] == "train" and row["status"] == "ok"]
    is_gpu = not done[0]["device"].startswith("cpu") if done else study.on_gpus
    unit, machines = "GPU" if is_gpu else "rank", results.list_machines(rows)
    threads = machines[0]["threads"] if machines else study.threads
    return {
        "metrics": summarise(study.cfg, rows, unit=unit, threads=threads),
        "launcher": study.cfg.scaling.launcher,
        "machines": machines,
        "revisions": sorted({row["git"] for row in rows if row.get("git")}),
    }


def fill_up(rows: list[results.Row], study: Study) -> list[results.Row]:
    """The rows of the study's launches, in its order; those that lack one are missing."""
    there = {(row["cell"], row["launch"]): row for row in rows}
    return [there.get((each.cell.name, each.number)) or results.read_row(study, each) for each in study.launches]


def shapes(study: Study) -> dict[str, list[Launch]]:
    """All launches by what they need of a cluster; a task of a job array is known by its place in such a list."""
    found = dict[str, list[Launch]]()
    for launch in study.launches:
        found.setdefault(launch.cell.shape, []).append(launch)
    return found


def run_share(study: Study, run: Run) -> Facts:
    """The launch that is this array task's, or without an array all of the shape; those that have no result yet."""
    share, task = study.cfg.scaling.share, os.environ.get("SLURM_ARRAY_TASK_ID")
    alike = shapes(study).get(share or "")
    if alike is None:
        raise UserError(f"scaling.share={share}: this study has the shapes {', '.join(shapes(study))}")
    mine = alike if task is None else alike[int(task) : int(task) + 1]
    # tasks lie in tasks/, their launches beside it
    study, outcomes = replace(study, folder=run.folder.parents[1]), dict[str, str]()
    missing = study.missing()
    for launch in mine:
        if launch in missing:
            outcome = study.carry_out(launch)
            outcomes[launch.name] = outcome["status"]
            run.log(f"{launch.name}: {outcome['status']}" + (f": {outcome['reason']}" if outcome["reason"] else ""))
    return {"metrics": {"outcomes": outcomes}}


def list_requests(study: Study) -> Iterator[SubmitJob]:
    """A job array for each shape, of the launches that are missing."""
    missing = set(study.missing())
    for shape, launches in shapes(study).items():
        tasks = [str(number) for number, launch in enumerate(launches) if launch in missing]
        if tasks:
            wanted = replace(find_resources(launches[0].cell, study.cfg), array=",".join(tasks))
            settings = replace(study.cfg.scaling, share=shape, launcher="local", print=False)
            data = replace(study.cfg.data, shards=study.shards)
            job = replace(
                study.cfg, scaling=settings, data=data, run=replace(study.cfg.run, dir=study.folder, name=None)
            )
            yield request(wanted, study.cfg.run, *to_words(job, "scaling"))


def request(resources: Any, run: RunConfig, *words: str) -> SubmitJob:
    """A job of slurm/scaling.sbatch."""
    return SubmitJob(job="scaling", resources=resources, print=False, test=False, follow=False, run=run, words=words)


def submit(study: Study, run: Run) -> list[str]:
    """Hand the missing launches to Slurm, and a job that writes the report when they have ended; the jobs.

    Raises:
        UserError: the cluster has not what a cell needs, or jobs are still at work on this study.
    """
    queue = run.folder / QUEUE
    before = json.loads(queue.read_text())["jobs"] if queue.exists() else []
    waiting = [job for job in before if slurm.is_queued(job)]
    if waiting:
        raise UserError(f"{run.folder}: jobs {', '.join(waiting)} are at work on this study; wait, or scancel them")
    requests = list(list_requests(study))
    for each in requests:
        for warning in partitions.check(each.resources):
            run.warn(warning)
    if not requests:
        return []
    submission.check_data(study.cfg)
    jobs = list[str]()

    def hand_over(wanted: SubmitJob) -> None:
        jobs.append(submission.submit(submission.render(wanted)))
        files.write_json(queue, {"jobs": jobs})  # at once: if the next is refused, this one is known all the same

    for each in requests:
        hand_over(each)
    after = f"{study.cfg.resources.options} --dependency=afterany:{':'.join(jobs)}".strip()
    one = replace(study.cfg.resources, nodes=1, gpus_per_node=0, tasks_per_node=1, array=None, options=after)
    hand_over(request(one, study.cfg.run, f"report={study.folder}"))
    tasks = sum(len((each.resources.array or "").split(",")) for each in requests)
    run.log(
        f"{tasks} launches are with Slurm: jobs {', '.join(jobs[:-1])}; job {jobs[-1]} writes the report after them"
    )
    return jobs
