"""Row-wise Adagrad: a step of a table of embeddings that goes to the rows touched, and to no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from parallel_tunes.models.kernels import compile_kernel, prefetch, share

CHUNK = 2048  # rows that one thread changes
AHEAD = 8  # rows that are asked for before they are needed


@compile_kernel
def step_rows(
    table: Any, squares: Any, rows: Any, slopes: Any, lr: Any, eps: Any, first: Any, last: Any, width: Any
) -> None:
    """Change the rows `rows[first:last]` of `table`, and their sums of squares, by their slopes."""
    for at in range(first, last):
        prefetch(table, rows[min(at + AHEAD, last - 1)], width)
        slope, weights, square = slopes[at], table[rows[at]], lr * 0
        for column in range(len(width)):
            square += slope[column] * slope[column]
        total = squares[rows[at]] + square / len(width)
        squares[rows[at]] = total
        factor = lr / (np.sqrt(total) + eps)
        for column in range(len(width)):
            weights[column] -= factor * slope[column]


def split_gradient(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that a sparse gradient has, ascending and each once, (num,), and their gradients (num, width)."""
    rows = gradient._indices()[0]
    if not bool((rows[1:] > rows[:-1]).all()):  # autograd forgets that they are, and coalescing sorts
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011) with one sum of squares a row, of the mean over its columns: a row's steps shrink
    as it is met more often, and its state takes 4 bytes, not as many as the row. So DLRM is trained (Naumov et al. 2019;
    Mudigere et al. 2022), and FBGEMM has it as EXACT_ROWWISE_ADAGRAD.

    Args:
        tables: parameters of shape (num_rows, width), whose gradients are sparse.
        eps: added to the root; gradients are means over a batch, and those of rare rows small.
    """

    def __init__(self, tables: Iterable[Tensor], lr: float, *, eps: float = 1e-12) -> None:
        super().__init__(tables, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table]["squares"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)

    @torch.no_grad()
    # the base says float where there is a closure and None where there is none: here there is none, so it returns no loss
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the rows that the gradients have."""
        assert closure is None, "a loss that is computed anew is not asked for"
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    rows, slopes = split_gradient(table.grad)
                    change = _change_compiled if table.device.type == "cpu" else _change
                    change(table, self.state[table]["squares"], rows, slopes, group["lr"], group["eps"])


def _change_compiled(table: Tensor, squares: Tensor, rows: Tensor, slopes: Tensor, lr: float, eps: float) -> None:
    parts = [part.detach().numpy() for part in (table, squares, rows, slopes)]
    kind, num, width = parts[0].dtype.type, len(rows), (0,) * table.shape[1]
    step = partial(step_rows, *parts, kind(lr), kind(eps))
    share([partial(step, first, min(first + CHUNK, num), width) for first in range(0, num, CHUNK)])


def _change(table: Tensor, squares: Tensor, rows: Tensor, slopes: Tensor, lr: float, eps: float) -> None:
    squares.index_add_(0, rows, slopes.square().mean(1))
    table.index_add_(0, rows, slopes / (squares[rows].sqrt() + eps).unsqueeze(1), alpha=-lr)
