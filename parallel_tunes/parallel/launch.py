"""Commands that start other processes of ours: torchrun on this machine, or once on each node of an allocation."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from parallel_tunes.parallel import slurm
from parallel_tunes.parallel.slurm import Allocation
from parallel_tunes.schema import shipped

MAX_RESTARTS = 3  # of a group of ranks by torchrun, when one of them dies


@dataclass(frozen=True)
class Command:
    """A command line and what it adds to the environment."""

    words: tuple[str, ...]
    environment: dict[str, str]

    @property
    def full_environment(self) -> dict[str, str]:
        """This process's environment with the additions."""
        return os.environ | self.environment


def ranks_command(
    words: Sequence[str], *, num_ranks: int, allocation: Allocation | None, max_restarts: int = 0,
    always_torchrun: bool = False,
) -> Command:  # fmt: skip
    """`ptunes WORDS` on so many ranks: on this machine, or in an allocation as a job step with one torchrun a node.

    Args:
        words: job and overrides.
        num_ranks: world size; in an allocation a multiple of its nodes.
        max_restarts: how often torchrun starts the ranks again when one dies.
        always_torchrun: one rank too has what hpc/torchrun.sh sets.
    """
    python = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    common = python | {"PT_MAX_RESTARTS": str(max_restarts), "PT_NUM_RANKS": str(num_ranks)}
    launcher = str(shipped("hpc") / "torchrun.sh")
    if allocation is None and num_ranks == 1 and not always_torchrun:
        return Command((sys.executable, "-m", "parallel_tunes", *words), common)
    if allocation is None:
        return Command(("bash", launcher, str(num_ranks), *words), common)
    num_nodes = len(allocation.nodes)
    step = [
        "srun",
        f"--nodes={num_nodes}",
        f"--nodelist={','.join(allocation.nodes)}",
        f"--ntasks={num_nodes}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
    ]
    # srun does not inherit --cpus-per-task since Slurm 22.05
    places = {"SRUN_CPUS_PER_TASK": str(allocation.cpus_per_node)}
    if num_nodes > 1:
        head = slurm.address_of(allocation.nodes[0])
        places |= {"PT_RENDEZVOUS": f"{head}:{allocation.port}", "PT_NUM_NODES": str(num_nodes)}
    return Command((*step, "bash", launcher, str(num_ranks // num_nodes), *words), common | places)


@contextlib.contextmanager
def started(
    command: Command, output: Path, grace_s: float = 30.0, num_cores: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A command at work, its output appended to a file; it never outlives the block.

    Args:
        num_cores: that its processes keep to, the first of those that this one may use; default all of them.
    """
    with output.open("ab") as stream, kept_to(num_cores):
        process = subprocess.Popen(
            command.words, env=command.full_environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun and srun pass it on to the ranks
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def kept_to(num_cores: int | None) -> Iterator[None]:
    """Within the block this thread, and what it starts, keeps to so many cores."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:num_cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def run(command: Command, output: Path, *, timeout_s: float | None = None, num_cores: int | None = None) -> int | None:
    """Run a command until it ends; its exit code, or None if it had to be ended after `timeout_s`.

    Args:
        num_cores: that its processes keep to; default all that this one may use.
    """
    with started(command, output, num_cores=num_cores) as process:
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


def last_words(log: Path) -> str:
    """Why a process has ended, if it has said so in its log: torchrun says much more, and says it last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    reasons = [line for line in lines if re.match(r"ptunes: (?!warning)|[\w.]*(Error|Exception)\b", line)]
    return (reasons[:1] or [line for line in lines if line][-1:] or ["none"])[0]
