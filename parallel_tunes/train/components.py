"""Principal components: the directions in which rows differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.schema import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """Some directions, the one of most variance first, and what they hold.

    Args:
        directions: of length 1 and at right angles, shape (num_components, num_features).
        shares: of the variance, along each direction that there is, kept or not; they add up to 1.
    """

    directions: Floats
    shares: Floats


def find_components(standard: Floats, wanted: float) -> Components:
    """Principal component analysis by singular values (Pearson 1901; Jolliffe 2002, Principal Component Analysis).

    Args:
        standard: the training rows, standardised, shape (num_rows, num_features).
        wanted: from 1 on so many components, below 1 as many as hold this share of the variance.

    Raises:
        UserError: no whole number of components, or more than there are.
    """
    if wanted >= 1 and not float(wanted).is_integer():
        raise UserError(f"learner.pca={wanted:g}: a share below 1, or a whole number of components")
    _, lengths, directions = np.linalg.svd(standard - standard.mean(0), full_matrices=False)
    shares = lengths**2 / (lengths**2).sum()
    num = int(wanted) if wanted >= 1 else int(np.searchsorted(np.cumsum(shares), wanted) + 1)
    if num > len(directions) and wanted >= 1:
        rows, columns = standard.shape
        raise UserError(
            f"learner.pca={num}: {columns} columns of {rows} training tracks have {len(directions)} components"
        )
    # of either sign, the one whose largest weight is positive: the same on every machine
    kept = directions[:num]
    signs = np.sign(kept[np.arange(len(kept)), np.abs(kept).argmax(1)])
    return Components(kept * signs[:, None], shares)
