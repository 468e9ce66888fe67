"""Listens as a star: a row has codes of its own and names a user and a song, whose columns lie once in the model."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

USER, SONG, OWN = 0, 1, 2  # a row's codes: the user's, the song's, from there on its own columns'
KINDS = ("user", "song", "row")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many there are of what a network is built for. Columns are told by their numbers of codes."""

    num_users: int
    num_songs: int
    row: tuple[int, ...]  # columns of the row's own
    user: tuple[int, ...]  # columns of users; the first is the user's own code
    song: tuple[int, ...]
    row_numbers: int
    user_numbers: int
    song_numbers: int

    @property
    def columns(self) -> tuple[int, ...]:
        """All columns, in the order in which they lie in the table."""
        return (*self.user, *self.song, *self.row)


class Star(nn.Module):
    """What is known of users and songs, with a row of one table for each code of each column: no two columns share one.

    Buffers:
        user_rows, song_rows: (num_users, num_columns) and (num_songs, num_columns), int32: rows of the table.
        user_numbers, song_numbers: (num_users, num_numbers) and (num_songs, num_numbers), float32: standardised, 0 where missing.
    """

    user_rows: Tensor
    song_rows: Tensor
    user_numbers: Tensor
    song_numbers: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.bounds = (0, *itertools.accumulate(sizes.columns))
        self.num_rows = self.bounds[-1]
        for kind, num, num_numbers in (
            ("user", sizes.num_users, sizes.user_numbers),
            ("song", sizes.num_songs, sizes.song_numbers),
        ):
            starts = torch.tensor(self.bounds_of(kind)[:-1], dtype=torch.int32)
            self.register_buffer(f"{kind}_rows", starts.repeat(num, 1))
            self.register_buffer(f"{kind}_numbers", torch.zeros(num, num_numbers))

    def bounds_of(self, kind: str) -> tuple[int, ...]:
        """Where the columns of `user`, `song` or `row` begin in the table, and where the last ends."""
        num_user, num_song = len(self.sizes.user), len(self.sizes.song)
        first = {"user": 0, "song": num_user, "row": num_user + num_song}[kind]
        return self.bounds[first : first + len(getattr(self.sizes, kind)) + 1]

    def describe(self, kind: str, codes: NDArray[np.integer], numbers: NDArray[np.float32]) -> None:
        """Say what is known of all users or songs.

        Args:
            kind: `user` or `song`.
            codes: (num, num_columns).
            numbers: (num, num_numbers).

        Raises:
            ValueError: of another shape, or a column has other codes than it was built for.
        """
        rows, kept = getattr(self, f"{kind}_rows"), getattr(self, f"{kind}_numbers")
        num_codes = np.array(getattr(self.sizes, kind))
        if codes.shape != tuple(rows.shape) or numbers.shape != tuple(kept.shape):
            raise ValueError(
                f"{kind}s: {codes.shape} codes and {numbers.shape} numbers for {rows.shape} and {kept.shape}"
            )
        if codes.size and ((codes < 0) | (codes >= num_codes)).any():
            raise ValueError(f"{kind}s: codes from {codes.min(0)} to {codes.max(0)} for columns of {num_codes}")
        starts = np.array(self.bounds_of(kind)[:-1])
        rows.copy_(torch.from_numpy(codes + starts))
        kept.copy_(torch.from_numpy(np.array(numbers, np.float32)))

    def own_rows(self, codes: Tensor) -> Tensor:
        """The table's rows of listens' own columns, (num, num_row_columns), of their codes (num, 2 + num_row_columns)."""
        return codes[:, OWN:] + torch.tensor(self.bounds_of("row")[:-1], dtype=codes.dtype, device=codes.device)

    def rows_of(self, codes: Tensor) -> Tensor:
        """The table's rows of all columns, (num, num_columns)."""
        return torch.cat([self.user_rows[codes[:, USER]], self.song_rows[codes[:, SONG]], self.own_rows(codes)], 1)
