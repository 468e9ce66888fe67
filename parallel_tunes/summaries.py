"""What people came for, said at the end of a run, and again when it is complete already."""

from __future__ import annotations

import json

from parallel_tunes.config import (
    BenchmarkJob,
    DoctorJob,
    EvaluateJob,
    ExploreJob,
    ExportJob,
    GenreLadderJob,
    GenreSvmJob,
    PredictJob,
    PreprocessJob,
    ScalingJob,
    SubmitJob,
    TrainJob,
    VerifyJob,
)
from parallel_tunes.config_explore import ExploreTableJob
from parallel_tunes.config_export import ExportListensJob
from parallel_tunes.config_listens import (
    EvaluateListensJob,
    ListenLadderJob,
    PreprocessListensJob,
    RelistenJob,
    SynthListensJob,
)  # fmt: skip
from parallel_tunes.config_synth import SynthJob
from parallel_tunes.config_tracks import EvaluateTracksJob, PopularityJob, SynthTracksJob
from parallel_tunes.run import Run, say
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
        for name, word in (("map", "mean average precision"), ("macro_auc", "ROC-AUC")):
            if judged.get(name) is not None:
                run.log(f"{word} {with_interval(judged, name)}, mean over labels")
        run.log(f"accuracy {judged['accuracy']:.3f} ({interval})")
    if isinstance(cfg, TrainJob):
        run.log(f"model: {run.folder / 'model'}")


def say_tables(cfg: SynthTracksJob, report: Facts, run: Run) -> None:
    """How to use the tables."""
    del cfg, report
    run.log(f"data=spotify data.root={run.folder}")


def say_tracks(cfg: PopularityJob | EvaluateTracksJob | GenreSvmJob, report: Facts, run: Run) -> None:
    """What the model is worth, what needs no model, and where the page is."""
    split = report["split"].get("name", "test")
    judged = report["metrics"][split]
    if report["metrics"]["test"] is None and not isinstance(cfg, EvaluateTracksJob):
        run.log("no test tracks: nothing says how good this model is" + (f" but its {split} tracks" if judged else ""))
    if judged is not None:
        for name in ("r2", "rmse") if report["target"] == "regression" else ("accuracy", "balanced_accuracy", "auc"):
            if judged.get(name) is not None:
                run.log(f"{name} {with_interval(judged, name)}, n = {judged['n']} {split} tracks")
        if report["target"] != "regression":
            run.log(f"majority share {judged['majority_share']:.3f}")
    if not isinstance(cfg, EvaluateTracksJob):
        run.log(f"model: {run.folder / 'model'}")


def say_explored(cfg: ExploreJob | ExploreTableJob, report: Facts, run: Run) -> None:
    """Log the verdict and the path of the page."""
    del cfg
    run.log(f"data: {report['data']}")
    run.log(report["verdict"])


def say_listens(cfg: SynthListensJob, report: Facts, run: Run) -> None:
    """How to use the tables."""
    del cfg, report
    run.log(f"data=kkbox data.root={run.folder}")


def say_columns(cfg: PreprocessListensJob, report: Facts, run: Run) -> None:
    """How to use the columns."""
    del report
    run.log(f"data=kkbox data.root={cfg.data.root} data.columns={run.folder}")


def say_relisten(cfg: RelistenJob | EvaluateListensJob, report: Facts, run: Run) -> None:
    """What the network is worth, what needs no network, and where the page is."""
    split = cfg.evaluate.split if isinstance(cfg, EvaluateListensJob) else "test"
    judged, beside = report["metrics"][split], (report["baselines"] or {}).get("the song's earlier rate")
    if judged is None:
        run.log("no test rows: nothing says how good this model is")
    else:
        for name, word in (("auc", "AUC"), ("accuracy", "accuracy"), ("loss", "log-loss")):
            if judged.get(name) is not None:
                run.log(f"{word} {with_interval(judged, name)}, n = {judged['n']} rows of {judged['num_groups']} users")
        if beside and beside.get("auc") is not None and split == "test":
            run.log(
                f"majority share {judged['majority_share']:.3f}; AUC of the song's earlier rate alone {beside['auc']:.3f}"
            )
    if isinstance(cfg, RelistenJob):
        run.log(f"model: {run.folder / 'model'}")


def say_ladder(cfg: ListenLadderJob, report: Facts, run: Run) -> None:
    """Each protocol and what it reads."""
    del cfg
    for row in report["metrics"]["rows"]:
        run.log(f"  {row['name']:30} AUC {with_interval(row['test'], 'auc')}, n = {row['test']['n']}")


def say_genre_ladder(cfg: GenreLadderJob, report: Facts, run: Run) -> None:
    """Each protocol and what it reads."""
    del cfg
    for row in report["metrics"]["rows"]:
        judged_by = "" if row["judged_by"] == "test" else " of the validation split"
        run.log(
            f"  {row['name']:36} accuracy {with_interval(row, 'accuracy')}, n = {row['n']} {row['unit']}{judged_by}"
        )


def with_interval(judged: Facts, name: str) -> str:
    """A figure and its 95 % interval."""
    interval = judged.get(f"{name}_ci95")
    return f"{judged[name]:.3f}" + (f" (95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


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


def say_scaling(cfg: ScalingJob, report: Facts, run: Run) -> None:
    """What is worth its hours, and where the page is."""
    from parallel_tunes.reports.scaling.study import to_lines

    if "launcher" in report or cfg.compare:
        for line in to_lines(report):
            run.log(line)


def say_export(cfg: ExportJob | ExportListensJob, report: Facts, run: Run) -> None:
    """How true the graphs are, what the integers cost, and where everything is."""
    del cfg
    from parallel_tunes.reports.export import to_lines

    for line in to_lines(report):
        run.log(line)


def say_nothing(cfg: SubmitJob | DoctorJob, report: Facts, run: Run) -> None:
    """All was said on the way."""


def say_predict(cfg: PredictJob, report: Facts, run: Run) -> None:
    """The answers; of very many files, how many there are."""
    from parallel_tunes.serve.labels import format_table

    answers = report["predictions"]
    if cfg.predict.format == "json":
        where = {"table": str(run.folder / report["table"])} if answers is None else {}
        say(json.dumps({"predictions": answers, **where}, ensure_ascii=False))
        return
    if answers is None:
        counts = report["metrics"]
        common = ", ".join(f"{label} {num}" for label, num in list(counts["labels"].items())[:10])
        say(f"{counts['num_files']} files, {counts['num_failed']} failed; most probable: {common}")
        say(f"predictions: {run.folder / report['table']}")
        return
    if "num_rows" in report["metrics"]:
        from parallel_tunes.serve.rows import format_rows

        say(format_rows(answers), end="")
        return
    say(format_table(answers, cfg.predict.top_k), end="")
