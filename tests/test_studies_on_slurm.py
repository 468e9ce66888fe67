"""A scaling study on a real Slurm: job arrays, a task that is killed, and again only what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fakes import UNSIZED, Cluster, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
# [1,2,4] × [8,16] × 3 launches were tried when this was written, with PT_SOAK=2
GPUS, BATCHES, LAUNCHES = ("[1,2,4]", "[8,16]", 3) if int(os.environ.get("PT_SOAK", "1")) > 1 else ("[1,2]", "[8]", 1)
WORDS = [
    "scaling", "data=synthetic", "data.root=logs/synth/corpus", "data.shards=logs/preprocess/corpus", *UNSIZED,
    f"scaling.gpus={GPUS}", f"scaling.batch={BATCHES}", f"scaling.launches={LAUNCHES}", "scaling.windows=2",
    "scaling.window_s=0.05", "scaling.ddp_baseline=false", "scaling.launcher=slurm", "resources.gpus_per_node=2",
    "resources.cpus_per_task=1", "run.name=queued",
]  # fmt: skip


def launches(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.glob("cells/*/launch-*.json")
    }


def ask(cluster: Cluster, workshop: Path, *more: str, check: bool = True) -> str:
    return cluster.ask("python", "-m", "parallel_tunes", *WORDS, *more, cwd=workshop, check=check)


def read(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def jobs_of(folder: Path) -> list[str]:
    return list(json.loads((folder / "jobs.json").read_text())["jobs"])


def test_a_study_as_job_arrays(cluster: Cluster, workshop: Path) -> None:
    folder = workshop / "logs/scaling/queued"
    said = ask(cluster, workshop)
    *arrays, last = jobs_of(folder)
    assert f"job {last} writes the report after them" in said
    report = read(folder)
    assert report["status"] == "preempted"
    assert len(arrays) == GPUS.count(",") + 1
    killed = f"{arrays[-1]}_0"  # of the most GPUs
    wait_until(lambda: cluster.ask("squeue", "--noheader", "--states=R", f"--jobs={killed}", check=False).strip() != "")
    cluster.ask("scancel", "--signal=KILL", "--full", killed)
    cluster.wait(last)
    report = read(folder)
    assert report["status"] == "complete"
    assert len(report["metrics"]["missing"]) == 1
    done = launches(folder)
    assert ask(cluster, workshop).count("1 launches are with Slurm") == 1
    *arrays, last = jobs_of(folder)
    assert len(arrays) == 1
    cluster.wait(last)
    after = launches(folder)
    assert {name: after[name] for name in done} == done
    assert len(after) == len(done) + 1
    metrics = read(folder)["metrics"]
    assert metrics["missing"] == []
    assert {cell["status"] for cell in metrics["cells"]} == {"ok"}
    assert {cell["n"] for cell in metrics["cells"]} == {LAUNCHES}
    assert read(folder)["launcher"] == "slurm"


def test_a_study_that_is_queued_is_left_alone(cluster: Cluster, workshop: Path) -> None:
    held = ["run.name=held", "scaling.gpus=[1]", "resources.options=--hold"]
    ask(cluster, workshop, *held)
    jobs = jobs_of(workshop / "logs/scaling/held")
    try:
        assert f"jobs {', '.join(jobs)} are at work on this study" in ask(cluster, workshop, *held, check=False)
        assert jobs_of(workshop / "logs/scaling/held") == jobs
    finally:
        cluster.ask("scancel", *jobs)


def test_more_than_the_cluster_has_is_refused_before_anything_is_queued(cluster: Cluster, workshop: Path) -> None:
    said = ask(cluster, workshop, "run.name=large", "scaling.gpus=[2,16]", "scaling.batch=[16]", check=False)
    assert "resources.nodes=8" in said
    assert not (workshop / "logs/scaling/large/jobs.json").exists()
    said = ask(cluster, workshop, "run.name=uneven", "scaling.gpus=[3]", check=False)
    assert "3 fill no whole number of nodes of 2" in said
