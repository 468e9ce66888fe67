"""Errors of one rank that end all of them."""

from __future__ import annotations

from typing import Any

from parallel_tunes.schema import UserError

# what collectives say when another rank has died or does not answer
LOST = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting", "Application timeout", "NCCL error")


# what says so: torch's allocator on a CPU, CUDA, its libraries, oneDNN
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


class OutOfMemory(UserError):
    """Memory does not suffice.

    Args:
        mib: that a rank has taken, or would have to, as far as known.
    """

    def __init__(self, text: str, mib: float | None) -> None:
        super().__init__(text)
        self.facts: dict[str, Any] = {"peak_memory_mib": None if mib is None else round(mib, 1)}


class RankLost(Exception):
    """Another rank has died or does not answer: this one cannot go on without it. One of the ranks has said so already."""
