"""What Slurm says: this job's allocation, why a job ends, and what the cluster offers. Asked through its own commands."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from parallel_tunes.names import job_id
from parallel_tunes.schema import UserError

TRY = "`hpc/cluster/up` starts one on this machine (sudo apt install slurm-wlm munge)"
PATIENCE_S = 60  # a busy slurmctld may take its time


FINAL = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
)


class NoCluster(UserError):
    """This machine belongs to no Slurm cluster."""


def ask(*words: str, text: str | None = None, say_errors: bool = False) -> str:
    """What a Slurm command prints, on standard error if that is where it says it.

    Raises:
        NoCluster: it is not installed, or not configured.
        UserError: it refused; with Slurm's own reason.
    """
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=True, errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        raise NoCluster(f"{words[0]} is not on PATH: this is no machine of a Slurm cluster; {TRY}") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} gives no answer after {PATIENCE_S} s: is slurmctld up?") from None
    except subprocess.CalledProcessError as error:
        reason = " ".join((error.stderr or error.stdout).split())
        if "establish a configuration source" in reason:
            raise NoCluster(f"Slurm is installed, but knows no cluster: set SLURM_CONF; {TRY}") from error
        reason = reason.removeprefix(f"{words[0]}: ").removeprefix("error: ")
        raise UserError(f"{words[0]}: {reason or f'exit code {error.returncode}'}") from error
    return done.stderr if say_errors else done.stdout


def is_here() -> bool:
    """Whether Slurm's commands are installed."""
    return shutil.which("scontrol") is not None


def describe(*what: str) -> list[dict[str, str]]:
    """`scontrol show …` as dictionaries, one a record."""
    lines = ask("scontrol", "--oneliner", "show", *what).splitlines()
    return [dict(re.findall(r"(\S+?)=(.*?)(?= \S+?=|$)", line)) for line in lines if line.strip()]


