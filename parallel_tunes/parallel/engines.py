"""Tasks shared among ipyparallel engines, on this machine or on the nodes of a cluster, or mapped serially here."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from parallel_tunes.parallel import slurm
from parallel_tunes.schema import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int], None]
Work = Callable[[Task, Advance], Result]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
QUEUE_S = 7 * 86400  # how long a job of engines may wait for its turn
FOLDER = ".engines-"  # what engines are found by, beside the shards


@dataclass(frozen=True)
class Engines:
    """How many engines, and where.

    Args:
        num: number of engines; 0 maps serially in this process.
        launcher: `local` starts them on this machine; `slurm` as a step of this allocation, or outside of one as a job.
        folder: where all nodes see what the engines are found by; needed by `slurm`.
    """

    num: int
    launcher: str = "local"
    folder: Path | None = None


def map_tasks(
    work: Work[Task, Result], tasks: Sequence[Task], *, engines: Engines, advance: Advance
) -> Iterator[Result]:
    """Results of `work(task, advance)` as they come, in any order.

    Args:
        work: a function of an importable module; it calls `advance(n)` whenever n more units are done.
        tasks: picklable, largest first where sizes differ.
        advance: told of every unit done, here in this process.
    """
    if engines.num == 0 or not tasks:
        for task in tasks:
            yield work(task, advance)
        return
    with start_cluster(replace(engines, num=min(engines.num, len(tasks)))) as client:
        view = client.load_balanced_view()
        pending = {view.apply_async(run_on_engine, work, task): 0 for task in tasks}
        while pending:
            for answer, told in list(pending.items()):
                ready = answer.ready()
                done = _result(answer)[1] if ready else (answer.data or {}).get("done", told)
                if done > told:
                    advance(done - told)
                    pending[answer] = done
                if ready:
                    del pending[answer]
                    yield _result(answer)[0]
            time.sleep(0.05)


def _result(answer: Any) -> tuple[Any, int]:
    """What `run_on_engine` returned.

    Raises:
        UserError: it failed there, or the engine died.
    """
    from ipyparallel import RemoteError

    try:
        result: tuple[Any, int] = answer.get()
    except RemoteError as error:
        raise UserError(
            f"an engine failed ({error.ename}: {error.evalue}); the same command goes on from here"
        ) from error
    return result


def run_on_engine(work: Work[Task, Result], task: Task) -> tuple[Result, int]:
    """Runs on an engine: does the task and publishes its progress a few times a second."""
    from ipyparallel.datapub import publish_data

    done, told_at = 0, 0.0

    def advance(units: int) -> None:
        nonlocal done, told_at
        done += units
        if time.monotonic() - told_at > 0.25:
            told_at = time.monotonic()
            publish_data({"done": done})

    return work(task, advance), done


@contextlib.contextmanager
def start_cluster(engines: Engines) -> Iterator[Any]:
    """A client of these engines, that end with the block whatever happens. Connections are signed with a key of this run.

    Raises:
        UserError: Slurm refuses them, or too few start.
    """
    on_slurm = engines.launcher == "slurm"
    if on_slurm and engines.folder:
        for left in engines.folder.glob(FOLDER + "*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=FOLDER if on_slurm else "ptunes-engines-",
        dir=engines.folder if on_slurm else None,
        ignore_cleanup_errors=True,
    ) as folder:
        os.environ["IPYTHONDIR"] = folder  # nothing is left in the home folder; connection files are this user's alone
        import ipyparallel
        from traitlets.config import Config

        root = str(Path(__file__).parents[2])  # the engines import the package from where this process has it
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        settings = Config()
        how: dict[str, Any] = {"engines": "local", "controller_ip": "127.0.0.1"}
        settings.EngineLauncher.environment = ONE_THREAD | {"PYTHONPATH": paths}
        settings.LocalEngineSetLauncher.delay = 0
        if on_slurm:
            how |= _use_slurm(settings, engines.num)
        cluster = ipyparallel.Cluster(
            n=engines.num,
            profile_dir=str(Path(folder).resolve() / "profile"),
            # an engine counts as started at its first heartbeat: 3 s apart by default, which is most of the start-up
            controller_args=["--HeartMonitor.period=250", "--HeartMonitor.max_heartmonitor_misses=240"],
            config=settings,
            log_level=40,
            **how,
        )
        client = None
        try:
            try:
                client = cluster.start_and_connect_sync(activate=False)
            except (TimeoutError, ipyparallel.error.EngineError, subprocess.SubprocessError) as error:
                raise UserError(f"parallel.engines={engines.num}: they do not start ({error})") from error
            yield client
        finally:
            with contextlib.suppress(Exception):
                if client:
                    client.close()
            cluster.stop_cluster_sync()


def _use_slurm(settings: Any, num: int) -> dict[str, Any]:
    """Settings for engines that Slurm starts: a step across the nodes of this allocation, or a job of their own."""
    allocation = slurm.allocation()
    if allocation is None:
        # what sbatch reads from the environment (SBATCH_PARTITION, SBATCH_TIMELIMIT …) holds for this job too
        settings.SlurmEngineSetLauncher.batch_template = (
            "#!/bin/bash\n#SBATCH --job-name=engines\n#SBATCH --ntasks={n}\n#SBATCH --cpus-per-task=1\n"
            "#SBATCH --output=/dev/null\n#SBATCH --no-requeue\nexec srun --ntasks={n} --cpus-per-task=1 {program_and_args}\n"
        )
        node = slurm.describe("node")[0]
        return {"engines": "slurm", "controller_ip": slurm.address_towards(node["NodeAddr"]), "engine_timeout": QUEUE_S}
    from ipyparallel.cluster.launcher import MPIEngineSetLauncher

    # ipyparallel ships no types, so that its class is Any to mypy, which may not be inherited from
    class StepEngineSetLauncher(MPIEngineSetLauncher):  # type: ignore[misc]
        """Engines as a job step; unlike its base they know nothing of MPI."""

        @property
        def program(self) -> Any:
            return self.engine_cmd

    per_node = -(-num // len(allocation.nodes))
    settings.StepEngineSetLauncher.mpi_cmd = ["srun"]
    settings.StepEngineSetLauncher.mpi_args = [
        f"--ntasks-per-node={per_node}", "--cpus-per-task=1", "--overlap", "--kill-on-bad-exit=0",
        "--input=none", "--quiet",
    ]  # fmt: skip
    address = slurm.address_towards(slurm.address_of(allocation.nodes[-1]))
    return {"engines": StepEngineSetLauncher, "controller_ip": address, "engine_timeout": 600}
