"""The levels that a model was given, reduced to a small picture for clients."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_COLUMNS, MOST_BANDS = 400, 128


def encode_levels(levels: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Encode levels, shape (num_frames, num_mels), dB, as one byte each.

    Of more than MOST_COLUMNS frames or MOST_BANDS bands neighbours are merged, of which the loudest counts.

    Returns:
        `data`, base64 of num_columns · num_bands bytes, a column after the other, the lowest band first; byte 0 stands for
        `low_db`, byte 255 for `high_db`.
    """
    for axis, most in enumerate((MOST_COLUMNS, MOST_BANDS)):
        num = levels.shape[axis]
        if num > most:
            levels = np.maximum.reduceat(levels, np.arange(most) * num // most, axis=axis)
    low, high = float(levels.min()), float(levels.max())
    data = np.rint((levels.astype(np.float32) - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return {
        "num_columns": data.shape[0], "num_bands": data.shape[1], "low_db": round(low, 3), "high_db": round(high, 3),
        "data": base64.b64encode(data.tobytes()).decode(),
    }  # fmt: skip
