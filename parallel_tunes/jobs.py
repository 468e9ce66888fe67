"""Every job on one page: (cfg, mesh, run) → report."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_tunes import (
    config,
    exploration,
    export_jobs,
    ladder,
    listen_jobs,
    predicting,
    serving,
    session,
    summaries,
    synthesis,
    table_jobs,
)
from parallel_tunes import preprocess as preprocessing
from parallel_tunes.audio import front_end
from parallel_tunes.data.shards import ShardSet, read_manifest
from parallel_tunes.parallel import slurm
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run, say
from parallel_tunes.scaling.grid import name_share
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts, Job

if TYPE_CHECKING:
    from parallel_tunes.train.metrics import Judged


def run_job(name: str, cfg: Any, *, part: int | None = None) -> int:
    """Run a job, or what it is with other keys (config.VARIANTS); the exit code. `part` numbers it within a sweep."""
    if isinstance(cfg, config.ScalingJob) and cfg.report:
        from parallel_tunes import studies

        cfg = studies.reopen(cfg)
    job = next((job for (job, _), variant in config.VARIANTS.items() if variant == name), name)
    return session.run_job(job, JOBS[name], cfg, part=part)


def preprocess(cfg: config.PreprocessJob, mesh: Mesh, run: Run) -> Facts:
    """Index the data and make the shards that are missing; an array task its share, and the last one merges them."""
    share = slurm.array_share() if run.is_array_task else None
    folder = run.folder.parents[1] if share else run.folder
    began = time.perf_counter()
    made = preprocessing.make_shards(
        cfg.data,
        cfg.features,
        cfg.preprocess,
        cfg.parallel,
        folder=folder,
        progress=run.progress,
        say=run.log,
        share=share,
    )
    rate = made["num_computed"] / (time.perf_counter() - began)
    speed = {"num_computed": made["num_computed"], "tracks_per_s": round(rate, 2)}
    facts = {"engines": made["engines"], "threads": made["threads"], "launcher": cfg.parallel.launcher}
    if share:
        if not made["num_missing"]:
            _merge_array(cfg, mesh, folder)
        return {"metrics": {**speed, "num_missing": made["num_missing"]}, **facts}
    failed, notes = made["failed"], made["notes"]
    for kind, said in (("failed files", failed), ("files of which a part was left out", notes)):
        for one in said[:20]:
            run.warn(f"{one['path']}: {one.get('reason') or one['note']}")
        if len(said) > 20:
            run.warn(f"… and {len(said) - 20} more {kind}, all listed in {run.folder / 'manifest.json'}")
    figures = {name: made[name] for name in ("num_tracks", "audio_s")}
    return {
        "metrics": {**figures, "num_failed": len(failed), "num_shards": len(made["shards"]), **speed},
        **facts,
        "front_end": made["fingerprint"],
        "failed": failed,
        "exit_code": 1 if failed and cfg.data.strict else 0,
    }


def _merge_array(cfg: config.PreprocessJob, mesh: Mesh, folder: Path) -> None:
    """Merge what all tasks of an array have made: a run of its own, that finds every shard done."""
    serial = replace(
        cfg,
        parallel=replace(cfg.parallel, engines=0),
        run=replace(cfg.run, dir=folder, name=None),
    )
    try:
        session.run_job("preprocess", JOBS["preprocess"], serial, mesh=mesh)
    except UserError:
        if read_manifest(folder) is None:  # else another task was last too, and has merged them
            raise


def train(cfg: config.TrainJob, mesh: Mesh, run: Run, shards: ShardSet | None = None) -> Facts | None:
    """Train a model, judge it by the test split, write its folder; on `shards`, or those of the config's data."""
    from parallel_tunes.tasks import genre
    from parallel_tunes.train import trackers

    front_end.demand_frames(cfg.features)
    mesh.on_first(lambda: trackers.require(cfg.train.track))  # before shards are made, which may take hours
    shards = shards or _shards_for(cfg.data, cfg.features, cfg, mesh, run)
    facts = genre.train(cfg, shards, mesh, run)
    if facts is not None:
        facts["publish"] = partial(_publish, run, facts.pop("judged"), shards, facts.pop("examples"))
    return facts