@dataclass(frozen=True)
class Allocation:
    """What Slurm has given this job."""

    job: str  # its number; of an array's task ARRAYJOB_TASK
    restart: int  # how often Slurm has started it again
    nodes: tuple[str, ...]
    gpus_per_node: int
    cpus_per_node: int
    tasks_per_node: int
    port: int  # where the nodes meet, on the first

    @property
    def ranks_per_node(self) -> int:
        """A rank a GPU; without GPUs a rank a task."""
        return self.gpus_per_node or self.tasks_per_node

    @property
    def num_ranks(self) -> int:
        """The world size of a training in this allocation."""
        return len(self.nodes) * self.ranks_per_node

    def part(self, num_ranks: int) -> Allocation:
        """Its first nodes, as many as so many ranks fill.

        Raises:
            UserError: they would not be spread evenly.
        """
        num_nodes = -(-num_ranks // self.ranks_per_node)
        if num_ranks % num_nodes or num_nodes > len(self.nodes):
            raise UserError(
                f"{num_ranks} ranks on nodes of {self.ranks_per_node}: they fill no whole number of nodes here"
            )
        return replace(self, nodes=self.nodes[:num_nodes])


def rendezvous_port(job: str, conf: str) -> int:
    """Where the nodes of a job meet, on the first: another job there has another, and so has another cluster's."""
    return 20000 + (int(job) + zlib.crc32(conf.encode())) % 20000


def allocation(env: Mapping[str, str] = os.environ) -> Allocation | None:
    """The allocation this process is in; None outside of one."""
    job = job_id(env)
    if job is None or "SLURM_JOB_ID" not in env or "SLURM_JOB_NODELIST" not in env:
        return None
    nodes = tuple(ask("scontrol", "show", "hostnames", env["SLURM_JOB_NODELIST"]).split())
    counts = [int(cpus) for cpus in re.findall(r"(\d+)(?:\(x\d+\))?(?:,|$)", env.get("SLURM_JOB_CPUS_PER_NODE", "1"))]
    gpus = env.get("SLURM_GPUS_ON_NODE", "0").rpartition(":")[2]
    tasks = re.match(r"\d+", env.get("SLURM_NTASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "1"))
    return Allocation(
        job=job,
        restart=int(env.get("SLURM_RESTART_COUNT", "0")),
        nodes=nodes,
        gpus_per_node=int(gpus or 0),
        cpus_per_node=min(counts),
        tasks_per_node=int(tasks[0]) if tasks else 1,
        port=rendezvous_port(env["SLURM_JOB_ID"], env.get("SLURM_CONF", "")),
    )


def array_share(env: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Which share of the work, of how many, is this array task's; None outside of an array.

    A task that runs again on its own, or in an array with gaps, is one share of one: it does whatever is missing.
    """
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    if any(name not in env for name in names):
        return None
    task, low, high, count = (int(env[name]) for name in names)
    step = int(env.get("SLURM_ARRAY_TASK_STEP", "1"))
    return ((task - low) // step, count) if (high - low) // step + 1 == count else (0, 1)


def address_of(node: str) -> str:
    """The address that Slurm reaches a node by; its name need not resolve."""
    return describe("node", node)[0].get("NodeAddr", node)


def address_towards(host: str) -> str:
    """The address of this machine that another reaches it by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # sends nothing: the kernel only chooses the way
        return str(probe.getsockname()[0])


def interface_towards(host: str) -> str:
    """The network interface through which this machine reaches a host; what it calls itself may resolve to none."""
    address = address_towards(host)
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return "lo"


def signal_step(job: str, name: str, step: str = "0") -> None:
    """Send a signal to the processes of a job's step, the first by default, and not to its batch script."""
    ask("scancel", f"--signal={name}", f"{job}.{step}")


def requeue(job: str) -> None:
    """Put this job back into the queue; Slurm then ends what runs of it."""
    ask("scontrol", "requeue", job)


def job_state(job: str) -> str | None:
    """The state of a job, PENDING or RUNNING say; None once Slurm has forgotten it."""
    try:
        states = [facts.get("JobState", "") for facts in describe("job", job)]
    except UserError:
        return None
    waiting = [state for state in states if state not in FINAL]  # of a job array, whose tasks are listed
    return (waiting or states or [""])[0]


def is_queued(job: str) -> bool:
    """Whether a job waits or runs."""
    return job_state(job) not in (None, *FINAL)


def seconds_left(job: str) -> float | None:
    """Seconds until the job's time limit; None where there is none, or no answer."""
    try:
        left = ask("squeue", "--noheader", "--jobs", job, "--format=%L").split()
    except UserError:
        return None
    return parse_seconds(left[0]) if left else None


def parse_seconds(text: str) -> float | None:
    """`[days-]hours:minutes:seconds`, or fewer parts, as seconds; None for UNLIMITED and the like."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(?:(\d+):)?(\d+)", text.strip())
    if match is None:
        return None
    days, first, second, last = match.groups()
    parts = [int(part) for part in (first, second, last) if part is not None]
    if days is not None:  # with days, parts count from the left: hours, minutes, seconds
        parts = [*parts, 0, 0][:3]
    return float(int(days or 0) * 86400 + sum(part * 60**power for power, part in enumerate(reversed(parts))))


def why_stopped(signal_name: str, env: Mapping[str, str] = os.environ) -> str:
    """Why a job was told to stop, as far as Slurm knows by now: the words for a report."""
    job = job_id(env)
    if job is None or not is_here():
        return signal_name
    if signal_name == "SIGUSR1":
        left = seconds_left(job)
        return signal_name + ("" if left is None else f", {left:.0f} s before the time limit")
    try:
        (facts,) = describe("job", job)
    except (UserError, ValueError):
        return signal_name
    if int(facts.get("Restarts", 0)) > int(env.get("SLURM_RESTART_COUNT", 0)):
        return f"{signal_name}, queued again by Slurm (preempted, or scontrol requeue)"
    return f"{signal_name}, cancelled"


def lost_nodes(nodes: str) -> list[str]:
    """Those of some nodes, n[1-2] say, that are down or do not answer; empty where Slurm cannot tell."""
    if not nodes or not is_here():
        return []
    try:
        known = describe("node", nodes)
    except UserError:
        return []
    return [node["NodeName"] for node in known if re.search(r"DOWN|NOT_RESPONDING|\*", node.get("State", ""))]
