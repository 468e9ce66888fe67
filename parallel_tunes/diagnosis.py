"""The doctor: what a training needs of this machine or this allocation, looked at before the queue is waited for."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_tunes import files
from parallel_tunes.config_run import DoctorConfig
from parallel_tunes.parallel import launch, slurm
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.parallel.processor import cpu_model
from parallel_tunes.run import Run, versions
from parallel_tunes.schema import UserError

SLOW_FSYNC_S = 0.5  # a checkpoint waits for it
NUM_TRIES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str  # what was found, or what to do


def examine(cfg: DoctorConfig, run: Run) -> list[Finding]:
    """Look at everything, saying a line for each."""
    found = []
    allocation = slurm.allocation() if slurm.is_here() else None
    checks: list[Callable[[], Iterator[Finding]]] = [
        look_at_software,
        look_at_slurm,
        lambda: look_at_disk(run.folder),
        lambda: look_at_ranks(cfg, run, allocation),
    ]
    for check in checks:
        try:
            for finding in check():
                found.append(finding)
                run.log(f"{'ok  ' if finding.ok else 'MEND'}  {finding.name}: {finding.text}")
        except UserError as error:
            found.append(Finding("doctor", False, str(error)))
            run.log(f"MEND  {error}")
    return found


def look_at_software() -> Iterator[Finding]:
    """Python, the libraries, and what torch finds to compute on."""
    import soundfile
    import torch

    known = versions()
    yield Finding("python", True, f"{known['python']} on {platform.system()} {platform.release()}")
    names = ", ".join(
        f"{name} {known[name]}" for name in ("torch", "numpy", "ipyparallel", "soundfile") if name in known
    )
    yield Finding("libraries", True, names)
    formats = {"WAV", "FLAC", "OGG", "MP3"} - set(soundfile.available_formats())
    yield Finding(
        "audio",
        not formats,
        f"no {', '.join(sorted(formats))}: install libsndfile 1.1 or newer"
        if formats
        else "wav, flac, ogg and mp3 are read",
    )
    cores = len(os.sched_getaffinity(0))
    yield Finding("processor", True, f"{cpu_model()}, {cores} cores for this process")
    shared = "" if cores == 1 else f", {max(cores // 2, 1)} each for 2 ranks"
    text = f"{torch.get_num_threads()} for a training here{shared}; up to {cores} engines for preprocessing"
    yield Finding("threads", True, text)
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    driver = shutil.which("nvidia-smi") is not None
    if gpus or not driver:
        yield Finding("gpu", True, ", ".join(gpus) if gpus else "none here: trainings run on the CPU")
    else:
        yield Finding(
            "gpu",
            False,
            f"nvidia-smi is here, but torch {torch.__version__} sees no GPU: install a CUDA build of torch",
        )


def look_at_slurm() -> Iterator[Finding]:
    """Whether there is a Slurm, and what it has given us."""
    try:
        slurm.ask("scontrol", "ping")
    except slurm.NoCluster as none:
        yield Finding("slurm", True, f"none here: {none}")
        return
    yield Finding("slurm", True, slurm.ask("sbatch", "--version").strip())
    found = slurm.allocation()
    if found is None:
        yield Finding("allocation", True, "outside of one: `ptunes submit job=doctor`, or salloc, looks into one")
        return
    left = slurm.seconds_left(found.job)
    limit = "no time limit" if left is None else f"{left:.0f} s left"
    yield Finding(
        "allocation",
        True,
        f"job {found.job}: {len(found.nodes)} nodes ({' '.join(found.nodes)}), {found.ranks_per_node} ranks each, {limit}",
    )
    facts = slurm.describe("job", found.job)[0]
    can = facts.get("Requeue") == "1"
    yield Finding(
        "requeue", can, "this job may be queued again" if can else "submit with --requeue, or ask for JobRequeue=1"
    )


def look_at_disk(folder: Path) -> Iterator[Finding]:
    """What a rename and an fsync cost where the runs lie."""
    seconds = []
    for _ in range(NUM_TRIES):
        began = time.perf_counter()
        files.write_file(folder / "probe", lambda stream: stream.write(os.urandom(1 << 20)))
        seconds.append(time.perf_counter() - began)
    (folder / "probe").unlink()
    median = statistics.median(seconds)
    free = shutil.disk_usage(folder).free / 2**30
    text = f"1 MiB written, fsynced and renamed in {1000 * median:.1f} ms under {folder.parent}; {free:.1f} GiB free"
    slow = f"; slower than {SLOW_FSYNC_S} s: put run.dir on another file system"
    yield Finding("disk", median < SLOW_FSYNC_S and free > 1, text + (slow if median >= SLOW_FSYNC_S else ""))


def look_at_ranks(cfg: DoctorConfig, run: Run, allocation: slurm.Allocation | None) -> Iterator[Finding]:
    """Start ranks as a training would, and let each say what it sees."""
    num_ranks = cfg.ranks or (allocation.num_ranks if allocation else 2)
    if num_ranks == 1:
        yield Finding("ranks", True, "a world of one: nobody to meet")
        return
    folder = run.folder / "ranks"
    words = ["doctor", f"run.dir={folder}", f"doctor.payload_mib={cfg.payload_mib}", f"doctor.device={cfg.device}"]
    command = launch.ranks_command(words, num_ranks=num_ranks, allocation=allocation)
    output = run.folder / "ranks.log"
    until = time.monotonic() + cfg.timeout_s
    with launch.started(command, output, grace_s=5) as process:
        seen = _wait_for(folder / "seen.json", process.poll, until, run)
        if seen:
            _send_usr1(seen["ranks"], allocation)
            _wait_for(None, process.poll, until, run)
    if seen is None:
        yield Finding("rendezvous", False, f"{num_ranks} ranks did not meet within {cfg.timeout_s:g} s; see {output}")
        return
    yield from _judge_ranks(seen, allocation, _read(folder / "report.json"))


def _judge_ranks(
    seen: dict[str, Any], allocation: slurm.Allocation | None, report: dict[str, Any] | None
) -> Iterator[Finding]:
    ranks = seen["ranks"]
    hosts = sorted({rank["node"] for rank in ranks})
    yield Finding("rendezvous", True, f"{len(ranks)} ranks on {' '.join(hosts)} met")
    asked = allocation.gpus_per_node if allocation else 0
    devices = sorted({rank["device"] for rank in ranks})
    fewer = [rank for rank in ranks if asked and rank["num_gpus"] < asked]
    if fewer:
        text = f"{asked} asked for on each node, torch sees {fewer[0]['num_gpus']} on {fewer[0]['node']}: trainings run on the CPU there"
        yield Finding("gpus", False, text + "; check the driver and torch.version.cuda")
    else:
        yield Finding(
            "gpus",
            True,
            f"{asked} a node asked for and seen: {', '.join(devices)}"
            if asked
            else f"none asked for; ranks compute on {', '.join(devices)}",
        )
    text = (
        f"{min(len(rank['cores']) for rank in ranks)} cores and {max(rank['threads'] for rank in ranks)} threads a rank"
    )
    crowded = ""
    for host in hosts:
        here = [rank for rank in ranks if rank["node"] == host]
        threads, cores = sum(rank["threads"] for rank in here), len(set().union(*(rank["cores"] for rank in here)))
        if threads > cores:
            crowded = f"; {threads} threads share {cores} cores: ask for more --cpus-per-task"
    yield Finding("binding", not crowded, text + crowded)
    speed = seen["bandwidth_gb_s"]
    yield Finding(
        "all-reduce",
        True,
        f"{speed:.2f} GB/s bus bandwidth over {seen['interface'] or 'NCCL'}, {seen['payload_mib']:g} MiB in {seen['all_reduce_ms']:.1f} ms",
    )
    got = report["metrics"]["usr1"] if report else 0
    yield Finding(
        "USR1",
        got == len(ranks),
        f"reached {got} of {len(ranks)} ranks"
        + ("" if got == len(ranks) else ": trainings here will not stop at a checkpoint"),
    )


def _wait_for(path: Path | None, poll: Callable[[], int | None], until: float, run: Run) -> dict[str, Any] | None:
    """What a file holds once it is there; None when the process ends, or time runs out, without it."""
    while time.monotonic() < until and poll() is None:
        if run.should_stop:
            raise KeyboardInterrupt
        if path and path.exists():
            return _read(path)
        time.sleep(0.1)
    return _read(path) if path else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def _send_usr1(ranks: list[dict[str, Any]], allocation: slurm.Allocation | None) -> None:
    if allocation:
        slurm.signal_step(allocation.job, "USR1", ranks[0]["step"])
    else:
        for rank in ranks:
            os.kill(rank["pid"], signal.SIGUSR1)


def examine_rank(cfg: DoctorConfig, mesh: Mesh, run: Run) -> dict[str, Any]:
    """What one of the ranks sees; all of it goes into seen.json, then each waits for its USR1."""
    import torch

    here = {
        "node": os.environ.get("SLURMD_NODENAME", platform.node()),
        "pid": os.getpid(),
        "step": os.environ.get("SLURM_STEP_ID", "0"),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "num_gpus": torch.cuda.device_count(),
        "device": re.sub(r" \(.*", "", mesh.device_name),
    }
    payload = torch.ones(int(cfg.payload_mib * 2**18), device=mesh.device)
    seconds = []
    for _ in range(NUM_TRIES + 1):
        mesh.wait()
        began = time.perf_counter()
        mesh.sum(payload.fill_(1.0))
        seconds.append(mesh.largest(time.perf_counter() - began + 0.0 * float(payload[0])))
    median = statistics.median(seconds[1:])  # the first makes the connections
    # of the payload, what each rank sends at least: nccl-tests' bus bandwidth
    share = 2 * (mesh.world_size - 1) / mesh.world_size
    seen = {
        "ranks": mesh.gather(here),
        "payload_mib": cfg.payload_mib,
        "all_reduce_ms": 1000 * median,
        "bandwidth_gb_s": share * payload.numel() * 4 / median / 1e9,
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
    }
    run.write_bytes("seen.json", json.dumps(seen).encode())
    until = time.monotonic() + cfg.timeout_s / 2
    while not run.should_stop and time.monotonic() < until:
        time.sleep(0.05)
    reached = mesh.gather(run.stop.signal_name == "SIGUSR1")
    return {"metrics": {"usr1": sum(reached), "bandwidth_gb_s": seen["bandwidth_gb_s"]}, "ranks": seen["ranks"]}
