"""A residual network over log-mel spectrograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.models.heads import make_head
from parallel_tunes.models.norms import make_norm
from parallel_tunes.models.texture import Texture

EPSILON = 0.1  # AdamW's, of the layer over textures: with one so large it descends by gradients as they are, evenly over values
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
        texture: whether a linear layer over `Texture` answers beside it.
        piece: frames that the network is given at a time: it answers for what is longer by the mean over such pieces, which
            overlap by half; statistics are of the whole. By default all.

    Shapes:
        input (batch, 1, num_mels, num_frames), standardised dB; output (batch, num_classes), logits. With `texture`, while
        training, a second input, what statistics are made of, and the output is (batch, 2, num_classes), each branch's own logits.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], *,
        num_units: int = 1, norm: str = "batch", dropout: float = 0.0, head: str = "mean_max", texture: bool = False,
        piece: int | None = None,
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
        self.texture: Beside | None = Beside(num_classes) if texture else None
        self.piece = piece

    def forward(self, spectrograms: Tensor, whole: Tensor | None = None) -> Tensor:
        if self.training or self.piece is None:
            logits = self.hear(spectrograms)
        else:
            logits = torch.stack([self.hear(piece) for piece in cut(spectrograms, self.piece)]).mean(0)
        if self.texture is None:
            return logits
        own = self.texture(spectrograms if whole is None else whole).to(logits.dtype)
        branches = torch.stack([logits, own], 1)
        return branches if self.training else average_branches(branches)

    def hear(self, spectrograms: Tensor) -> Tensor:
        """The network's own answer."""
        logits: Tensor = self.classify(self.drop(self.head(self.stages(spectrograms))))
        return logits


class Beside(nn.Module):
    """A linear layer over `Texture`, less its mean over samples that are learnt from."""

    middle: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.measure = Texture()
        self.register_buffer("middle", torch.zeros(self.measure.num_values))
        self.classify = nn.Linear(self.measure.num_values, num_classes)
        nn.init.zeros_(self.classify.weight)

    def forward(self, spectrograms: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.measure(spectrograms) - self.middle)
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


def cut(spectrograms: Tensor, piece: int) -> list[Tensor]:
    """Pieces of so many frames that overlap by half or a little more, from the first frame to the last."""
    # as data.batches places windows, of which models know nothing; in whole numbers, because exports trace it
    room = max(spectrograms.shape[3] - piece, 0)
    num = 1 + math.ceil(2 * room / piece)
    return [spectrograms[..., at : at + piece] for at in (round(each * room / max(num - 1, 1)) for each in range(num))]


def average_branches(branches: Tensor) -> Tensor:
    """The answer of a network and of what is beside it: (num, 2, num_classes) → (num, num_classes), logits."""
    return torch.lerp(branches[:, 0], branches[:, 1], SHARE)


def find_texture(model: nn.Module) -> Beside | None:
    """What is beside a network, if anything: to learn, it takes its input a second time, as it is, to make statistics of."""
    return model.texture if isinstance(model, ResidualCNN) else None
