"""Tasks shared among ipyparallel engines, or mapped serially in this process."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from parallel_tunes.schema import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int], None]
Work = Callable[[Task, Advance], Result]


def map_tasks(work: Work[Task, Result], tasks: Sequence[Task], *, engines: int, advance: Advance) -> Iterator[Result]:
    """Results of `work(task, advance)` as they come, in any order.

    Args:
        work: a function of an importable module; it calls `advance(n)` whenever n more units are done.
        tasks: picklable, largest first where sizes differ.
        engines: number of ipyparallel engines; 0 maps serially in this process.
        advance: told of every unit done, here in this process.
    """
    if engines == 0 or not tasks:
        for task in tasks:
            yield work(task, advance)
        return
    with start_cluster(min(engines, len(tasks))) as client:
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
def start_cluster(num_engines: int) -> Iterator[Any]:
    """A client of `num_engines` engines on this machine, loopback only, that end with the block whatever happens."""
    with tempfile.TemporaryDirectory(prefix="ptunes-engines-") as folder:
        os.environ["IPYTHONDIR"] = folder  # nothing is left in the home folder; connection files are this user's alone
        import ipyparallel
        from traitlets.config import Config

        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        root = str(Path(__file__).parents[2])  # the engines import the package from where this process has it
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        settings = Config()
        settings.LocalEngineSetLauncher.environment = one_thread | {"PYTHONPATH": paths}
        settings.LocalEngineSetLauncher.delay = 0
        cluster = ipyparallel.Cluster(
            n=num_engines,
            profile_dir=f"{folder}/profile",
            controller_ip="127.0.0.1",
            # an engine counts as started at its first heartbeat: 3 s apart by default, which is most of the start-up
            controller_args=["--HeartMonitor.period=250", "--HeartMonitor.max_heartmonitor_misses=240"],
            config=settings,
            log_level=40,
        )
        try:
            client = cluster.start_and_connect_sync(activate=False)
            yield client
        finally:
            with contextlib.suppress(Exception):
                client.close()
            cluster.stop_cluster_sync()
