"""Trainings on a real Slurm of 4 nodes: disturbed in every way that clusters know, and equal to undisturbed ones."""

from __future__ import annotations

import itertools
import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fakes import PATIENCE_S, ROOT, TINY, Cluster, suspend, wait_until

from parallel_tunes import verification
from parallel_tunes.parallel import slurm
from parallel_tunes.train.checkpoint import steps_in

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
DATA = ["data=synthetic", "data.root=logs/synth/corpus", "data.shards=logs/preprocess/corpus"]
TRAIN = ["task=genre", *DATA, *TINY, "train.precision=fp32", "train.patience=1000", "train.checkpoint_every=3"]
ONE_NODE = ("--nodes=1", "--gpus-per-node=2", "--time=30")
TWO_NODES = ("--nodes=2", "--gpus-per-node=1", "--time=30")
FOUR_RANKS = ("--nodes=2", "--gpus-per-node=2", "--time=30")


def train(
    cluster: Cluster, folder: Path, name: str, *words: str, options: tuple[str, ...] = TWO_NODES, epochs: int = 24
) -> str:
    """Submit a training from a folder that is not the checkout; the job's number."""
    given = (*TRAIN, f"train.num_epochs={epochs}", f"run.name={name}", *words)
    return cluster.sbatch("train", *given, options=options, cwd=folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    except (FileNotFoundError, ValueError):
        return []


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def output(workshop: Path, job: str, name: str = "train") -> str:
    return (workshop / f"logs/slurm/{name}-{job}.out").read_text()


def wait_for_rows(cluster: Cluster, job: str, folder: Path, num: int) -> None:
    wait_until(lambda: len(rows(folder)) >= num, what=f"{num} epochs of job {job}: {cluster.facts(job)}")


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, workshop: Path) -> Path:
    job = train(cluster, workshop, "undisturbed")
    cluster.wait(job)
    report = read(workshop / "logs/train/undisturbed")
    assert (report["status"], report["world_size"], report["restarts"]["num"]) == ("complete", 2, 0)
    assert "report: logs/train/undisturbed/report.json" in output(workshop, job)
    return workshop / "logs/train/undisturbed"


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Weights, optimizer, samples, losses and metrics are the same bits on one node or two; no two writers were at work at once."""
    one, other = verification.read_outcome(folder), verification.read_outcome(undisturbed)
    for kind in one:
        assert list(verification.differ(one[kind], other[kind])) == [0.0] * len(
            list(verification.differ(one[kind], one[kind]))
        ), kind
    starts = read(folder)["restarts"]["starts"]
    for before, after in itertools.pairwise(starts):
        assert before["ended"] <= after["started"]


def ranks(cluster: Cluster, job: str) -> dict[int, psutil.Process]:
    """The processes of a job's ranks; another cluster beside this one may have a job of the same number."""
    found = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if (
            environment.get("SLURM_JOB_ID") == job
            and environment.get("SLURM_CONF") == cluster.environment["SLURM_CONF"]
            and "RANK" in environment
            and "parallel_tunes" in " ".join(process.cmdline())
        ):
            found[int(environment["RANK"])] = process
    return found


def test_a_dead_rank_a_requeue_and_the_time_limit(cluster: Cluster, workshop: Path, undisturbed: Path) -> None:
    job = train(cluster, workshop, "first", options=ONE_NODE)
    folder = workshop / "logs/train/first"
    wait_for_rows(cluster, job, folder, 3)
    ranks(cluster, job)[1].send_signal(signal.SIGKILL)
    wait_until(lambda: len(read_starts(folder)) == 2, what="torchrun starts the ranks again")
    wait_for_rows(cluster, job, folder, 7)
    cluster.ask("scontrol", "requeue", job)
    wait_until(lambda: len(read_starts(folder)) == 3, what="Slurm starts the job again")
    wait_for_rows(cluster, job, folder, 11)
    # The limit comes nearer: Slurm itself sends USR1 at --signal=B:USR1@60, or up to half a minute before it. From now it is
    # one minute or two away: nearer, and the limit might be there before Slurm looks.
    hours, minutes = cluster.facts(job).partition(" RunTime=")[2].split(":")[:2]
    cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * int(hours) + int(minutes) + 2}")
    waiting = ranks(cluster, job).values()
    for process in waiting:
        suspend(process)
    wait_until(lambda: "USR1: asking the job to stop" in output(workshop, job), what="USR1 from Slurm")
    for process in waiting:
        process.resume()
    wait_until(lambda: "Restarts=2" in cluster.facts(job), what="queued again after USR1")
    cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=30")
    cluster.wait(job)
    assert_same(folder, undisturbed)
    causes = read(folder)["restarts"]["causes"]
    assert len(causes) == 3
    assert "a rank died" in causes[0]
    assert "queued again by Slurm" in causes[1]
    assert causes[2].startswith("SIGUSR1, ")
    assert read(folder)["restarts"]["lost_steps"] >= 0
    assert output(workshop, job).count("stopped at a checkpoint; queued again") == 1


