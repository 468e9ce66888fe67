"""Tasks shared among ipyparallel engines, on this machine or on the nodes of a cluster, or among threads of this process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil

from parallel_tunes.parallel import slurm
from parallel_tunes.parallel.dispatch import Advance, Cluster, Dispatcher, Result, Task, Work, is_alive
from parallel_tunes.schema import UserError

Value = TypeVar("Value")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
QUEUE_S = 7 * 86400  # how long a job of engines may wait for its turn
FOLDER = ".engines-"  # what engines are found by, beside the shards
START_S = 7.0  # of engines, with their imports: what they must win back
MOMENT_S = 0.5
MAX_THREADS = 4  # more of them wait for each other in the interpreter


@dataclass(frozen=True)
class Engines:
    """How many engines, and where.

    Args:
        num: number of engines; 0 works in this process.
        launcher: `local` starts them on this machine; `slurm` as a step of this allocation, or outside of one as a job.
        folder: where all nodes see what the engines are found by; needed by `slurm`.
        threads: in this process, without engines.
        ready: `module:function` that local engines call while they wait for their controller, to load what work needs.
    """

    num: int
    launcher: str = "local"
    folder: Path | None = None
    threads: int = 1
    ready: str = ""


def choose(launcher: str, folder: Path, work_s: float, num_tasks: int, say: Callable[[str], None]) -> Engines:
    """The engines for `parallel.engines=auto`: what ends first, by the time that engines take to start.

    Args:
        work_s: what the work would take one core, seconds.
        say: told in one line what was chosen, and why.
    """
    here = len(os.sched_getaffinity(0))
    allocation = slurm.allocation() if launcher == "slurm" else None
    cores = len(allocation.nodes) * allocation.cpus_per_node if allocation else here
    num = max(min(cores, num_tasks), 1)
    threads = min(num, here, MAX_THREADS)
    with_threads, with_engines = work_s / threads, START_S + work_s / num
    if with_engines < with_threads:
        say(f"parallel.engines=auto: {num} engines, about {with_engines:.0f} s ({with_threads:.0f} s without)")
        return Engines(num, launcher, folder)
    if num_tasks:
        say(f"parallel.engines=auto: {threads} threads here, as engines would not win back their start")
    return Engines(0, threads=threads)


@contextlib.contextmanager
def start_beside(engines: Engines | None, other: Callable[[], Value]) -> Iterator[tuple[Value, Cluster | None]]:
    """What `other` gives, and the cluster of these engines, which starts while `other` takes longer than a moment."""
    answer, cluster = Future[Value](), None

    def ask() -> None:
        try:
            answer.set_result(other())
        except BaseException as error:  # for whom it is asked
            answer.set_exception(error)

    with contextlib.ExitStack() as ending:
        threading.Thread(target=ask, name="beside", daemon=True).start()  # nobody waits for it after an interrupt
        if engines and engines.num and not wait([answer], timeout=MOMENT_S).done:
            cluster = ending.enter_context(start_cluster(engines))
        yield answer.result(), cluster


def map_tasks(
    work: Work[Task, Result],
    tasks: Sequence[Task],
    *,
    engines: Engines,
    advance: Advance,
    say: Callable[[str], None] = lambda _: None,
    cluster: Cluster | None = None,
) -> Iterator[Result]:
    """Results of `work(task, advance)` as they come, in any order.

    Args:
        work: a function of an importable module; it calls `advance(n)` whenever n more units are done.
        tasks: picklable, largest first where sizes differ.
        advance: told of every unit done, here in this process.
        say: takes lines for people: which engines died.
        cluster: of these engines, if they are started already.
    """
    if not tasks:
        return
    if engines.num:
        needed = replace(engines, num=min(engines.num, len(tasks)))
        with contextlib.nullcontext(cluster) if cluster else start_cluster(needed) as running:
            yield from Dispatcher(running, say).map(work, tasks, advance)
    elif engines.threads > 1 and len(tasks) > 1:
        yield from _map_threads(work, tasks, engines.threads, advance)
    else:
        for task in tasks:
            yield work(task, advance)


class _StoppedError(Exception):
    """Raised in threads whose results nobody waits for any more."""


def _map_threads(work: Work[Task, Result], tasks: Sequence[Task], num: int, advance: Advance) -> Iterator[Result]:
    lock, stopped = threading.Lock(), threading.Event()

    def tell(units: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        with lock:
            advance(units)

    with ThreadPoolExecutor(num, thread_name_prefix="worker") as workers:
        try:
            pending = {workers.submit(work, task, tell) for task in tasks}
            while pending:
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            stopped.set()
            workers.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def start_cluster(engines: Engines) -> Iterator[Cluster]:
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

        settings, how = _settle(engines)
        cluster = ipyparallel.Cluster(
            n=engines.num,
            profile_dir=str(Path(folder).resolve() / "profile"),
            # an engine counts as started at its first heartbeat: 3 s apart by default, which is most of the start-up
            controller_args=[
                "--HeartMonitor.period=100",
                "--HeartMonitor.max_heartmonitor_misses=300",
                "--IPController.use_threads=True",  # for its schedulers, which start sooner
            ],
            delay=0,  # of the engines behind the controller: they wait for its address by themselves, and import meanwhile
            send_engines_connection_env=on_slurm,
            config=settings,
            log_level=40,
            **how,
        )
        client = None
        try:
            try:
                cluster.start_cluster_sync()  # does not wait for engines: work begins with the first of them
                client = cluster.connect_client_sync()
            except (TimeoutError, RuntimeError, ipyparallel.error.EngineError, subprocess.SubprocessError) as error:
                raise UserError(f"parallel.engines={engines.num}: they do not start ({error})") from error
            controller = psutil.Process(cluster.controller.pid)
            family = {controller}
            yield Cluster(
                client,
                start_one=lambda: cluster.start_engines_sync(n=1),
                is_up=lambda: are_alive(controller, family),
                timeout_s=cluster.engine_timeout,
                folder=Path(folder),
            )
        finally:
            with contextlib.suppress(Exception):
                if client:
                    client.close()
                if not on_slurm:  # they hold nothing, and would take half a second to leave politely
                    cluster.signal_engines_sync(signal.SIGKILL)
            cluster.stop_cluster_sync()


def _settle(engines: Engines) -> tuple[Any, dict[str, Any]]:
    """Settings of ipyparallel's launchers, and arguments of its Cluster."""
    from traitlets.config import Config

    root = str(Path(__file__).parents[2])  # the engines import the package from where this process has it
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = Config()
    settings.EngineLauncher.environment = ONE_THREAD | {"PYTHONPATH": paths}
    settings.ControllerLauncher.environment = {"PYTHONPATH": paths}
    tethered = [sys.executable, "-m", "parallel_tunes.parallel.tether", str(os.getpid())]
    settings.LocalControllerLauncher.controller_cmd = [*tethered, "ipyparallel.controller"]
    modules = ",".join(filter(None, [engines.ready, "ipyparallel.engine"]))
    settings.LocalEngineSetLauncher.engine_cmd = [*tethered, modules]
    settings.LocalEngineSetLauncher.delay = 0
    # `Dispatcher` sees engines of this machine die by itself
    settings.LocalEngineSetLauncher.engine_args = ["--IPEngine.enable_nanny=False"]
    how: dict[str, Any] = {"engines": "local", "controller_ip": "127.0.0.1"}
    return settings, how | (_use_slurm(settings, engines.num) if engines.launcher == "slurm" else {})


def are_alive(controller: psutil.Process, family: set[psutil.Process]) -> bool:
    """Whether all of the controller's processes live, of which `family` is told as they come: without one, all wait for ever."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family |= set(controller.children(recursive=True))
    return all(map(is_alive, family))


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
