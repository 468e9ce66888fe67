"""A convolutional network over log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GenreCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling; then mean and maximum over time and frequency, and a linear layer.

    Args:
        num_classes: number of labels.
        widths: channels of the blocks; each but the last halves both axes.

    Shapes:
        input (batch, 1, num_mels, num_frames), standardised dB; output (batch, num_classes), logits.
    """

    def __init__(self, num_classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels in zip([1, *widths], widths, strict=False):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.blocks = nn.Sequential(*layers[:-1])
        self.classify = nn.Linear(2 * widths[-1], num_classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        maps = self.blocks(spectrograms)
        summary = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        logits: Tensor = self.classify(summary)
        return logits
