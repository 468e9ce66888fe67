"""The networks that this project began with: convolutions whose maps go into dense layers as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parallel_tunes.models.dropout import KeyedDropout


class SeedCNN(nn.Module):
    """Blocks of convolution, batch norm, ReLU and pooling, all maps flattened, dense layers with batch norm and dropout.

    Args:
        num_classes: number of labels.
        widths: channels of the blocks.
        pools: how far each block's pooling shortens both axes.
        dense: values of the hidden layers.
        size: num_mels and num_frames of what it is given; it takes no other.
        dropout: share of the hidden values dropped while training.

    Shapes:
        input (batch, 1, num_mels, num_frames), standardised dB; output (batch, num_classes), logits.

    Raises:
        ValueError: so much pooling leaves nothing of such an input.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], *,
        pools: Sequence[int], dense: Sequence[int], size: tuple[int, int], dropout: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        height, width = size
        for channels_in, channels, pool in zip([1, *widths], widths, pools, strict=False):
            layers += [
                nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(pool, ceil_mode=pool == 2),
            ]
            height, width = (-(-height // 2), -(-width // 2)) if pool == 2 else (height // pool, width // pool)
        if not (height and width):
            raise ValueError(f"pools of {list(pools)} leave nothing of {size[0]} x {size[1]} values")
        self.blocks = nn.Sequential(*layers)
        sizes = [widths[-1] * height * width, *dense]
        # as 1 x 1 convolutions: batch norms over ranks are those of maps
        hidden = [
            nn.Sequential(
                nn.Conv2d(values_in, values, 1, bias=False),
                nn.BatchNorm2d(values),
                nn.ReLU(inplace=True),
                nn.Flatten(),
                KeyedDropout(dropout, f"dense {number}"),
                nn.Unflatten(1, (-1, 1, 1)),
            )
            for number, (values_in, values) in enumerate(zip(sizes, dense, strict=False))
        ]
        self.hidden = nn.Sequential(*hidden)
        self.classify = nn.Linear(sizes[-1], num_classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        values = torch.flatten(self.blocks(spectrograms), 1)[:, :, None, None]
        logits: Tensor = self.classify(self.hidden(values).flatten(1))
        return logits