def read_starts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]


@pytest.fixture
def whole_cluster(cluster: Cluster) -> Iterator[Cluster]:
    """All nodes up before and after."""
    yield cluster
    for node in ("n1", "n2", "n3", "n4"):
        if "IDLE" not in cluster.ask("scontrol", "--oneliner", "show", "node", node):
            cluster.ask(str(ROOT / "hpc/cluster/restore-node"), node, str(cluster.folder))


def test_a_lost_node_preemption_and_a_torn_checkpoint(
    whole_cluster: Cluster, workshop: Path, undisturbed: Path
) -> None:
    cluster = whole_cluster
    job = train(cluster, workshop, "second")
    folder = workshop / "logs/train/second"
    wait_for_rows(cluster, job, folder, 3)
    lost = cluster.facts(job).partition(" NodeList=n[")[2][2]  # the second of n[1-2]
    cluster.ask(str(ROOT / "hpc/cluster/kill-node"), f"n{lost}", str(cluster.folder))
    cluster.ask(
        "scontrol", "update", f"NodeName=n{lost}", "State=DOWN", "Reason=test"
    )  # or Slurm notices in half a minute
    wait_until(lambda: len(read_starts(folder)) == 2, what="Slurm starts the job on other nodes")
    cluster.ask(str(ROOT / "hpc/cluster/restore-node"), f"n{lost}", str(cluster.folder))
    wait_for_rows(cluster, job, folder, 7)
    urgent = ("--partition=urgent", "--exclusive", "--nodes=4", "--output=/dev/null", "--wrap=sleep 1")
    cluster.ask("sbatch", *urgent)
    wait_until(lambda: len(read_starts(folder)) == 3, what="the preempted job starts again")
    wait_for_rows(cluster, job, folder, 11)
    cluster.ask("scontrol", "requeuehold", job)
    wait_until(lambda: cluster.state(job) in ("PENDING", "REQUEUE_HOLD"), what="held")
    newest = folder / "checkpoints" / f"step-{steps_in(folder)[-1]}.pt"
    newest.write_bytes(newest.read_bytes()[:-500])
    cluster.ask("scontrol", "release", job)
    cluster.wait(job)
    assert_same(folder, undisturbed)
    causes = read(folder)["restarts"]["causes"]
    assert causes[0] == f"node n{lost} was lost"
    assert "preempted" in causes[1]
    assert f"{newest.name}: damaged, passed over" in output(workshop, job)


def test_scancel_checkpoints_and_another_world_size_goes_on(
    cluster: Cluster, workshop: Path, undisturbed: Path
) -> None:
    job = train(cluster, workshop, "fewer", options=ONE_NODE)
    folder = workshop / "logs/train/fewer"
    wait_for_rows(cluster, job, folder, 4)
    cluster.ask("scancel", job)
    cluster.wait(job, "CANCELLED")
    assert read(folder)["status"] == "preempted"
    assert read(folder)["restarts"]["starts"][0]["cause"] == "SIGTERM, cancelled"
    cluster.wait(train(cluster, workshop, "fewer", options=("--nodes=1", "--gpus-per-node=1", "--time=30")))
    report = read(folder)
    assert report["world_size"] == 1
    assert cluster.state(job) == "CANCELLED"
    assert [row["samples"] for row in rows(folder)] == [row["samples"] for row in rows(undisturbed)]
    assert rows(folder)[-1]["train"]["loss"] == pytest.approx(rows(undisturbed)[-1]["train"]["loss"], rel=1e-3)


def test_a_task_of_an_array_queues_itself_again_alone(cluster: Cluster, workshop: Path) -> None:
    """The one whose own number is the array's: Slurm would take that for all tasks."""
    options = ("--nodes=1", "--gpus-per-node=1", "--time=30", "--array=0-1")
    array = cluster.sbatch("train", *TRAIN, "train.num_epochs=200", options=options, cwd=workshop)
    folders = [workshop / f"logs/train/{array}_{task}" for task in (0, 1)]
    for folder in folders:
        wait_for_rows(cluster, array, folder, 2)
    (task,) = re.findall(rf"JobId={array} .*? ArrayTaskId=(\d)", cluster.facts(array))
    cluster.ask("scancel", "--signal=USR1", "--batch", f"{array}_{task}")
    wait_until(lambda: len(read_starts(folders[int(task)])) == 2, what="the task starts again")
    wait_until(
        lambda: not cluster.ask("squeue", "--noheader", "--jobs", array).strip(), what="both tasks end", pause_s=0.3
    )
    assert [read(folder)["status"] for folder in folders] == ["complete", "complete"]
    assert len(read_starts(folders[1 - int(task)])) == 1
    one, other = (rows(folder) for folder in folders)
    assert [row["samples"] for row in one] == [row["samples"] for row in other]


