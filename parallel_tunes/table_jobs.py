"""The jobs on tables of tracks: synth kind=tracks, train task=popularity or learner=svm, evaluate data=spotify, predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_tunes import predicting
from parallel_tunes.config import GenreSvmJob, PredictJob
from parallel_tunes.config_tracks import EvaluateTracksJob, PopularityJob, SynthTracksJob
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts

if TYPE_CHECKING:
    import pandas as pd

    from parallel_tunes.data.shards import ShardSet

TRACKS = "tracks.csv"
TASKS = ("popularity", "relisten", "genre_svm")  # as model.json names those whose models take tables
MAX_BYTES = 1 << 26  # of a model.json that is looked into


def synth(cfg: SynthTracksJob, mesh: Mesh, run: Run) -> Facts:
    """Write tracks.csv and artists_with_genres.csv, and in truth.json what was planted."""
    from parallel_tunes.data import genres, synthetic_tracks

    del mesh
    planted = {entry.name: getattr(cfg, entry.name) for entry in fields(cfg) if entry.name not in ("kind", "run")}
    made = synthetic_tracks.make(**planted)
    run.write_bytes(TRACKS, made.tracks.to_csv(index=False).encode())
    run.write_bytes(genres.TABLE, made.artists.to_csv(index=False).encode())
    run.write_bytes("truth.json", (json.dumps(made.truth, indent=1, ensure_ascii=False) + "\n").encode())
    run.log(f"{len(made.tracks)} tracks by {cfg.num_artists} artists; what was planted: {run.folder / 'truth.json'}")
    return {"metrics": {"num_tracks": len(made.tracks), "num_artists": len(made.artists)}}


def train(cfg: PopularityJob, mesh: Mesh, run: Run) -> Facts | None:
    """Learn from a table, judge by its test split, write the model folder."""
    from parallel_tunes.tasks import popularity

    facts = popularity.train(cfg, mesh, run)
    if facts is None:
        return None
    table = facts.pop("table")
    return {**facts, "publish": partial(_publish, run, table)}


def train_genre(find_shards: Callable[..., ShardSet], cfg: GenreSvmJob, mesh: Mesh, run: Run) -> Facts | None:
    """Learn genres from a table of descriptors, or from those of tracks, which are made where they are not there yet."""
    from parallel_tunes.tasks import genre_svm

    if cfg.features.kind != "descriptors":
        raise UserError(f"features={cfg.features.kind}: learner=svm learns from features=descriptors")
    root = cfg.data.root
    if root is None or cfg.data.shards is not None or not genre_svm.holds_rows(root, cfg.task.features):
        root = find_shards(cfg.data, cfg.features, cfg, mesh, run).folder
    facts = genre_svm.train(cfg, root, mesh, run)
    if facts is None:
        return None
    table = facts.pop("table")
    return {**facts, "publish": partial(_publish, run, table)}


def _publish(run: Run, table: pd.DataFrame, report: Facts) -> None:
    from parallel_tunes.reports import popularity

    run.write_bytes("predictions.csv", table.to_csv(index=False).encode())
    popularity.write(run, report)


def evaluate(cfg: EvaluateTracksJob, mesh: Mesh, run: Run) -> Facts:
    """Judge a model folder by a table."""
    from parallel_tunes.reports import popularity
    from parallel_tunes.tasks import track_evaluation

    del mesh
    return {**track_evaluation.evaluate(cfg, run), "publish": partial(popularity.write, run)}


def task_of(folder: Path | None) -> str | None:
    """The task of a model folder, None where it does not say; what else is wrong with it is for others to say."""
    described = (folder or Path()) / "model.json"
    try:
        found = json.loads(described.read_text()) if described.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError):
        return None
    return str(found.get("task")) if isinstance(found, dict) else None


def predict(cfg: PredictJob, task: str, mesh: Mesh, run: Run) -> Facts:
    """Answer every row of tables; a table that cannot be read is said in a line and makes the exit code 1.

    Raises:
        UserError: the model cannot be used, or knows no such user.
    """
    from parallel_tunes.serve import answer_table
    from parallel_tunes.serve.listen_predictor import ListenPredictor
    from parallel_tunes.serve.track_predictor import TrackPredictor

    max_bytes = cfg.predict.max_mib << 20
    predictor: ListenPredictor | TrackPredictor
    if task == "relisten":
        predictor = ListenPredictor(cfg.model_path, mesh.device, max_bytes=max_bytes, say=run.log)
    else:
        predictor = TrackPredictor(cfg.model_path, max_bytes=max_bytes, say=run.log)
    tables = [*cfg.files, *(predicting.read_list(cfg.predict.files_from) if cfg.predict.files_from else ())]
    if not tables and cfg.user is None:
        raise UserError(f"predict: which tables? ptunes predict model={cfg.model_path} -- rows.csv …")
    answers: list[dict[str, Any]] = []
    if cfg.user is not None:
        if not isinstance(predictor, ListenPredictor):
            raise UserError(f"user={cfg.user}: only models of task=relisten know users")
        answers = predictor.recommend(cfg.user, cfg.predict.top_k)
    with run.progress("predict", len(tables), " tables") as bar:
        for file in tables:
            answers += predictor.predict(file, cfg.predict.top_k)
            bar.update()
    failed = [answer for answer in answers if "reason" in answer]
    for answer in failed[:20]:
        run.warn(f"{answer['file']}: {answer['reason']}")
    if len(failed) > 20:
        run.warn(f"… and {len(failed) - 20} more, all in report.json")
    table = answer_table.write(run, cfg.predict.output, answers)
    return {
        "metrics": {"num_files": len(tables), "num_rows": len(answers), "num_failed": len(failed)},
        "predictions": answers,
        "table": table,
        "front_end": predictor.fingerprint,
        "exit_code": 1 if failed else 0,
    }
