"""Where an index is cut into shards: by what its files are called, so that a change moves the cuts around it and no others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

SMALLEST, LARGEST = 0.25, 2.0  # of the wanted size


def cut(paths: Sequence[str], sizes: NDArray[np.float64], shard_bytes: float) -> list[range]:
    """Cut an index, in its order, into stretches of about `shard_bytes`.

    Content-defined chunking (Muthitacharoen, Chen, Mazières 2001, "A low-bandwidth network file system"): a file ends a
    stretch if a hash of its path, as a number in [0, 1), is below its share of a stretch. A file that is added or removed
    moves the cuts beside it, and behind the next cut all is as before.

    Args:
        paths: of the files.
        sizes: about how many bytes each gives, shape (len(paths),).
    """
    chances = sizes / (shard_bytes * (1 - SMALLEST))
    first, size, stretches = 0, 0.0, []
    for at, path in enumerate(paths):
        size += sizes[at]
        draw = xxhash.xxh3_64_intdigest(path.encode(errors="surrogateescape")) / 2**64
        if (size >= SMALLEST * shard_bytes and draw < chances[at]) or size >= LARGEST * shard_bytes:
            stretches.append(range(first, at + 1))
            first, size = at + 1, 0.0
    if first < len(paths):
        stretches.append(range(first, len(paths)))
    return stretches


def choose_size(total_bytes: float) -> int:
    """Bytes of a shard where nobody says: a 64th of all, as a power of two from 16 to 256 MiB."""
    return int(2 ** np.clip(np.ceil(np.log2(max(total_bytes, 1) / 64)), 24, 28))
