"""Normalisation of the maps of a convolution."""

from __future__ import annotations

from torch import nn


def make_norm(kind: str, num_channels: int) -> nn.Module:
    """`group` normalisation (Wu & He 2018), of each sample alone, or else `batch` (Ioffe & Szegedy 2015)."""
    if kind != "group":
        return nn.BatchNorm2d(num_channels)
    # of groups of 16 channels at least, as many as divide them evenly
    most = max(num_channels // 16, 1)
    return nn.GroupNorm(max(num for num in range(1, most + 1) if num_channels % num == 0), num_channels)
