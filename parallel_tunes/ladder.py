"""The job benchmark suite=splits: one model and one recipe under each protocol, from leaky to clean, side by side."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_tunes import session, summaries
from parallel_tunes.config import DataConfig, EvaluateJob, FeaturesConfig, GenreLadderJob, TrainJob
from parallel_tunes.config_run import JudgeConfig
from parallel_tunes.data import splits
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts, Job

if TYPE_CHECKING:
    from parallel_tunes.data.segments import Segments

ShardsFor = Callable[[DataConfig, FeaturesConfig, TrainJob, Mesh, Run], ShardSet]
Train = Callable[..., Facts | None]


@dataclass(frozen=True)
class Rung:
    """A protocol.

    Args:
        key: names its folder.
        kind: of its split.
        is_clean: whether duplicates are removed.
        has_segments: whether segments are dealt, whatever track they are of.
    """

    key: str
    name: str
    kind: str
    is_clean: bool = True
    has_segments: bool = False


RUNGS = (
    Rung("segments", "segments at random", "random", is_clean=False, has_segments=True),
    Rung("tracks", "tracks at random", "random", is_clean=False),
    Rung("unique", "tracks at random, duplicates removed", "random"),
    Rung("lists", "GTZAN's fault-filtered lists", "gtzan_fault_filtered"),
    Rung("artists", "artists apart", "grouped"),
)


def climb(shards_for: ShardsFor, train: Train, cfg: GenreLadderJob, mesh: Mesh, run: Run) -> Facts:
    """Train and judge under each protocol that this data has, each a run of its own."""
    from parallel_tunes.audio import front_end

    front_end.demand_frames(cfg.features)
    tracks = shards_for(cfg.data, cfg.features, cfg, mesh, run)
    segments = cut(tracks, cfg)
    jobs = {rung: make_job(cfg, rung, tracks, segments, run.folder / "rungs" / rung.key) for rung in RUNGS}
    obstacles = {rung: find_obstacle(rung, job, tracks, segments) for rung, job in jobs.items()}
    missing = [{"name": rung.name, "reason": why} for rung, why in obstacles.items() if why]
    rungs, rows = [rung for rung in RUNGS if not obstacles[rung]], list[Facts]()
    if not rungs:
        raise UserError("no protocol can be had: " + "; ".join(f"{each['name']}: {each['reason']}" for each in missing))
    for each in missing:
        run.log(f"left out: {each['name']}: {each['reason']}")
    for at, rung in enumerate(rungs):
        shards = segments if rung.has_segments else tracks
        run.log(f"rung {at + 1} of {len(rungs)}, {rung.name}:")
        trained = Job(
            partial(train, shards=shards), summaries.say_judged,
            group="train", on_ranks=True, finishes_step=True, counts_steps=True,
        )  # fmt: skip
        session.run_job("train", trained, jobs[rung], mesh=mesh)
        report = json.loads((run.folder / "rungs" / rung.key / "report.json").read_text())
        if report["status"] != "complete":
            raise KeyboardInterrupt
        rows.append(describe(rung, jobs[rung], report, shards, mesh, run))
    return {
        "suite": cfg.suite,
        "metrics": {"rows": rows, "ratios": {}},
        "left_out": missing,
        "segment_s": round(float(segments.index["duration_s"].max()), 2),
        "front_end": tracks.manifest["fingerprint"],
        "publish": partial(_publish, run),
    }


def cut(tracks: ShardSet, cfg: GenreLadderJob) -> Segments:
    """The tracks in segments, each as long as a training crop."""
    from parallel_tunes.audio import front_end
    from parallel_tunes.data.segments import Segments
    from parallel_tunes.tasks.planning import crop_frames

    return Segments(tracks, crop_frames(cfg.task, front_end.restore(tracks.manifest["features"])))


def find_obstacle(rung: Rung, job: TrainJob, tracks: ShardSet, segments: Segments) -> str | None:
    """Why a protocol cannot be had with this data; None where it can."""
    index = segments.index if rung.has_segments else tracks.index
    if rung.has_segments and len(index) == len(tracks.index):
        return "no track is as long as two segments of task.crop_s"
    if rung.key == "unique" and not has_duplicates(tracks):
        return "there are no duplicates to remove"
    try:
        rows = splits.draw(index, job.split).rows
    except UserError as error:
        return str(error).removeprefix(f"split={rung.kind}: ")
    if index["label"].iloc[rows["train"]].nunique() < 2:
        return "the tracks that it learns from all have one label"
    if not len(rows["valid"]) + len(rows["test"]):
        return "it leaves nothing to judge by; see split.valid and split.test"
    return None


def has_duplicates(tracks: ShardSet) -> bool:
    """Whether `remove_duplicates` would take anything away."""
    return bool(tracks.index["hash"].duplicated().any())


def remove_duplicates(job: TrainJob) -> TrainJob:
    """The same training without duplicates: the one place that says how a clean rung gets rid of them."""
    return replace(job, split=replace(job.split, drop_duplicates=True))


def make_job(cfg: GenreLadderJob, rung: Rung, tracks: ShardSet, segments: Segments, folder: Path) -> TrainJob:
    """The training of a rung; segments are more than tracks, and so have fewer epochs: about as many steps."""
    values = {field.name: getattr(cfg, field.name) for field in dataclasses.fields(TrainJob)}
    job = TrainJob(**values)
    num_samples, num_tracks = len(segments.index if rung.has_segments else tracks.index), len(tracks.index)
    epochs, patience = (-(-num * num_tracks // num_samples) for num in (cfg.train.num_epochs, cfg.train.patience))
    job = replace(
        job,
        data=replace(cfg.data, shards=tracks.folder),
        split=replace(cfg.split, kind=rung.kind, drop_duplicates=False),
        train=replace(cfg.train, num_epochs=epochs, patience=patience),
        run=replace(cfg.run, dir=folder, name=None),
    )
    return remove_duplicates(job) if rung.is_clean else job


def describe(rung: Rung, job: TrainJob, report: Facts, shards: ShardSet, mesh: Mesh, run: Run) -> Facts:
    """A rung's row: what its model is worth, of how many, learnt from how many; by validation where no tracks are left to test by."""
    unit = "segments" if rung.has_segments else "tracks"
    test, sizes = report["metrics"]["test"], report["split"]["tracks"]
    judged = test or judge_valid(job, shards, mesh, run)
    method = judged["ci95_method"].replace("tracks", unit)
    return {
        "rung": rung.key, "name": rung.name, "split": rung.kind, "unit": unit, "judged_by": "test" if test else "valid",
        **judged, "ci95_method": method, "num_train": sizes["train"], "num_dropped": report["split"]["num_dropped"],
        "num_excluded": report["split"]["num_excluded"], "num_epochs": job.train.num_epochs,
        "seconds": round(sum(report["time_s"].values()), 1),
    }  # fmt: skip


