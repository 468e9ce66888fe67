"""How a spectrogram's bands move together: statistics of second order, of which a linear layer tells much of a genre."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from parallel_tunes.models.heads import in_full_precision

NUM_BANDS = 32
LAGS = (1, 2, 4)  # frames between which changes are looked at
ROOT, LEVELS = 20.0, 2.0  # what they are multiplied by: a root's values vary much less than levels
RIDGE = 0.01  # added to the covariance's diagonal: no crop is too short for its root
ROUNDS = (17, 11)  # of Newton–Schulz for either root: what is left of its error is that of float32


class Texture(nn.Module):
    """Covariance of bands and of their changes over one, two and four frames, its fourth root, and the bands' means and extremes.

    A gain or an equaliser adds a constant to a band's levels in dB, which no covariance sees. Covariances live on a cone,
    not in a plane: their logarithm (Arsigny et al. 2006, log-Euclidean), or as here a small power of them, of which it is
    the limit, straightens it for a linear layer. On a CPU the root is by eigenvalues, five times as fast. On a GPU, in
    graphs for other runtimes and compiled, it is by the coupled Newton–Schulz iteration (Higham 2008, eq. 6.35; Li et al.
    2018 in networks): matrix products alone. Nothing here is learnt.

    Attributes:
        num_values: of a sample.

    Shapes:
        input (num, 1, num_mels, num_frames), standardised dB, output (num, num_values), float32 or more.
    """

    def __init__(self) -> None:
        super().__init__()
        size = (1 + len(LAGS)) * NUM_BANDS
        self.num_values = size * (size + 1) // 2 + 3 * NUM_BANDS

    @torch.no_grad()
    def forward(self, spectrograms: Tensor) -> Tensor:
        with in_full_precision(spectrograms):
            levels = spectrograms.squeeze(1)
            # a GPU may round float32 products to the 11 bits of TF32, of which no iteration would recover
            levels = levels.double() if levels.is_cuda or levels.dtype == torch.float64 else levels.float()
            bands = average(levels.shape[1], levels) @ levels
            both = torch.cat([bands, *(move(bands, lag) for lag in LAGS)], 1)
            both = both - both.mean(2, keepdim=True)
            size = both.shape[1]
            unit = torch.eye(size, dtype=both.dtype, device=both.device)
            find_root = iterate_fourth_root if both.is_cuda or torch.compiler.is_compiling() else find_fourth_root
            root = find_root(both @ both.transpose(1, 2) / both.shape[2] + RIDGE * unit)
            # what stands twice in a symmetric matrix counts twice
            scaled = ROOT * root * (math.sqrt(2) + (1 - math.sqrt(2)) * unit)
            rows, columns = torch.triu_indices(size, size, device=both.device).unbind()
            upper = scaled[:, rows, columns]
            found = torch.cat([upper, *(LEVELS * each for each in (bands.mean(2), bands.amax(2), bands.amin(2)))], 1)
            return found if spectrograms.dtype == torch.float64 else found.float()


def move(bands: Tensor, lag: int) -> Tensor:
    """How far each level has moved in `lag` frames, 0 in the first of them; shapes (num, num_bands, num_frames)."""
    return bands - torch.cat([bands[:, :, :lag], bands[:, :, :-lag]], 2)[:, :, : bands.shape[2]]


def average(num_mels: int, like: Tensor) -> Tensor:
    """The means over NUM_BANDS stretches of mel bands, as a matrix (NUM_BANDS, num_mels)."""
    edges = torch.arange(NUM_BANDS, device=like.device) * num_mels / NUM_BANDS
    mels = torch.arange(num_mels, device=like.device)
    last = torch.clamp(edges + num_mels / NUM_BANDS, min=edges.floor() + 1)
    share = (torch.minimum(last.unsqueeze(1), mels + 1) - torch.maximum(edges.unsqueeze(1), mels)).clamp(min=0)
    return (share / share.sum(1, keepdim=True)).to(like.dtype)


def find_fourth_root(matrices: Tensor) -> Tensor:
    """Of symmetric matrices (num, size, size), no eigenvalue of which is below RIDGE."""
    sizes, directions = torch.linalg.eigh(matrices)
    roots: Tensor = directions * sizes.clamp(min=RIDGE).pow(0.25).unsqueeze(1) @ directions.transpose(1, 2)
    return roots


def iterate_fourth_root(matrices: Tensor) -> Tensor:
    """The same, by products of matrices alone."""
    unit = torch.eye(matrices.shape[1], dtype=matrices.dtype, device=matrices.device)
    for rounds in ROUNDS:
        norm = matrices.square().sum((1, 2), keepdim=True).sqrt()
        root, inverse = matrices / norm, unit.expand_as(matrices)
        for _ in range(rounds):
            step = (3 * unit - inverse @ root) / 2
            root, inverse = root @ step, step @ inverse
        matrices = root * norm.sqrt()
    return matrices
