"""What people came for, said at the end of a run, and again when it is complete already."""

from __future__ import annotations

import json

from parallel_tunes.config import (
    BenchmarkJob,
    DoctorJob,
    EvaluateJob,
    PredictJob,
    PreprocessJob,
    ScalingJob,
    SubmitJob,
    SynthJob,
    TrainJob,
    VerifyJob,
)
from parallel_tunes.run import Run
from parallel_tunes.session import Facts


def say_synth(cfg: SynthJob, report: Facts, run: Run) -> None:
    """How to use the corpus."""
    del cfg, report
    run.log(f"data=synthetic data.root={run.folder}")


def say_preprocess(cfg: PreprocessJob, report: Facts, run: Run) -> None:
    """How many, how fast, and how to use the shards."""
    del cfg
    figures = report["metrics"]
    if "num_missing" in figures:
        rest = (
            f"{figures['num_missing']} shards are still with the other tasks"
            if figures["num_missing"]
            else "the last task: all merged"
        )
        run.log(f"{figures['num_computed']} tracks; {rest}")
        return
    made = f"{figures['num_tracks']} tracks in {figures['num_shards']} shards, {figures['num_failed']} failed"
    run.log(f"{made}; {figures['tracks_per_s']:.1f} tracks/s")
    run.log(f"data.shards={run.folder}")


def say_judged(cfg: TrainJob | EvaluateJob, report: Facts, run: Run) -> None:
    """The accuracy with its interval, and where the model and the page are."""
    judged = report["metrics"][cfg.evaluate.split if isinstance(cfg, EvaluateJob) else "test"]
    if judged is None:
        run.log("no test tracks: nothing says how good this model is")
    else:
        low, high = judged["accuracy_ci95"]
        interval = f"95 % interval {low:.3f} to {high:.3f}, n = {judged['n']} tracks"
        run.log(f"accuracy {judged['accuracy']:.3f} ({interval})")
    if isinstance(cfg, TrainJob):
        run.log(f"model: {run.folder / 'model'}")
    run.log(f"page: {run.folder / 'report.html'}")


def say_verify(cfg: VerifyJob, report: Facts, run: Run) -> None:
    """What was compared, and the verdict."""
    del cfg
    figures = report["metrics"]
    for kind, found in figures["compared"].items():
        largest = found["largest_difference"]
        how = "the same bits" if largest == 0 else f"largest relative difference {largest}"
        run.log(
            f"  {kind:10} {'equal' if found['equal'] else 'DIFFERENT'}: {how} in {found['num_compared']} tensors or numbers"
        )
    asked = "bit for bit" if figures["exact"] else f"to {figures['tolerance']:g}, the samples exactly"
    run.log(f"{'equal' if figures['equal'] else 'NOT EQUAL'} {asked}, after {figures['restarts']} restarts")


def say_benchmark(cfg: BenchmarkJob, report: Facts, run: Run) -> None:
    """The table, the ratios, and where the page is."""
    del cfg
    from parallel_tunes.reports.benchmark import to_lines

    for line in to_lines(report):
        run.log(line)
    run.log(f"page: {run.folder / 'report.html'}")


def say_scaling(cfg: ScalingJob, report: Facts, run: Run) -> None:
    """What is worth its hours, and where the page is."""
    from parallel_tunes.reports.scaling.formats import to_lines

    if "method" in report or cfg.compare:
        for line in to_lines(report):
            run.log(line)
        run.log(f"page: {run.folder / 'report.html'}")


def say_nothing(cfg: SubmitJob | DoctorJob, report: Facts, run: Run) -> None:
    """All was said on the way."""


def say_predict(cfg: PredictJob, report: Facts, run: Run) -> None:
    """The answers."""
    del run
    from parallel_tunes.serve.predictor import format_table

    answers = report["predictions"]
    as_json = json.dumps({"predictions": answers}, ensure_ascii=False) + "\n"
    print(as_json if cfg.predict.format == "json" else format_table(answers, cfg.predict.top_k), end="")
