"""Every job on one page: (cfg, mesh, run) → report."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import soundfile

from parallel_tunes import files
from parallel_tunes import preprocess as preprocessing
from parallel_tunes import run as runs
from parallel_tunes.config import (
    DataConfig,
    EvaluateJob,
    FeaturesConfig,
    PredictJob,
    PreprocessJob,
    RunConfig,
    SynthJob,
    TrainJob,
)
from parallel_tunes.data import synthetic
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError

Facts = dict[str, Any]
INTERRUPTED = 130


def run_job(job: str, cfg: Any, *, part: int | None = None, mesh: Mesh | None = None) -> int:
    """Run a job in its run folder and say where its report is; the exit code.

    Args:
        part: number of this run within a sweep.
        mesh: of the job that this one is a part of.
    """
    nested, mesh = mesh is not None, mesh or Mesh()
    device = {"train": "train", "evaluate": "evaluate", "predict": "predict"}.get(job)
    timeout_s = cfg.parallel.timeout_s if hasattr(cfg, "parallel") else 600.0
    try:
        if mesh.world_size > 1 and job not in ("train", "evaluate"):
            raise UserError(f"{job} runs in one process: start it without torchrun")
        if device and not nested:
            mesh.start(getattr(cfg, device).device, timeout_s)
        started = mesh.on_first(lambda: mesh.started)
        folder = mesh.on_first(lambda: runs.run_folder(job, cfg.run.dir, cfg.run.name, started=started, part=part))
        run = Run(job, cfg, folder, is_writer=mesh.is_first, started=started)
        report = mesh.on_first(run.open)
        if report is not None and job != "preprocess":
            run.log("this run is complete already")
        else:
            report = _carry_out(job, cfg, mesh, run, nested)
        if mesh.is_first and report["status"] == "complete":
            _tell(job, cfg, report, run)
        if mesh.is_first:
            print(f"report: {run.folder / 'report.json'}", flush=True)
        return int(report.get("exit_code", 0))
    except UserError:
        if mesh.is_first:
            raise
        sys.exit(2)  # rank 0 says it
    finally:
        if not nested:
            mesh.stop()


def _carry_out(job: str, cfg: Any, mesh: Mesh, run: Run, nested: bool) -> Facts:
    """Run the job itself; report.json, however it ends, comes last."""
    everywhere: Facts = {"world_size": mesh.world_size, "device": mesh.device_name}
    ended: BaseException | None = None
    status = "complete"
    try:
        with _heed_signals(run, finishes_step=job == "train"):
            facts = JOBS[job](cfg, mesh, run)
        if facts is None:
            status, facts = "preempted", {}
            run.log("stopped as asked, after a checkpoint; the same command goes on from here")
        judged, made = facts.pop("judged", None), facts.pop("shards", None)
        report = run.make_report(status, everywhere | facts)
        if judged is not None and mesh.is_first:
            from parallel_tunes.reports import training

            training.write(run, report, judged, made)
    except KeyboardInterrupt as interrupt:
        run.warn("interrupted; the same command goes on from here")
        ended = interrupt if nested else None
        report = run.make_report("preempted", {**everywhere, "exit_code": INTERRUPTED})
    except Exception as caught:
        error = caught
        if isinstance(caught, OSError):
            error = UserError(
                f"{caught.filename or run.folder}: {files.explain(caught)}; the same command goes on from here"
            )
            error.__cause__ = caught
        ended, report = error, run.make_report("failed", {**everywhere, "reason": f"{type(error).__name__}: {error}"})
    with contextlib.suppress(OSError, UserError) if ended else contextlib.nullcontext():
        run.write_report(report)
    if ended:
        raise ended
    return report


def _tell(job: str, cfg: Any, report: Facts, run: Run) -> None:
    """What people came for, said at the end of a run and again when it is complete already."""
    figures = report["metrics"]
    if job == "synth":
        run.log(f"data=synthetic data.root={run.folder}")
    elif job == "preprocess":
        made = f"{figures['num_tracks']} tracks in {figures['num_shards']} shards, {figures['num_failed']} failed"
        run.log(f"{made}; {figures['tracks_per_s']:.1f} tracks/s")
        run.log(f"data.shards={run.folder}")
    elif job == "predict":
        from parallel_tunes.serve.predictor import format_table

        answers = report["predictions"]
        as_json = json.dumps({"predictions": answers}, ensure_ascii=False) + "\n"
        print(as_json if cfg.predict.format == "json" else format_table(answers, cfg.predict.top_k), end="")
    else:
        judged = figures["test" if job == "train" else cfg.evaluate.split]
        if judged is None:
            run.log("no test tracks: nothing says how good this model is")
        else:
            low, high = judged["accuracy_ci95"]
            interval = f"95 % interval {low:.3f} to {high:.3f}, n = {judged['n']} tracks"
            run.log(f"accuracy {judged['accuracy']:.3f} ({interval})")
        if job == "train":
            run.log(f"model: {run.folder / 'model'}")
        run.log(f"page: {run.folder / 'report.html'}")


@contextlib.contextmanager
def _heed_signals(run: Run, *, finishes_step: bool) -> Iterator[None]:
    """Stop on SIGINT, SIGTERM and SIGUSR1: a training after its step, other jobs at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        if not finishes_step:
            raise KeyboardInterrupt
        run.should_stop = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def synth(cfg: SynthJob, mesh: Mesh, run: Run) -> Facts:
    """Write a corpus: <label>/<artist>-<track>.wav and tracks.csv."""
    del mesh
    pieces = synthetic.list_corpus(cfg.num_artists, cfg.tracks_per_artist)
    run.log(
        f"{len(pieces)} tracks of {cfg.duration_s:g} s by {cfg.num_artists} artists in each of {len(synthetic.GENRES)} genres"
    )
    with run.progress("synth", len(pieces)) as bar:
        for piece in pieces:
            if not (run.folder / piece.path).exists():
                samples = synthetic.render_track(
                    *piece.numbers, seed=cfg.seed, duration_s=cfg.duration_s, sample_rate_hz=cfg.sample_rate_hz
                )
                sound = partial(
                    soundfile.write, data=samples, samplerate=cfg.sample_rate_hz, format="WAV", subtype="PCM_16"
                )
                run.write(piece.path, sound)
            bar.update()
    rows = "".join(f"{piece.path},{piece.label},{piece.artist}\n" for piece in pieces)
    run.write_bytes(synthetic.LIST, f"path,label,artist\n{rows}".encode())
    return {
        "metrics": {
            "num_tracks": len(pieces),
            "num_labels": len(synthetic.GENRES),
            "audio_s": len(pieces) * cfg.duration_s,
        }
    }