def _publish(run: Run, judged: list[Judged], shards: ShardSet, examples: Any, report: Facts) -> None:
    from parallel_tunes.reports import training

    training.write(run, report, judged, shards, examples)


def evaluate(cfg: config.EvaluateJob, mesh: Mesh, run: Run) -> Facts:
    """Judge a model folder by a split."""
    from parallel_tunes.tasks import genre
    from parallel_tunes.train import model_folder

    folder = model_folder.load(cfg.model_path)
    shards = _shards_for(cfg.data, folder.features, cfg, mesh, run)
    facts = genre.evaluate(folder, shards, cfg, mesh, run)
    judged = facts.pop("judged")
    return {**facts, "publish": partial(_publish, run, judged, shards, None)}


def _shards_for(data: config.DataConfig, features: config.FeaturesConfig, cfg: Any, mesh: Mesh, run: Run) -> ShardSet:
    """The shards of this data with these features: those given, those found, or made now by rank 0, as `cfg` says."""
    folder = mesh.on_first(lambda: preprocessing.find_shards(data, features, Path("logs/preprocess")))
    if folder is None:
        name = mesh.on_first(lambda: preprocessing.name_shards(data, features))
        where = replace(cfg.run, dir=None, name=name)
        job = config.PreprocessJob(
            data=data, features=features, preprocess=cfg.preprocess, parallel=cfg.parallel, run=where
        )
        run.log(f"no shards for this data and front end yet: making them under logs/preprocess/{name}")
        make = partial(session.run_job, "preprocess", JOBS["preprocess"], job)
        mesh.on_first(lambda: make(mesh=mesh.apart()), is_long=True)
        folder = Path("logs/preprocess") / name
    shards = ShardSet(folder)
    if data.verify:
        with run.progress("verify", len(shards.manifest["shards"])) as bar:
            mesh.on_first(lambda: shards.verify(bar.update))
    return shards


def verify(cfg: config.VerifyJob, mesh: Mesh, run: Run) -> Facts:
    """Train undisturbed and disturbed, and compare; exit code 1 if they differ."""
    del mesh
    from parallel_tunes import verification

    pair = verification.run_trials(cfg, run.folder, slurm.allocation(), run.log)
    reports = [trial.report() for trial in pair]
    exact = cfg.verify.resume_ranks is None and all(report["device"].startswith("cpu") for report in reports)
    compared = verification.compare(pair[0].folder, pair[1].folder, cfg.verify, exact=exact)
    equal = all(kind["equal"] for kind in compared.values())
    figures = {
        "equal": equal,
        "exact": exact,
        "tolerance": 0.0 if exact else cfg.verify.tolerance,
        "compared": compared,
    }
    return {
        "metrics": {**figures, "steps": reports[0]["steps"], "restarts": reports[1]["restarts"]["num"]},
        "trials": dict(zip(("undisturbed", "disturbed"), reports, strict=True)),
        "exit_code": 0 if equal else 1,
    }


def submit(cfg: config.SubmitJob, mesh: Mesh, run: Run) -> Facts:
    """Check a job and hand it to Slurm."""
    del mesh
    from parallel_tunes import submission

    text = submission.render(cfg)
    facts: Facts = {"metrics": {}, "sbatch": text, "submitted": None}
    if cfg.print:
        say(text, end="")
        return facts
    submission.check(cfg, run.warn)
    cost = submission.estimate(cfg)
    if cost:
        run.log(cost)
    if cfg.test:
        run.log(submission.submit(text, test=True))
        return facts
    facts["submitted"] = job = submission.submit(text)
    output = submission.OUTPUT / f"{cfg.job}-{job}.out"
    run.log(f"job {job}; its output: {output}")
    if cfg.follow and not cfg.resources.array:
        state = submission.follow(job, output, sys.stdout.write)
        run.log(f"job {job}: {state}")
        facts |= {"state": state, "exit_code": 0 if state == "COMPLETED" else 1}
    return facts


