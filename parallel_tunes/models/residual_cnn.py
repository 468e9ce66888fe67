"""A residual network over log-mel spectrograms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.models.heads import make_head
from parallel_tunes.models.norms import make_norm
from parallel_tunes.models.texture import Texture

NUM_HIDDEN = 128  # of the layer over textures
SHARE = 2 / 3  # of the answer that is the textures': by folds of GTZAN's pictures they are the surer ones


class ResidualCNN(nn.Module):
    """A convolution that halves both axes, stages of residual units (He et al. 2016), a head and a linear layer.

    The first convolution is wide and strides, as that of He et al.: at full size maps would cost more than all the rest.

    Args:
        num_classes: number of labels.
        widths: channels of the stages; each but the last halves both axes.
        num_units: residual units in each stage.
        norm: `batch` normalisation, or `group` (Wu & He 2018), of each sample alone.
        dropout: share of the summary's values dropped while training.
        head: what makes the summary, `mean_max`, `attention` or `recurrent`.
        texture: whether dense layers over `Texture` answer beside it.

    Shapes:
        input (batch, 1, num_mels, num_frames), standardised dB; output (batch, num_classes), logits. With `texture` a second
        input, the same without masks; while training the output is (batch, 2, num_classes), each branch's own logits.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], *,
        num_units: int = 1, norm: str = "batch", dropout: float = 0.0, head: str = "mean_max", texture: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(1, widths[0], 5, padding=2, stride=2, bias=False),
            make_norm(norm, widths[0]),
            nn.ReLU(inplace=True),
        ]
        for stage, (channels_in, channels) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            layers += [Residual(channels if unit else channels_in, channels, norm) for unit in range(num_units)]
            if stage < len(widths) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.stages = nn.Sequential(*layers)
        self.head = make_head(head, widths[-1])
        self.drop = KeyedDropout(dropout)
        self.classify = nn.Linear(self.head.num_values, num_classes)
        self.texture: Beside | None = Beside(num_classes, dropout) if texture else None

    def forward(self, spectrograms: Tensor, clear: Tensor | None = None) -> Tensor:
        logits: Tensor = self.classify(self.drop(self.head(self.stages(spectrograms))))
        if self.texture is None:
            return logits
        own = self.texture(spectrograms if clear is None else clear).to(logits.dtype)
        branches = torch.stack([logits, own], 1)
        return branches if self.training else average_branches(branches)


class Beside(nn.Module):
    """Two dense layers over `Texture`."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.measure = Texture()
        self.drop = KeyedDropout(dropout, "texture")
        self.hidden = nn.Linear(self.measure.num_values, NUM_HIDDEN)
        self.clip = nn.ReLU()
        self.drop_hidden = KeyedDropout(0.5, "hidden texture")
        self.classify = nn.Linear(NUM_HIDDEN, num_classes)

    def forward(self, spectrograms: Tensor) -> Tensor:
        hidden = self.clip(self.hidden(self.drop(self.measure(spectrograms))))
        logits: Tensor = self.classify(self.drop_hidden(hidden))
        return logits


class Residual(nn.Module):
    """Two convolutions whose result is added to what came in, by a linear map of each place where the channels differ."""

    def __init__(self, channels_in: int, channels: int, norm: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
            make_norm(norm, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            make_norm(norm, channels),
        )
        self.carry: nn.Module = nn.Identity()
        if channels_in != channels:
            self.carry = nn.Sequential(nn.Conv2d(channels_in, channels, 1, bias=False), make_norm(norm, channels))
        self.clip = nn.ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        clipped: Tensor = self.clip(self.convolutions(maps) + self.carry(maps))
        return clipped


def average_branches(branches: Tensor) -> Tensor:
    """The answer of a network and of what is beside it: (num, 2, num_classes) → (num, num_classes), logits."""
    return torch.lerp(branches[:, 0], branches[:, 1], SHARE)


def has_texture(model: nn.Module) -> bool:
    """Whether a network takes its input a second time, without masks, to make statistics of."""
    return isinstance(model, ResidualCNN) and model.texture is not None
