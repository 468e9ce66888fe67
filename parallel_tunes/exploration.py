"""The job explore: EDA and PCA of audio or spectrogram pictures by their shards, and of tables with data=spotify."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from parallel_tunes import summaries
from parallel_tunes.config import DataConfig, ExploreJob, FeaturesConfig
from parallel_tunes.config_explore import ExploreConfig, ExploreTableJob
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.session import Facts, Job

if TYPE_CHECKING:
    from parallel_tunes.data.material import Findings, Material

ShardsFor = Callable[[DataConfig, FeaturesConfig, ExploreJob, Mesh, Run], ShardSet]


def explore(shards_for: ShardsFor, cfg: ExploreJob, mesh: Mesh, run: Run) -> Facts:
    """Look at audio or pictures, whose shards are made where there are none."""
    from parallel_tunes.tasks import track_summaries

    try:
        shards = shards_for(cfg.data, cfg.features, cfg, mesh, run)
    except UserError as error:
        if "no column 'path'" in str(error):  # a table of numbers instead of a list of files
            raise UserError(f"{error}; a table of numbers is explored with data=spotify") from error
        raise
    material = track_summaries.summarise(shards, cfg.explore, run.progress)
    facts = {"data": shards.manifest["root"], "front_end": shards.manifest["fingerprint"]}
    return {**facts, **_explore(material, cfg.explore, run)}


def explore_table(cfg: ExploreTableJob, mesh: Mesh, run: Run) -> Facts:
    """Look at a table."""
    from parallel_tunes.tasks import table_summaries

    del mesh
    material = table_summaries.summarise(cfg)
    for remark in material.facts["remarks"]:
        run.log(remark)
    return {"data": str(cfg.data.root), **_explore(material, cfg.explore, run)}


def _explore(material: Material, cfg: ExploreConfig, run: Run) -> Facts:
    from parallel_tunes.tasks import exploring

    findings = exploring.explore(material, cfg.num_shown)
    return {
        "verdict": exploring.summarise(findings.metrics, material.facts.get("num_failed", 0)),
        "metrics": findings.metrics,
        "left_out": findings.left_out,
        "read": material.facts,
        "publish": partial(_publish, run, material, findings),
    }


def _publish(run: Run, material: Material, findings: Findings, report: Facts) -> None:
    from parallel_tunes.reports import explore

    explore.write(run, report, material, findings)


def list_jobs(shards_for: ShardsFor) -> dict[str, Job]:
    """The jobs, given what finds or makes shards."""
    return {
        "explore": Job(partial(explore, shards_for), summaries.say_explored),
        "explore_table": Job(explore_table, summaries.say_explored),
    }
