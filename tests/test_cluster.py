"""hpc/cluster, a real Slurm on this machine, as its users find it: up, at work, disturbed, and down without a trace."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fakes import PATIENCE_S, ROOT, Cluster, wait_until

pytestmark = pytest.mark.slurm
Start = Callable[..., Cluster]


def script(name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PT_"))}
    command = [shutil.which("bash") or "bash", str(ROOT / "hpc" / "cluster" / name), *words]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts clusters, in folders with short names: sockets lie below them."""
    folders: list[str] = []

    def up(**settings: str) -> Cluster:
        folder = tempfile.mkdtemp(prefix="pt-")
        folders.append(folder)
        done = script("up", folder, **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return Cluster(Path(folder))

    try:
        yield up
    finally:
        for folder in folders:
            script("down", folder)
            shutil.rmtree(folder, ignore_errors=True)


def processes(cluster: Cluster, node: str = "") -> dict[int, str]:
    """Pids and names of what a cluster, or one node of it, runs."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            environment = process.environ()
            ours = environment.get("SLURM_CONF") == str(cluster.folder / "slurm.conf")
            if ours and node in ("", environment.get("SLURMD_NODENAME")):
                found[process.pid] = process.name()
    return found


def ports(cluster: Cluster) -> set[int]:
    """The ports on which a cluster listens, on loopback only, away from the ports that others choose from."""
    pids = processes(cluster)
    found = set()
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for socket in psutil.net_connections("inet"):
        if socket.pid in pids and socket.status == psutil.CONN_LISTEN and socket.laddr:
            address, port = socket.laddr
            assert ipaddress.ip_address(address).is_loopback
            assert not 20000 <= port < 40000
            assert not low <= port <= high or (low <= 10000 and high >= 65499)
            found.add(port)
    return found


def sbatch(cluster: Cluster, command: str, *options: str) -> str:
    return cluster.ask("sbatch", "--parsable", "--output=/dev/null", *options, f"--wrap={command}").strip()


def node_of(cluster: Cluster, job: str) -> str:
    return cluster.facts(job).partition(" NodeList=")[2].split()[0]


def node_state(cluster: Cluster, node: str) -> str:
    return cluster.ask("sinfo", "--noheader", "--partition=debug", f"--nodes={node}", "--format=%T").strip()


def test_up_and_down(start: Start) -> None:
    cluster = start()
    nodes = cluster.ask("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T %c %m %G").splitlines()
    assert nodes == [f"n{number} idle 4 4000 gpu:4" for number in (1, 2, 3, 4)]
    assert Counter(processes(cluster).values()) == {"munged": 1, "slurmctld": 1, "slurmd": 4}
    assert len(ports(cluster)) == 5
    environment = cluster.ask("bash", "-c", f'. {cluster.folder}/env.sh && echo "$SLURM_CONF $PT_SITE"')
    assert environment == f"{cluster.folder}/slurm.conf local-cluster\n"
    again = script("up", str(cluster.folder))
    assert (again.returncode, "up already" in again.stdout) == (0, True)
    assert sorted(cluster.ask("srun", "-N4", "bash", "-c", "echo $SLURMD_NODENAME").split()) == ["n1", "n2", "n3", "n4"]
    # a process that has left its job's session is killed too; one outside of the jobs is not
    cluster.wait(sbatch(cluster, "setsid sleep 1000 & sleep 1000"), "RUNNING")
    wait_until(lambda: Counter(processes(cluster).values())["sleep"] == 2, what="both sleep")
    other = subprocess.Popen(["sleep", "100"], env=cluster.environment)
    assert script("down", SLURM_CONF=str(cluster.folder / "slurm.conf")).returncode == 0
    assert not cluster.folder.exists()
    assert processes(cluster) == {other.pid: "sleep"}
    other.kill()
    other.wait()
    again = script("down", str(cluster.folder))
    assert (again.returncode, "no cluster is up" in again.stdout) == (0, True)


def test_jobs_on_one_node_have_gpus_of_their_own(start: Start, tmp_path: Path) -> None:
    cluster = start(NODES="1")
    outputs = [tmp_path / "a", tmp_path / "b"]
    for output in outputs:
        sbatch(cluster, "echo $CUDA_VISIBLE_DEVICES; sleep 1000", "--gres=gpu:2", f"--output={output}")
    wait_until(lambda: all(output.exists() and output.read_text().endswith("\n") for output in outputs))
    assert sorted(output.read_text().strip() for output in outputs) == ["0,1", "2,3"]


@pytest.mark.slow
def test_urgent_jobs_requeue_others_or_cancel_them(start: Start) -> None:
    cluster = start()
    requeued, cancelled = sbatch(cluster, "sleep 1000"), sbatch(cluster, "sleep 1000", "--partition=cancels")
    for job in (requeued, cancelled):
        cluster.wait(job, "RUNNING")
    cluster.ask("srun", "--partition=urgent", "--exclusive", "-N4", "true")
    assert cluster.state(cancelled) == "PREEMPTED"
    wait_until(lambda: cluster.state(requeued) == "RUNNING", what="it runs again")
    assert " Restarts=1 " in cluster.facts(requeued)


@pytest.mark.slow
def test_a_lost_node_loses_its_jobs_to_others(start: Start) -> None:
    cluster = start(NODES="2", MESSAGE_TIMEOUT="5")
    folder = str(cluster.folder)
    moved = sbatch(cluster, "setsid sleep 1000 & srun sleep 1000")
    cluster.wait(moved, "RUNNING")
    lost = node_of(cluster, moved)
    (other,) = {"n1", "n2"} - {lost}
    unharmed = sbatch(cluster, "sleep 1000", f"--nodelist={other}")
    cluster.wait(unharmed, "RUNNING")
    wait_until(lambda: Counter(processes(cluster, lost).values())["sleep"] == 2, what="both sleep")
    wait_until(lambda: "sleep" in processes(cluster, other).values(), what="the other one sleeps")
    before = processes(cluster, other)
    assert script("kill-node", lost, folder).returncode == 0
    assert processes(cluster, lost) == {}
    assert processes(cluster, other) == before
    wait_until(lambda: node_state(cluster, lost) == "down*", what="Slurm notices by itself")
    wait_until(lambda: cluster.state(moved) == "RUNNING", what="its job runs elsewhere")
    assert node_of(cluster, moved) == other
    assert " Restarts=0 " in cluster.facts(unharmed)
    assert script("restore-node", lost, folder).returncode == 0
    assert node_state(cluster, lost) == "idle"
    assert cluster.ask("srun", f"--nodelist={lost}", "bash", "-c", "echo $SLURMD_NODENAME").strip() == lost
    unknown = script("kill-node", "n3", folder)
    assert (unknown.returncode, "n1 to n2" in unknown.stderr, len(unknown.stderr.splitlines())) == (2, True, 1)


def test_clusters_side_by_side(start: Start) -> None:
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda _: start(NODES="2"), range(2))
    assert len(ports(one) | ports(other)) == 6
    job = sbatch(one, "sleep 1000")
    assert other.ask("squeue", "--noheader") == ""
    one.wait(job, "RUNNING")
    kept = processes(other)
    assert script("down", str(one.folder)).returncode == 0
    assert processes(one) == {}
    assert processes(other) == kept
    assert other.ask("srun", "-N2", "echo", "here").split() == ["here"] * 2


def test_accounting(start: Start) -> None:
    cluster = start(NODES="1", ACCOUNTING="1")
    assert len(ports(cluster)) == 3  # of slurmdbd, slurmctld and slurmd: none of MariaDB's
    job = sbatch(cluster, "exit 3", "--gres=gpu:1")
    facts = ("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}")
    wait_until(lambda: "FAILED" in cluster.ask(*facts, "--format=state"), what="slurmdbd has the job's end")
    assert "3:0|billing=1,cpu=1,gres/gpu=1," in cluster.ask(*facts, "--format=exitcode,alloctres")


def test_refusals_are_one_line() -> None:
    with tempfile.TemporaryDirectory(prefix="pt-") as folder:
        empty = Path(folder) / "empty"
        empty.mkdir()
        for word, variables, reason in [
            (str(empty), {"PATH": str(empty)}, "sudo apt install slurm-wlm munge"),
            (str(empty), {"PATH": str(empty), "ACCOUNTING": "1"}, "slurm-wlm munge slurmdbd mariadb-server"),
            (f"{empty}/{'x' * 80}", {}, "too long for unix sockets"),
            (f"{empty}/a b", {}, "only letters, digits"),
            (folder, {}, "is not empty, and no cluster's"),
            ("--nodes=2", {}, "no such option"),
            (str(empty), {"NODES": "many"}, "NODES=many"),
        ]:
            done = script("up", word, **variables)
            assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
            assert reason in done.stderr
        assert [*Path(folder).rglob("*")] == [empty]
