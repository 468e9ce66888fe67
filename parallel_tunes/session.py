"""How a job is run, whichever it is: its folder, the signals it heeds, its report however it ends, its last words."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from parallel_tunes import files, names
from parallel_tunes.parallel import slurm
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.parallel.processor import cpu_model
from parallel_tunes.parallel.waiting import INTERRUPTED
from parallel_tunes.run import Run, Stop, say
from parallel_tunes.schema import UserError

Facts = dict[str, Any]
FAREWELL_S = 10.0


@dataclass(frozen=True)
class Job:
    """A job as the session sees it.

    Args:
        work: the job itself; its facts for the report, or None when it was asked to stop. The fact `publish` is a
            function that makes figures and pages of the report, just before it is written.
        tell: says what people came for, at the end of a run and again when it is complete already.
        group: the config group whose `device` it computes on; None for jobs that need none.
        on_ranks: whether torchrun may start it.
        finishes_step: whether a signal lets it end a step and save; else it stops at once.
        counts_steps: whether it notes in the history which step it goes on from.
        goes_on: whether a complete run may find more to do.
        fresh: whether each start is a run of its own, however many there are in one Slurm job.
        shares: gives the name of the share that this process does of a run, if it is but one of several: each has a
            folder of its own in tasks/.
    """

    work: Callable[[Any, Mesh, Run], Facts | None]
    tell: Callable[[Any, Facts, Run], None]
    group: str | None = None
    on_ranks: bool = False
    finishes_step: bool = False
    counts_steps: bool = False
    goes_on: bool = False
    fresh: bool = False
    shares: Callable[[Any], str | None] = lambda _: None


def run_job(name: str, job: Job, cfg: Any, *, part: int | None = None, mesh: Mesh | None = None) -> int:
    """Run a job in its run folder and say where its report is; the exit code.

    Args:
        part: number of this run within a sweep.
        mesh: of the job that this one is a part of.
    """
    nested, mesh = mesh is not None, mesh or Mesh()
    stop = Stop()
    try:
        with heed_signals(stop, finishes_step=job.finishes_step):
            return _run_heeding(name, job, cfg, part, mesh, stop, nested)
    except KeyboardInterrupt:
        if nested:
            raise
        return INTERRUPTED
    except RuntimeError as error:
        explained = mesh.explain(error)
        if explained is error:
            raise
        raise explained from error
    finally:
        if not nested:
            mesh.stop()


def _run_heeding(name: str, job: Job, cfg: Any, part: int | None, mesh: Mesh, stop: Stop, nested: bool) -> int:
    if not nested:  # a part that rank 0 does for all is a world of one within theirs
        mesh.check()
    if mesh.world_size > 1 and not job.on_ranks:
        raise UserError(f"{name} runs in one process: start it without torchrun")
    if job.group and not nested:
        how = {"timeout_s": cfg.parallel.timeout_s, "ddp": cfg.parallel.ddp} if hasattr(cfg, "parallel") else {}
        how = {"timeout_s": 600.0, **how, "is_stopped": lambda: stop.signal_name is not None}
        mesh.start(getattr(cfg, job.group).device, **how)
    started = mesh.on_first(lambda: mesh.started)
    run_name = cfg.run.name or (names.name_by_time(time.time()) if job.fresh else None)
    folder = mesh.on_first(lambda: names.run_folder(name, cfg.run.dir, run_name, started=started, part=part))
    task = None if nested else job.shares(cfg)
    if task:
        folder = folder / "tasks" / task
    run = Run(name, cfg, folder, is_writer=mesh.is_first, started=started, stop=stop, is_array_task=bool(task))
    report = mesh.on_first(run.open)
    if mesh.misses_gpu:
        run.warn("Slurm gave this job GPUs, but torch sees none: it runs on the CPU (`ptunes doctor` looks why)")
    if report is not None and not job.goes_on:
        run.log("this run is complete already")
    else:
        report = _carry_out(job, cfg, mesh, run, nested)
    if mesh.is_first and report["status"] == "complete":
        job.tell(cfg, report, run)
        if (run.folder / "report.html").exists():
            run.log(f"page: {run.folder / 'report.html'}")
    if mesh.is_first:
        say(f"report: {run.folder / 'report.json'}")
    # nobody leaves, and lets its node be cleared, while rank 0 still writes; interrupted ranks may be anywhere
    mesh.wait(FAREWELL_S if report["status"] == "preempted" else math.inf)
    return int(report.get("exit_code", 0))


def _begin(job: Job, cfg: Any, mesh: Mesh, run: Run) -> None:
    """Note this start in the run's history."""
    where = {
        "host": platform.node(),
        "pid": os.getpid(),
        "job": names.job_id(),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "nodes": os.environ.get("SLURM_JOB_NODELIST"),
        "launch": mesh.launch,
        **_place(mesh),
    }

    def why_last_ended(last: Mapping[str, Any]) -> str:
        if where["launch"] and last.get("launch") == where["launch"]:
            return "a rank died; torchrun started all of them again"
        lost = slurm.lost_nodes(last["nodes"]) if last.get("nodes") else []
        if lost:
            return f"node {', '.join(lost)} was lost"
        again = last.get("job") == where["job"] is not None
        return "killed without notice" + ("; queued again by Slurm" if again else "")

    run.history.begin(where, why_last_ended, cap=cfg.run.max_restarts, counts_steps=job.counts_steps)
    if len(run.history.starts) > 1:
        before = run.history.starts[-2]
        changed = [
            f"{name} was {before.get(name)}, is {now}" for name, now in _place(mesh).items() if before.get(name) != now
        ]
        if changed:
            run.warn(f"goes on elsewhere ({'; '.join(changed)}): results agree to rounding, not bit for bit")