def test_verify_on_the_cluster_kills_a_rank_in_the_middle_of_a_checkpoint(cluster: Cluster, workshop: Path) -> None:
    """Of the full model, whose gradients fill more than one bucket: from 3 ranks on their order shows in the bits."""
    full = [word for word in TRAIN if not word.startswith("model")]
    words = (*full, "verify.kill_at=[during:checkpoint]", "train.num_epochs=3", "run.name=proof")
    job = cluster.sbatch("verify", *words, options=FOUR_RANKS, cwd=workshop)
    cluster.wait(job)
    report = read(workshop / "logs/verify/proof")
    assert report["metrics"]["equal"]
    assert report["metrics"]["exact"]
    assert report["metrics"]["restarts"] == 1
    disturbed = report["trials"]["disturbed"]["restarts"]
    assert disturbed["lost_steps"] >= 1
    assert report["trials"]["disturbed"]["world_size"] == 4
    assert not list((workshop / "logs/verify/proof").rglob(".partial-*"))


def test_two_jobs_on_one_node_do_not_collide(cluster: Cluster, workshop: Path) -> None:
    options = (*ONE_NODE, "--nodelist=n1")
    names = ("it's (one) $HOME", "two = zwei")  # whatever a name holds goes through the shell as it is
    jobs = [train(cluster, workshop, name, options=(*options, "--hold"), epochs=3) for name in names]
    cluster.ask("scontrol", "release", ",".join(jobs))
    for job in jobs:
        cluster.wait(job)
    reports = [read(workshop / "logs/train" / name) for name in names]
    assert [report["world_size"] for report in reports] == [2, 2]
    assert reports[0]["metrics"] == reports[1]["metrics"]
    starts = [report["restarts"]["starts"][0] for report in reports]
    assert max(start["started"] for start in starts) < min(start["ended"] for start in starts)


def test_a_rendezvous_that_fails_says_so(cluster: Cluster, workshop: Path) -> None:
    """Somebody else has the port that follows from the job's number."""
    ahead = cluster.ask("sbatch", "--parsable", "--output=/dev/null", "--wrap=true").strip()
    with socket.socket() as taken:
        taken.bind(("", slurm.rendezvous_port(str(int(ahead) + 1), cluster.environment["SLURM_CONF"])))
        taken.listen()
        job = train(cluster, workshop, "nobody", epochs=1, options=(*TWO_NODES, "--no-requeue"))
        assert int(job) == int(ahead) + 1
        cluster.wait(job, "FAILED")
    assert "the start or the rendezvous failed" in output(workshop, job)
    assert not (workshop / "logs/train/nobody").exists()


def test_processes_that_do_not_know_each_other_are_refused(cluster: Cluster, workshop: Path) -> None:
    words = ("python", "-m", "parallel_tunes", "train", *TRAIN, "run.name=alone")
    said = cluster.ask("srun", "-N2", "-n2", *words, cwd=workshop, check=False, variables={"PYTHONPATH": str(ROOT)})
    assert "use slurm/train.sbatch" in said
    assert not (workshop / "logs/train/alone").exists()


def test_a_refusal_ends_the_job_at_once(cluster: Cluster, workshop: Path) -> None:
    job = train(cluster, workshop, "wrong", "train.lr=-1")
    cluster.wait(job, "FAILED")
    assert "ExitCode=2:0" in cluster.facts(job)
    assert output(workshop, job).count("train.lr=-1: expected a number of at least 0") == 1


def test_a_full_disk_ends_the_job_in_one_line_and_the_last_checkpoint_stays_good(
    cluster: Cluster, workshop: Path
) -> None:
    """The kernel's limit on file sizes stands in for a full disk: writing beyond it fails in the same way."""
    job = train(cluster, workshop, "full-disk", options=ONE_NODE, epochs=200)
    folder = workshop / "logs/train/full-disk"
    wait_for_rows(cluster, job, folder, 2)
    running = ranks(cluster, job)
    assert sorted(running) == [0, 1]
    for process in running.values():
        process.rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))
    cluster.wait(job, "FAILED")
    said = output(workshop, job)
    assert said.count("what was there before stays good") == 1
    assert "Traceback" not in said.partition("ptunes: ")[0]
    assert steps_in(folder)
    assert load_newest_step(folder) == steps_in(folder)[-1]
    assert not list(folder.rglob(".partial-*"))