def judge_valid(job: TrainJob, shards: ShardSet, mesh: Mesh, run: Run) -> Facts:
    """The validation split's figures with their interval, of every seed's model: a training tells only their mean."""
    from parallel_tunes.tasks import genre
    from parallel_tunes.train import checkpoint, metrics, model_folder

    assert job.run.dir is not None
    folder = model_folder.load(job.run.dir / "model")
    rung = Run("train", job, job.run.dir, is_writer=False, started=0.0)
    cfg = EvaluateJob(
        model_path=None, evaluate=JudgeConfig(split="valid", batch=1, device=job.train.device), data=job.data,
        preprocess=job.preprocess, parallel=job.parallel, run=job.run,
    )  # fmt: skip
    single = []
    for seed in job.train.seeds:
        best = mesh.on_first(partial(checkpoint.load, rung, f"best-{seed}.pt"))
        if best is None:
            raise UserError(f"{rung.folder}/checkpoints/best-{seed}.pt is damaged: start again under another run.name")
        folder.model.load_state_dict(best["weights"])
        single.append(genre.evaluate(folder, shards, cfg, mesh, run)["metrics"]["valid"])
    return metrics.over_seeds(single, job.train.seeds) if len(single) > 1 else single[0]


def _publish(run: Run, report: Facts) -> None:
    from parallel_tunes.reports import ladder

    ladder.write(run, report)


def list_jobs(shards_for: ShardsFor, train: Train) -> dict[str, Job]:
    """The job, given what finds or makes shards, and what trains on them."""
    work: Any = partial(climb, shards_for, train)
    return {"genre_ladder": Job(work, summaries.say_genre_ladder, group="train", on_ranks=True, goes_on=True)}
