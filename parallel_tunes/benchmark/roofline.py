"""What no training can do faster on this machine: its convolutions at the speed of one large matrix product."""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048  # of the matrices: beyond it products get no faster
LEAST_S = 0.5  # that products are repeated for


def count_flops(model: nn.Module, num_mels: int, num_frames: int) -> float:
    """Additions and products of the convolutions for one sample, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        outputs = model.train()(torch.zeros(2, 1, num_mels, num_frames))
        torch.autograd.backward(outputs.sum())
    counts = counter.get_flop_counts()["Global"]
    return float(sum(count for operation, count in counts.items() if "convolution" in str(operation))) / 2


def time_products(flops: float, dtype: torch.dtype, device: str, num_threads: int) -> float:
    """Seconds that so many operations would take at the speed of a product of matrices of this type."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        one, other = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
        out, num = one @ other, 0
        _wait(device)
        began = time.perf_counter()
        while (seconds := time.perf_counter() - began) < LEAST_S:
            for _ in range(4):
                torch.mm(one, other, out=out)
            _wait(device)
            num += 4
    finally:
        torch.set_num_threads(before)
    return seconds * flops / (num * 2 * SIDE**3)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