def load_newest_step(folder: Path) -> int:
    import torch

    newest = folder / "checkpoints" / f"step-{steps_in(folder)[-1]}.pt"
    return int(torch.load(newest, weights_only=True)["progress"]["total_step"])


def test_preprocessing_as_an_array_and_on_engines_gives_the_serial_checksums(cluster: Cluster, workshop: Path) -> None:
    words = ["data=synthetic", "data.root=logs/synth/corpus", "preprocess.shard_mib=0.1", "features.hop_length=256"]
    serial = cluster.ask(
        "python",
        "-m",
        "parallel_tunes",
        "preprocess",
        *words,
        "run.name=serial",
        cwd=workshop,
        variables={"PYTHONPATH": str(ROOT)},
    )
    assert "report: logs/preprocess/serial/report.json" in serial
    array = cluster.sbatch(
        "preprocess", *words, "run.name=array", options=("--array=0-3", "--cpus-per-task=1"), cwd=workshop
    )
    killed = f"{array}_2"
    wait_until(lambda: cluster.state(killed) != "PENDING", what="task 2 starts")
    cluster.ask("scancel", "--signal=KILL", "--full", killed, check=False)
    engines = ("parallel.launcher=slurm", "parallel.engines=2", "run.name=engines")
    shared = cluster.sbatch("preprocess", *words, *engines, options=("--nodes=2", "--cpus-per-task=2"), cwd=workshop)
    wait_until(lambda: not cluster.ask("squeue", "--noheader", "--jobs", array).strip(), what="the array ends")
    own = (
        "parallel.launcher=slurm",
        "parallel.engines=2",
        "run.name=job",
    )  # outside of a job: engines get one of their own
    command = ("python", "-m", "parallel_tunes", "preprocess", *words, *own)
    cluster.ask(*command, cwd=workshop, variables={"PYTHONPATH": str(ROOT)})
    folders = {name: workshop / "logs/preprocess" / name for name in ("serial", "array", "engines", "job")}
    assert not (folders["array"] / "manifest.json").exists()
    again = cluster.sbatch("preprocess", *words, "run.name=array", options=("--array=2",), cwd=workshop)
    wait_until(lambda: (folders["array"] / "manifest.json").exists(), what=f"the array's last task merges {again}")
    cluster.wait(shared)
    manifests = {name: (folder / "manifest.json").read_text() for name, folder in folders.items()}
    assert manifests["array"] == manifests["serial"]
    assert manifests["engines"] == manifests["serial"]
    assert manifests["job"] == manifests["serial"]
    assert not [path for folder in folders.values() for path in folder.glob(".engines-*")]
    assert len(json.loads(manifests["serial"])["shards"]) >= 16
    wait_until(lambda: (folders["array"] / "report.json").exists(), what="the report of the whole")
    nodes = {start["nodes"] for start in read_starts(folders["engines"])}
    assert all("-" in node or "," in node for node in nodes)  # two of them


def test_a_service_says_how_to_reach_it_and_ends_when_its_time_is_up(cluster: Cluster, workshop: Path) -> None:
    words = ("model=logs/train/tiny/model", "serve.port=0", "run.name=served")
    job = cluster.sbatch("serve", *words, options=("--time=30",), cwd=workshop)
    log = workshop / f"logs/slurm/serve-{job}.out"
    wait_until(lambda: log.exists() and "then open" in log.read_text(), what=f"the server is up: {cluster.facts(job)}")
    said = log.read_text()
    url = next(line.split()[-1] for line in said.splitlines() if line.startswith("serving on "))
    port = url.rpartition(":")[2]
    assert f"\ntunnel: ssh -N -L {port}:127.0.0.1:{port} -J " in said
    data = next((workshop / "logs/synth/corpus").rglob("*.wav")).read_bytes()
    answer = httpx.post(f"{url}/v1/genre", files={"file": data}, timeout=PATIENCE_S, trust_env=False)
    assert answer.status_code == 200, answer.text
    cluster.ask("scancel", "--signal=USR1", "--batch", job)  # as Slurm does a minute before the end
    cluster.wait(job)
    report = read(workshop / "logs/serve/served")
    assert (report["status"], report["stopped_by"]) == ("complete", "SIGUSR1")
    assert report["metrics"]["endpoints"]["/v1/genre"]["statuses"] == {"200": 1}
