"""Out of memory: found out before a training begins, on all ranks alike, with the batch that would fit."""

from __future__ import annotations

import contextlib
import ctypes
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

from parallel_tunes.parallel.errors import OutOfMemory, is_out_of_memory
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.learner import Batch, Learner

MARGIN = 0.8  # a batch chosen here takes so much of what would fit: allocators keep more than is in use
FEW = 8  # samples, by which the need of more is reckoned on a CPU
COPIES = 8  # of the weights: gradients that DDP gathers, two checkpoints on their way to the disk


def largest(fits: Callable[[int], bool], most: int) -> int:
    """About the largest number up to `most` that fits, by bisection: at most a sixteenth below it; 0 where 1 does not."""
    low, high = 0, most
    if fits(most):
        return most
    while high - low > max(low // 16, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class Trial:
    """Steps and evaluations of a learner that is thrown away, to see what fits into memory.

    A GPU refuses what it has not. A machine without swap kills instead, so that on a CPU the need of many samples is
    reckoned from that of a few.

    Args:
        learner: a world of one: ranks that have no memory must not keep others waiting in a collective.
        batch: samples like those of the training, any number.
        mesh: whose ranks agree.
    """

    def __init__(self, learner: Learner, batch: Batch, mesh: Mesh) -> None:
        self.learner, self.batch, self.mesh = learner, batch, mesh
        self._rest = COPIES * sum(tensor.nbytes for tensor in learner.weights().values())
        self.peak_mib = 0.0  # that any of them has taken, or, on a CPU, would take
        self._most: dict[bool, float] = {}  # samples for which there is memory on a CPU, in a step or in an evaluation
        self._before, self._sample = 0, dict[bool, float]()  # bytes that are taken already, and by each sample more

    def fits(self, num: int, *, is_judged: bool = False) -> bool:
        """Whether a step, or an evaluation, of so many samples goes through on each rank; the same answer on all of them."""
        if self.mesh.device.type == "cpu":
            if is_judged not in self._most:
                self._most[is_judged] = self._reckon(is_judged)
            goes = num <= self._most[is_judged]
            self.peak_mib = max(self.peak_mib, (self._before + num * self._sample[is_judged]) / 2**20)
        else:
            goes = self.fits_here(num, is_judged)
        (any_failed,) = self.mesh.agree(not goes)
        return not any_failed

    def _reckon(self, is_judged: bool) -> float:
        self.fits_here(1, is_judged)  # the first pass also loads code, which no further sample needs
        hand_back()
        before, left = psutil.Process().memory_info().rss, available_bytes(self.mesh.local_world_size)
        self._before, self._sample[is_judged] = before, 0.0
        for num in (FEW, 1):
            reset_peak()
            if self.fits_here(num, is_judged):
                self._sample[is_judged] = sample = max(peak_bytes() - before, 1) / num
                hand_back()
                reset_peak()  # the training's own is what its report tells
                return max(left / sample, num)
        return 0

    def fits_here(self, num: int, is_judged: bool) -> bool:
        """Whether a step, or an evaluation, of so many samples goes through on this rank."""
        try:
            beside = torch.ones(self._rest, dtype=torch.uint8, device=self.mesh.device)
            batch = self.batch.repeat(num)
            self.learner.predict(batch.inputs) if is_judged else self.learner.step(batch, 0)
            del beside
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            if self.mesh.device.type == "cuda":
                self.peak_mib = max(self.peak_mib, self.mesh.peak_memory_mib)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        return True


def settle_batch(wanted: int | str, accumulate: int, trial: Trial, num_train: int, num_windows: int) -> int:
    """The global batch: what is wanted, or with `auto` what fits.

    Args:
        accumulate: parts of a rank's share, one after the other in memory.
        num_train: samples to learn from.
        num_windows: that are judged at once.

    Raises:
        OutOfMemory: it does not fit; with what would.
    """
    at_once = trial.mesh.world_size * accumulate  # samples of the batch for each one that is in memory
    where = f"the memory of {trial.mesh.world_size} x {trial.mesh.device_name}"
    most = -(-min(num_train, num_train if isinstance(wanted, str) else wanted) // at_once)
    found = largest(trial.fits, most)
    can_judge = bool(found) and trial.fits(num_windows, is_judged=True)
    peak_mib = trial.mesh.largest(trial.peak_mib)
    if not can_judge:
        what = f"an evaluation of {num_windows} windows" if found else "a step of one sample a rank"
        raise OutOfMemory(
            f"{what} does not fit into {where}: take smaller model.widths, or a smaller task.crop_s", peak_mib
        )
    if isinstance(wanted, str):
        return min((found if found == most else max(int(found * MARGIN), 1)) * at_once, num_train)
    if found < most:
        parts = -(-most * accumulate // found)
        text = f"train.batch={wanted}: does not fit into {where}; train.batch={found * at_once} would, or train.accumulate={parts}"
        raise OutOfMemory(text, peak_mib)
    return wanted


def available_bytes(num_ranks: int) -> float:
    """What the machine, a control group or a limit of this process leaves one of so many ranks."""
    shared = min(psutil.virtual_memory().available, *list_left(), float("inf")) / num_ranks
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return shared if limit == resource.RLIM_INFINITY else min(shared, limit - psutil.Process().memory_info().vms)


def list_left(group_file: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """What the limits of this process's control groups leave, bytes: those of Slurm's jobs and of containers, of both versions."""
    with contextlib.suppress(OSError):
        for line in group_file.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            limit, used = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
            )
            inner = groups / kinds / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if not folder.is_relative_to(groups / kinds):
                    break
                with contextlib.suppress(OSError, ValueError):  # none here, or the word `max`
                    facts = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                    cached = int(facts.get("total_inactive_file", facts.get("inactive_file", "0")))
                    yield int((folder / limit).read_text()) - int((folder / used).read_text()) + cached


def hand_back() -> None:
    """Give the system what the allocator keeps for later, where it is glibc's."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> None:
    """Let `peak_bytes` count from now on, where the kernel can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most resident memory this process has had."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