def _place(mesh: Mesh) -> Facts:
    """What the bits of a result depend on besides the config."""
    return {"world_size": mesh.world_size, "device": mesh.device_name, "cpu": cpu_model()}


def _carry_out(job: Job, cfg: Any, mesh: Mesh, run: Run, nested: bool) -> Facts:
    """Run the job itself; report.json, however it ends, comes last."""
    ended: BaseException | None = None
    status, cause = "complete", None
    try:
        mesh.on_first(lambda: _begin(job, cfg, mesh, run) if mesh.is_first else None)
        facts = job.work(cfg, mesh, run)
        if facts is None:
            cause = slurm.why_stopped(run.stop.signal_name) if run.stop.signal_name else "a signal to another rank"
            status, facts = "preempted", {}
            run.log(f"stopped as asked ({cause}), after a checkpoint; the same command goes on from here")
    except KeyboardInterrupt:
        cause = slurm.why_stopped(run.stop.signal_name or "SIGINT")
        named = "" if cfg.run.name or cfg.run.dir or not job.fresh else f" with run.name={run.folder.name}"
        run.warn(f"interrupted ({cause}); the same command{named} goes on from here")
        ended = KeyboardInterrupt() if nested else None
        status, facts = "preempted", {"exit_code": INTERRUPTED}
    except Exception as caught:
        ended = mesh.explain(_explain(caught, run))
        status, cause = "failed", f"{type(ended).__name__}: {ended}"
        facts = {"reason": cause, **getattr(ended, "facts", {})}
    publish = facts.pop("publish", None)
    with contextlib.suppress(OSError, UserError) if ended else contextlib.nullcontext():
        run.history.end(status, cause)
        everywhere = {**_place(mesh), "restarts": run.history.summary()}
        report = run.make_report(status, everywhere | facts)
        if publish and mesh.is_first and cfg.run.page:
            publish(report)
        run.write_report(report)
    if ended:
        raise ended
    return report


def _explain(caught: Exception, run: Run) -> Exception:
    """A failing disk as a UserError; any other error as it is."""
    if not isinstance(caught, OSError):
        return caught
    error = UserError(f"{caught.filename or run.folder}: {files.explain(caught)}; the same command goes on from here")
    error.__cause__ = caught
    return error


@contextlib.contextmanager
def heed_signals(stop: Stop, *, finishes_step: bool) -> Iterator[None]:
    """Stop on SIGINT, SIGTERM and SIGUSR1, given any number of times: a training after its step, other jobs at once."""

    def heed(number: int, frame: FrameType | None) -> None:
        del frame
        stop.signal_name = stop.signal_name or signal.Signals(number).name
        if not finishes_step:
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(number, heed) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