def preprocess(cfg: PreprocessJob, mesh: Mesh, run: Run) -> Facts:
    """Index the data and make the shards that are missing."""
    del mesh
    began = time.perf_counter()
    manifest = preprocessing.make_shards(
        cfg.data,
        cfg.features,
        cfg.preprocess,
        folder=run.folder,
        engines=cfg.parallel.engines,
        progress=run.progress,
        say=run.log,
    )
    seconds, failed = time.perf_counter() - began, manifest["failed"]
    for failure in failed[:20]:
        run.warn(f"{failure['path']}: {failure['reason']}")
    if len(failed) > 20:
        run.warn(f"… and {len(failed) - 20} more failed files, all listed in {run.folder / 'manifest.json'}")
    rate = manifest["num_computed"] / seconds
    facts = {"num_tracks": manifest["num_tracks"], "num_failed": len(failed), "num_computed": manifest["num_computed"]}
    return {
        "metrics": {
            **facts,
            "num_shards": len(manifest["shards"]),
            "audio_s": manifest["audio_s"],
            "tracks_per_s": round(rate, 2),
        },
        "engines": cfg.parallel.engines,
        "front_end": manifest["fingerprint"],
        "failed": failed,
    }


def train(cfg: TrainJob, mesh: Mesh, run: Run) -> Facts | None:
    """Train a model, judge it by the test split, write its folder."""
    from parallel_tunes.tasks import genre

    shards = _shards_for(cfg.data, cfg.features, cfg, mesh, run)
    facts = genre.train(cfg, shards, mesh, run)
    if facts is not None:
        facts["shards"] = shards
    return facts


def evaluate(cfg: EvaluateJob, mesh: Mesh, run: Run) -> Facts:
    """Judge a model folder by a split."""
    from parallel_tunes.tasks import genre
    from parallel_tunes.train import model_folder

    folder = model_folder.load(cfg.model_path)
    shards = _shards_for(cfg.data, folder.features, cfg, mesh, run)
    return {**genre.evaluate(folder, shards, cfg, mesh, run), "shards": shards}


def _shards_for(
    data: DataConfig, features: FeaturesConfig, cfg: TrainJob | EvaluateJob, mesh: Mesh, run: Run
) -> ShardSet:
    """The shards of this data with these features: those given, those found, or made now in a world of one."""
    folder = mesh.on_first(
        lambda: preprocessing.find_shards(data, features, Path("logs/preprocess"), may_make=mesh.world_size == 1)
    )
    if folder is None:
        name = preprocessing.name_shards(data, features)
        job = PreprocessJob(
            data=data,
            features=features,
            preprocess=cfg.preprocess,
            parallel=cfg.parallel,
            run=RunConfig(dir=None, name=name),
        )
        run.log(f"no shards for this data and front end yet: making them under logs/preprocess/{name}")
        run_job("preprocess", job, mesh=mesh)
        folder = Path("logs/preprocess") / name
    return ShardSet(folder)


def predict(cfg: PredictJob, mesh: Mesh, run: Run) -> Facts:
    """Label files; one that fails is said in a line and makes the exit code 1."""
    from parallel_tunes.serve.predictor import Predictor

    if not cfg.files:
        raise UserError("predict: which files? ptunes predict model=PATH -- FILE …")
    predictor = Predictor(cfg.model_path, mesh.device, max_bytes=cfg.predict.max_mib << 20)
    answers = []
    with run.progress("predict", len(cfg.files)) as bar:
        for file in cfg.files:
            answers.append(predictor.predict(file, cfg.predict.top_k))
            bar.update()
    failed = [answer for answer in answers if "reason" in answer]
    for answer in failed:
        run.warn(f"{answer['file']}: {answer['reason']}")
    return {
        "metrics": {"num_files": len(answers), "num_failed": len(failed)},
        "predictions": answers,
        "front_end": predictor.facts["fingerprint"],
        "exit_code": 1 if failed else 0,
    }


JOBS: dict[str, Callable[[Any, Mesh, Run], Facts | None]] = {
    "synth": synth,
    "preprocess": preprocess,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
}
