"""Convolutional networks over log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.models.heads import make_head
from parallel_tunes.models.norms import make_norm


class GenreCNN(nn.Module):
    """Blocks of convolution, norm, ReLU and pooling; then a head over time and frequency, and a linear layer.

    Args:
        num_classes: number of labels.
        widths: channels of the blocks; each but the last halves both axes.
        norm: `batch` normalisation, or `group` (Wu & He 2018), of each sample alone.
        dropout: share of the summary's values dropped while training.
        head: what makes the summary, `mean_max`, `attention` or `recurrent`.

    Shapes:
        input (batch, 1, num_mels, num_frames), standardised dB; output (batch, num_classes), logits.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], *,
        norm: str = "batch", dropout: float = 0.0, head: str = "mean_max",
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for block, (channels_in, channels) in enumerate(zip([1, *widths], widths, strict=False)):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
                make_norm(norm, channels),
                nn.ReLU(inplace=True),
            ]
            if block < len(widths) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.blocks = nn.Sequential(*layers)
        self.head = make_head(head, widths[-1])
        self.drop = KeyedDropout(dropout)
        self.classify = nn.Linear(self.head.num_values, num_classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.drop(self.head(self.blocks(spectrograms))))
        return logits
