"""(seed, epoch, step) → sample ids, and draws keyed by sample: the same for every world size and after every resume."""

from __future__ import annotations

import _thread
import contextlib
import hashlib
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Item = TypeVar("Item")
Level = TypeVar("Level", np.float16, np.float32)
START_S = 10  # within which a thread is expected to begin
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Batches:
    """The global batches of a training split.

    An epoch is a permutation of the split cut into ceil(num / batch) batches whose sizes differ by at most one: every
    sample once, and no tiny last batch to upset batch normalisation.

    Args:
        samples: ids of the split's samples, shape (num,).
        batch: largest global batch.
        seed: seed of the permutations.
    """

    def __init__(self, samples: Ids, *, batch: int, seed: int) -> None:
        self.samples = samples
        self.seed = seed
        self.num_steps = -(-len(samples) // batch)  # in an epoch

    def epoch(self, epoch: int) -> list[Ids]:
        """All batches of an epoch, in order."""
        order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.samples)
        return np.array_split(order, self.num_steps)


def share(ids: Ids, *, rank: int, world_size: int) -> Ids:
    """This rank's part of a global batch: neither dropped nor padded, sizes differ by at most one."""
    return np.array_split(ids, world_size)[rank]


def draw_uniform(seed: int, epoch: int, samples: Ids, purpose: str) -> NDArray[np.float64]:
    """A number in [0, 1) for each sample, keyed by (seed, epoch, sample, purpose), shape (num,).

    SplitMix64's finaliser (Steele, Lea, Flood 2014) on a hash of the key: no state, so nothing to save, and no order of
    drawing to keep.
    """
    bits = _mix(f"{seed}/{epoch}/{purpose}", samples)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, np.float64)


def hash_samples(key: str, samples: Ids, *draws: Ids) -> Ids:
    """A hash of each sample under a key, with what was drawn for it, shape (num,): their sum tells equal sets apart."""
    bits = _mix(key, samples)
    for draw in draws:
        bits = _mix(key, (bits ^ draw.astype(np.uint64)).view(np.int64))
    return bits.view(np.int64)


def _mix(key: str, samples: Ids) -> NDArray[np.uint64]:
    seed = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=8).digest(), np.uint64)
    with np.errstate(over="ignore"):
        bits = samples.astype(np.uint64) * _MIX[0] + seed
        bits = (bits ^ (bits >> np.uint64(30))) * _MIX[1]
        bits = (bits ^ (bits >> np.uint64(27))) * _MIX[2]
        bits ^= bits >> np.uint64(31)
    return bits


def make_ahead(items: Iterator[Item], num: int = 2) -> Generator[Item, None, None]:
    """The same items, made by a thread, up to `num` of them before they are wanted; what it raises is raised here."""
    made: queue.Queue[tuple[Item | None, Exception | None]] = queue.Queue(num)
    began, ended, unwanted = threading.Event(), threading.Event(), threading.Event()

    def offer(item: Item | None, error: Exception | None = None) -> None:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                made.put((item, error), timeout=0.1)
                return

    def work() -> None:
        began.set()
        try:
            for item in items:
                offer(item)
                if unwanted.is_set():
                    return
            offer(None)
        except Exception as error:
            offer(None, error)
        finally:
            ended.set()

    # a thread that has not the memory to begin dies without a word, and threading.Thread.start waits for it for ever
    _thread.start_new_thread(work, ())
    try:
        looks = 0
        while True:
            try:
                item, error = made.get(timeout=1)
            except queue.Empty:
                looks += 1
                if made.empty() and (ended.is_set() or (looks > START_S and not began.is_set())):
                    raise MemoryError("the thread that makes batches has not the memory for it") from None
                continue
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        unwanted.set()
        if began.is_set():
            ended.wait()


def window_starts(num_frames: int, window: int, overlap: float) -> list[int]:
    """First frames of evaluation windows that cover a track from end to end; neighbours overlap by at least `overlap`."""
    if num_frames <= window:
        return [0]
    hop = max(int(window * (1 - overlap)), 1)
    num_windows = 1 + -(-(num_frames - window) // hop)
    return [round(start) for start in np.linspace(0, num_frames - window, num_windows)]


def fit_length(frames: NDArray[Level], num_frames: int) -> NDArray[Level]:
    """`frames`, shape (n, num_mels), filled up to `num_frames` rows with the track's lowest level."""
    if len(frames) >= num_frames:
        return frames
    return np.pad(frames, ((0, num_frames - len(frames)), (0, 0)), constant_values=frames.min())


def cut_frames(frames: NDArray[Level], starts: Sequence[int], window: int) -> NDArray[Level]:
    """A clip's windows that begin at these frames, shape (num, window, num_mels); frames is (num_frames, num_mels)."""
    return np.stack([fit_length(frames[start : start + window], window) for start in starts])
