"""Errors of one rank that end all of them."""

from __future__ import annotations

# what collectives say when another rank has died or does not answer
LOST = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting", "Application timeout", "NCCL error")


# what says so: torch's allocator on a CPU, CUDA, its libraries, oneDNN
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "could not create a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )


class RankLost(Exception):
    """Another rank has died or does not answer: this one cannot go on without it. One of the ranks has said so already."""