def doctor(cfg: config.DoctorJob, mesh: Mesh, run: Run) -> Facts:
    """Look at all that a training needs here; exit code 1 if something is missing. On ranks: what they see."""
    from parallel_tunes import diagnosis

    if mesh.world_size > 1:
        return diagnosis.examine_rank(cfg.doctor, mesh, run)
    findings = diagnosis.examine(cfg.doctor, run)
    return {
        "metrics": {"ok": all(finding.ok for finding in findings), "num_checks": len(findings)},
        "checks": [asdict(finding) for finding in findings],
        "exit_code": 0 if all(finding.ok for finding in findings) else 1,
    }


def scaling(cfg: config.ScalingJob, mesh: Mesh, run: Run) -> Facts:
    """Measure trainings and preprocessings on more and more GPUs and engines, and say what is worth its hours."""
    from parallel_tunes import studies
    from parallel_tunes.reports.scaling import study as page

    facts = studies.carry_out(cfg, run, lambda: _shards_for(cfg.data, cfg.features, cfg, mesh, run).folder)
    if cfg.compare or "launcher" in facts:
        facts["publish"] = partial(page.write, run)
    return facts


def predict(cfg: config.PredictJob, mesh: Mesh, run: Run) -> Facts:
    """Label files, or the rows of tables; one that fails is said in a line and makes the exit code 1."""
    task = table_jobs.task_of(cfg.model_path)
    if task in table_jobs.TASKS or cfg.user is not None:
        return table_jobs.predict(cfg, task or "", mesh, run)
    from parallel_tunes.serve.answering import describe

    return predicting.predict(describe(cfg.model_path, cfg.predict, device=str(mesh.device)), cfg, run)


def benchmark(cfg: config.BenchmarkJob, mesh: Mesh, run: Run) -> Facts:
    """Time the project and its peers on the same work."""
    from parallel_tunes.benchmark import suites
    from parallel_tunes.reports import benchmark as page

    del mesh
    return {**suites.carry_out(cfg, run), "publish": partial(page.write, run)}


train_svm = partial(table_jobs.train_genre, _shards_for)
JOBS = {
    "synth": Job(synthesis.synth, summaries.say_synth),
    "preprocess": Job(
        preprocess, summaries.say_preprocess, goes_on=True, shares=lambda _: os.environ.get("SLURM_ARRAY_TASK_ID")
    ),
    "train": Job(train, summaries.say_judged, group="train", on_ranks=True, finishes_step=True, counts_steps=True),
    "verify": Job(verify, summaries.say_verify),
    "scaling": Job(scaling, summaries.say_scaling, goes_on=True, shares=name_share),
    "evaluate": Job(evaluate, summaries.say_judged, group="evaluate", on_ranks=True),
    "submit": Job(submit, summaries.say_nothing, fresh=True),
    "doctor": Job(doctor, summaries.say_nothing, group="doctor", on_ranks=True, finishes_step=True, fresh=True),
    "predict": Job(predict, summaries.say_predict, group="predict", goes_on=True, fresh=True),
    "benchmark": Job(benchmark, summaries.say_benchmark),
    "popularity": Job(table_jobs.train, summaries.say_tracks, group="learner", on_ranks=True, finishes_step=True),
    "genre_svm": Job(train_svm, summaries.say_tracks, group="learner", on_ranks=True, finishes_step=True),
    "evaluate_tracks": Job(table_jobs.evaluate, summaries.say_tracks),
    "synth_tracks": Job(table_jobs.synth, summaries.say_tables),
    **listen_jobs.JOBS,
    **ladder.list_jobs(_shards_for, train),
    **exploration.list_jobs(_shards_for),
    **serving.JOBS,
    **export_jobs.list_jobs(_shards_for),
}
