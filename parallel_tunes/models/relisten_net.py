"""Networks that tell from a listen whether its user will listen to the song again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from parallel_tunes.models import listen_rows
from parallel_tunes.models.bag import Bags, Numbering, find_contexts, sum_bags
from parallel_tunes.models.kernels import share
from parallel_tunes.models.star import KINDS, OWN, SONG, USER, Sizes, Star


class RelistenNet(Star):
    """A bag of embeddings and three linear layers.

    A listen is the sum of one embedding for each column. The first layer is linear, so that it goes through the sums of users,
    of songs and of single codes, each once a batch, before these are added up for rows: no row is ever 64 numbers wide. With a
    width of at least the first layer's, a bag can learn whatever embeddings laid side by side can, each column having its own
    part of the first layer's matrix: that part can be multiplied into the column's embeddings.

    Args:
        width: of all embeddings. Narrower ones for columns of few codes would save nothing, their rows being few, and learnt no better.
        hidden: outputs of the first two linear layers.
        num_factors: numbers more that the first layer gives, whose products of user and song are added to the logit: what a
            sum cannot say (factorisation machines, Rendle 2010; beside layers, DeepFM, Guo et al. 2017).

    Shapes:
        codes (num, 2 + num_row_columns), int32: user, song, own columns; numbers (num, num_numbers), float32; logits (num,).
    """

    def __init__(
        self, sizes: Sizes, *, width: int = 64, hidden: Sequence[int] = (32, 16), num_factors: int = 0
    ) -> None:
        super().__init__(sizes)
        self.num_hidden, num_second = hidden
        self.table = nn.Parameter(torch.randn(self.num_rows, width) * 0.05)
        self.project = nn.Linear(width, self.num_hidden + num_factors, bias=False)
        self.of_user = _linear(sizes.user_numbers, self.num_hidden + num_factors, bias=False)
        self.of_song = _linear(sizes.song_numbers, self.num_hidden + num_factors, bias=False)
        self.of_row = _linear(sizes.row_numbers, self.num_hidden)  # its bias is the first layer's
        self.second, self.third = nn.Linear(self.num_hidden, num_second), nn.Linear(num_second, 1)
        self.numbering: dict[str, Numbering] = {}  # memory of the compiled way

    def tables(self) -> list[nn.Parameter]:
        """Parameters whose gradients are sparse."""
        return [self.table]

    @property
    def layers(self) -> listen_rows.Layers:
        """What all rows go through."""
        return listen_rows.Layers(
            self.of_row.weight,
            self.of_row.bias,
            self.second.weight,
            self.second.bias,
            self.third.weight,
            self.third.bias,
        )

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        if self._is_compiled():
            return listen_rows.score(*self._sum_up(codes), numbers, self.layers)
        return self._score(codes, numbers)

    def loss(self, codes: Tensor, numbers: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy of all rows, each times its share (num,), added; and logits, through which no gradient goes."""
        if self._is_compiled():
            labels = listen_rows.Targets(targets, shares)
            return listen_rows.loss(*self._sum_up(codes), numbers, self.layers, labels)
        return cross_entropy(self._score(codes, numbers), targets, shares)

    def _is_compiled(self) -> bool:
        return self.table.device.type == "cpu" and not torch.is_autocast_enabled("cpu")

    def _sum_up(self, codes: Tensor) -> tuple[Tensor, NDArray[np.int32], list[int]]:
        """What rows are sums of, (num_sums, …), where in it, (3, num), and of how many users, songs and contexts it is."""
        if not self.numbering:
            nums = ("user", self.sizes.num_users), ("song", self.sizes.num_songs), ("table", self.num_rows)
            self.numbering = {kind: Numbering(num) for kind, num in nums}
        whole = codes.numpy()
        found = share([
            partial(self.numbering["user"].find, whole[:, USER]),
            partial(self.numbering["song"].find, whole[:, SONG]),
            partial(find_contexts, whole[:, OWN:], self.sizes.row),
        ])  # fmt: skip
        (users, _), (songs, _), (contexts, _) = found
        described = [
            (_take(self.user_rows, users), _take(self.user_numbers, users)),
            (_take(self.song_rows, songs), _take(self.song_numbers, songs)),
            (
                contexts + np.array(self.bounds_of("row")[:-1], np.int32),
                np.empty((len(contexts), 0), self.user_numbers.numpy().dtype),
            ),
        ]
        kinds = [
            Bags(rows, self.bounds_of(kind), numbers) for kind, (rows, numbers) in zip(KINDS, described, strict=True)
        ]
        sizes = [len(kind) for kind in kinds]
        starts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        places = np.stack([place for _, place in found]) + starts[:, None]
        weights = [self.of_user.weight, self.of_song.weight, self.project.weight[:, :0]]
        return sum_bags(self.table, self.project.weight, weights, kinds, self.numbering["table"]), places, sizes

    def _score(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """The same mathematics for devices without compiled kernels, and under autocast."""
        (users, user_of), (songs, song_of) = (
            torch.unique(codes[:, kind], return_inverse=True) for kind in (USER, SONG)
        )
        own, own_of = torch.unique(self.own_rows(codes), return_inverse=True)
        bags = [F.embedding_bag(rows, self.table, mode="sum", sparse=True) for rows in (
            self.user_rows[users], self.song_rows[songs], own.unsqueeze(1)
        )]  # fmt: skip
        numbers_of = self.of_user(self.user_numbers[users]), self.of_song(self.song_numbers[songs])
        sums = self.project(torch.cat(bags)) + torch.cat(
            [*numbers_of, bags[2].new_zeros(len(own), len(self.project.weight))]
        )
        user, song = sums[user_of], sums[len(users) + song_of]
        both = user + song
        first = both[:, : self.num_hidden] + self.of_row(numbers)
        if own_of.shape[1]:
            first = first + sums[len(users) + len(songs) + own_of][..., : self.num_hidden].sum(1)
        logits: Tensor = self.third(F.relu(self.second(F.relu(first)))).squeeze(1)
        return torch.add(logits, (user * song)[:, self.num_hidden :].sum(1))


class RelistenSeed(Star):
    """The seed's network: an embedding for each column, side by side, and three linear layers, PyTorch's own throughout.

    Its columns must not share rows of the table, which in the seed they did. It takes no numbers.

    Shapes:
        as for `RelistenNet`.
    """

    def __init__(self, sizes: Sizes, *, width: int = 64, hidden: Sequence[int] = (32, 16)) -> None:
        super().__init__(sizes)
        self.embed = nn.Embedding(self.num_rows, width)
        num_hidden, num_second = hidden
        self.layers = nn.Sequential(
            nn.Linear(width * len(sizes.columns), num_hidden),
            nn.ReLU(),
            nn.Linear(num_hidden, num_second),
            nn.ReLU(),
            nn.Linear(num_second, 1),
        )

    def tables(self) -> list[nn.Parameter]:
        """Parameters whose gradients are sparse: none."""
        return []

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        del numbers  # given all the same: networks are called alike
        logits: Tensor = self.layers(self.embed(self.rows_of(codes)).flatten(1)).squeeze(1)
        return logits

    def loss(self, codes: Tensor, numbers: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """As that of `RelistenNet`."""
        return cross_entropy(self(codes, numbers), targets, shares)


def cross_entropy(logits: Tensor, targets: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of rows, each times its share, added, in float32 at least; and the logits, without gradient."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return torch.dot(losses, shares), logits.detach()


def _take(tensor: Tensor, rows: NDArray[np.int32]) -> NDArray[Any]:
    return np.take(tensor.numpy(), rows, 0)


def _linear(num_in: int, num_out: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer, perhaps of no inputs, whose initialisation PyTorch would warn of."""
    if num_in:
        return nn.Linear(num_in, num_out, bias=bias)
    layer = nn.Linear(1, num_out, bias=bias)
    layer.in_features, layer.weight = 0, nn.Parameter(torch.empty(num_out, 0))
    return layer
