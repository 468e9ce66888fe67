"""A convolutional network over log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parallel_tunes.models.dropout import KeyedDropout


class GenreCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling; then mean and maximum over time and frequency, and a linear layer.

    Args:
        num_classes: number of labels.
        widths: channels of the blocks; each but the last halves both axes.
        norm: `batch` normalisation, or `group` (Wu & He 2018), of each sample alone.
        dropout: share of the summary's values dropped while training.

    Shapes:
        input (batch, 1, num_mels, num_frames), standardised dB; output (batch, num_classes), logits.
    """

    def __init__(self, num_classes: int, widths: Sequence[int], *, norm: str = "batch", dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels in zip([1, *widths], widths, strict=False):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
                _group_norm(channels) if norm == "group" else nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.blocks = nn.Sequential(*layers[:-1])
        self.drop = KeyedDropout(dropout)
        self.classify = nn.Linear(2 * widths[-1], num_classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        maps = self.blocks(spectrograms)
        summary = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        logits: Tensor = self.classify(self.drop(summary))
        return logits


def _group_norm(num_channels: int) -> nn.GroupNorm:
    """Of groups of 16 channels at least, as many as divide them evenly."""
    return nn.GroupNorm(
        max(num for num in range(1, max(num_channels // 16, 1) + 1) if num_channels % num == 0), num_channels
    )
