"""Sums over ranks of gradients that each has for other rows of a table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from parallel_tunes.parallel.mesh import Mesh


def sum_rows(rows: Tensor, values: Tensor, mesh: Mesh) -> tuple[Tensor, Tensor]:
    """The rows that any rank has, ascending, and for each the sum of the values that ranks have for it; the same on all ranks.

    What is sent is as long as the rows that the ranks have together, however long the table is. Rows that are met often, most ranks
    have: they are summed on the way, not gathered.

    Args:
        rows: (num,), int64, ascending, each once.
        values: (num, width).
    """
    if not mesh.in_company:
        return rows, values
    mine = rows.cpu().numpy()
    everywhere = np.unique(np.concatenate(mesh.gather(mine.astype(np.int32)))).astype(np.int64)
    total = values.new_zeros(len(everywhere), values.shape[1])
    total[torch.from_numpy(np.searchsorted(everywhere, mine)).to(values.device)] = values
    return torch.from_numpy(everywhere).to(rows.device), mesh.sum(total)
