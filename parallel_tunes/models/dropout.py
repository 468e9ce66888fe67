"""Random draws keyed by sample, as tensor operations, and the dropout made of them.

A draw depends on the sample's key and on what it is for: not on torch's generators, the device, the order of the samples
or the rank that has them. It is data.batches' way of drawing, SplitMix64's finaliser, as tensor operations.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

# of SplitMix64 (Steele, Lea & Flood 2014), as signed integers: torch has no others
GOLDEN, FIRST, SECOND = (number - (1 << 64) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def draw_uniform(keys: Tensor, purpose: str, num: int) -> Tensor:
    """Numbers in [0, 1), float32: `num` for each key and purpose.

    Args:
        keys: shape (num_samples,), int64.

    Returns:
        Shape (num_samples, num), on the keys' device.
    """
    places = torch.arange(1, num + 1, device=keys.device) + (zlib.crc32(purpose.encode()) << 32)
    bits = _mix(_mix(keys).unsqueeze(1) + places * GOLDEN)
    return ((bits >> 40) & 0xFFFFFF).float() * 2.0**-24


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift(bits, 30)) * FIRST
    bits = (bits ^ _shift(bits, 27)) * SECOND
    return bits ^ _shift(bits, 31)


def _shift(bits: Tensor, num: int) -> Tensor:
    """To the right, zeros coming in: torch's own shift brings in the sign."""
    return (bits >> num) & ((1 << (64 - num)) - 1)


class KeyedDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose draws are those of each sample's key.

    Args:
        share: of the values that become zero.
        purpose: of its draws: those of another purpose are others.

    Attributes:
        keys: shape (num,), int64; to be set before each training pass.

    Shapes:
        input and output (num, num_values).
    """

    def __init__(self, share: float, purpose: str = "dropout") -> None:
        super().__init__()
        self.share, self.purpose = share, purpose
        self.keys: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not self.share:
            return input
        if self.keys is None:
            raise RuntimeError("KeyedDropout.keys: to be set before a training pass")
        kept = draw_uniform(self.keys, self.purpose, input.shape[1]) >= self.share
        return input * kept / (1 - self.share)
