"""What a network makes of its maps before it names a label: a summary of fixed size, however long the crop is."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn


class MeanMax(nn.Module):
    """Mean and maximum over time and frequency.

    Shapes:
        input (num, num_channels, height, width), output (num, 2 · num_channels).
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_values = 2 * num_channels

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


class Attention(nn.Module):
    """Means over time, weighted by what each of several heads looks for (Lin et al. 2017, a structured self-attention).

    Shapes:
        as for `MeanMax`.
    """

    def __init__(self, num_channels: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_values = 2 * num_channels
        # heads share the values evenly, or there is but one
        self.num_heads = num_heads if self.num_values % num_heads == 0 else 1
        self.look = nn.Linear(self.num_values, self.num_values)
        self.score = nn.Linear(self.num_values, self.num_heads)

    def forward(self, maps: Tensor) -> Tensor:
        moments = over_time(maps)
        weights = self.score(torch.tanh(self.look(moments))).softmax(1)  # (num, width, num_heads)
        values = moments.view(*moments.shape[:2], self.num_heads, -1)
        return torch.einsum("nth,nthv->nhv", weights, values.to(weights.dtype)).flatten(1)


class Recurrent(nn.Module):
    """Mean over time of a gated recurrent unit's states, there and back (convolutional recurrent network, Choi et al. 2017).

    Shapes:
        as for `MeanMax`.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_values = 2 * num_channels
        self.gru = nn.GRU(self.num_values, num_channels, batch_first=True, bidirectional=True)

    def forward(self, maps: Tensor) -> Tensor:
        with in_full_precision(maps):  # states are sums over many steps
            states, _ = self.gru(over_time(maps).to(next(self.gru.parameters()).dtype))
        summary: Tensor = states.mean(1)
        return summary


def in_full_precision(values: Tensor) -> contextlib.AbstractContextManager[object]:
    """A block without autocast, of which there is none on the device meta, where operations are counted."""
    return contextlib.nullcontext() if values.is_meta else torch.autocast(values.device.type, enabled=False)


def over_time(maps: Tensor) -> Tensor:
    """Mean and maximum over frequency at each time: (num, width, 2 · num_channels)."""
    return torch.cat([maps.mean(2), maps.amax(2)], 1).transpose(1, 2)


def make_head(kind: str, num_channels: int) -> MeanMax | Attention | Recurrent:
    """The head of this name: mean_max, attention or recurrent."""
    heads: dict[str, type[MeanMax | Attention | Recurrent]] = {
        "mean_max": MeanMax,
        "attention": Attention,
        "recurrent": Recurrent,
    }
    return heads[kind](num_channels)
