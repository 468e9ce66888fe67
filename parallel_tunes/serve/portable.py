"""Models as one piece for other runtimes: what goes in is samples, decibels or codes, what comes out is probabilities.

Each is traced by `torch.onnx.export`, for which it is written out with plain tensor operations, any batch at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_tunes.audio.front_end import QUIETEST
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.models.relisten_net import RelistenNet, RelistenSeed
from parallel_tunes.models.star import SONG, USER


class PortableLevels(nn.Module):
    """Decibels in, probabilities out.

    Args:
        network: takes (batch, 1, num_mels, num_frames), gives logits (batch, num_classes).
        mean_db, deviation_db: what its inputs are standardised by.
        multi_label: whether each label has a probability of its own.

    Shapes:
        input (batch, num_mels, num_frames), output (batch, num_classes), float32.
    """

    def __init__(self, network: nn.Module, *, mean_db: float, deviation_db: float, multi_label: bool) -> None:
        super().__init__()
        self.network, self.multi_label = network, multi_label
        self.mean_db, self.deviation_db = mean_db, deviation_db

    def forward(self, levels: Tensor) -> Tensor:
        logits: Tensor = self.network(((levels - self.mean_db) / self.deviation_db).unsqueeze(1))
        return logits.sigmoid() if self.multi_label else logits.softmax(1)


class PortableSamples(nn.Module):
    """Samples in, probabilities out: `LogMelTransform` and all that `Frozen` does.

    The transform's loop over clips and its complex numbers are not for tracing. Here the frames' spectra, real and imaginary
    parts, come from one STFT in float64; all the rest is in float32, whose sums of powers are exact to a millionth.

    Args:
        transform: the front end.
        top_db: levels are floored this far below the maximum of a window, as well as at `floor_db`.
        by_peak: whether, without a `gain`, a window is scaled to a peak of 1.

    Shapes:
        samples (batch, num_samples), float32 within ±1, in which all frames lie whole: num_frames = 1 + (num_samples - n_fft) //
        hop_length. Of each window's clip: gain, a factor, 0 where it is not known; floor_db; num_frames, int64, of the
        clip from the window's first on: later ones take the lowest level of these. Output (batch, num_classes), float32.
    """

    window: Tensor

    def __init__(self, levels: PortableLevels, transform: LogMelTransform, *, top_db: float, by_peak: bool) -> None:
        super().__init__()
        self.levels, self.settings, self.blocks = levels, transform.settings, transform.blocks
        self.top_db, self.by_peak = top_db, by_peak
        self.register_buffer("window", transform.window.clone())
        for number, (bands, bins) in enumerate(self.blocks):
            self.register_buffer(f"filters_{number}", transform.filters[bands, bins].T.float().contiguous())

    def forward(self, samples: Tensor, gain: Tensor, floor_db: Tensor, num_frames: Tensor) -> Tensor:
        peak = samples.abs().amax(1).clamp(min=QUIETEST) if self.by_peak else torch.ones_like(samples[:, 0])
        scaled = samples.double() * torch.where(gain > 0, gain, 1 / peak).double().unsqueeze(1)
        found = self._analyse(scaled)
        floored = torch.maximum(found, found.amax((1, 2), keepdim=True) - self.top_db)
        floored = torch.maximum(floored, floor_db[:, None, None])
        is_beyond = torch.arange(floored.shape[2]) >= num_frames[:, None, None]
        lowest = floored.masked_fill(is_beyond, torch.inf).amin((1, 2), keepdim=True)
        probabilities: Tensor = self.levels(torch.where(is_beyond, lowest, floored))
        return probabilities

    def _analyse(self, scaled: Tensor) -> Tensor:
        """Decibels, (batch, num_mels, num_frames)."""
        n_fft, hop_length = self.settings.n_fft, self.settings.hop_length
        spectra = torch.stft(scaled, n_fft, hop_length, window=self.window, center=False, return_complex=True)
        power = torch.view_as_real(spectra).square().sum(-1).float().transpose(1, 2)
        mel = [power[..., bins] @ self.get_buffer(f"filters_{at}") for at, (_, bins) in enumerate(self.blocks)]
        return 10 * torch.log10(torch.cat(mel, 2).clamp(min=1e-10)).transpose(1, 2)


class PortableListens(nn.Module):
    """Codes and numbers in, the probability of listening again out.

    Shapes:
        codes (batch, 2 + num_row_columns), int64: user, song, the row's own columns; numbers (batch, num_numbers), float32;
        output (batch,), float32.
    """

    network: RelistenNet | RelistenSeed

    def __init__(self, network: RelistenNet | RelistenSeed) -> None:
        super().__init__()
        self.network = network

    def forward(self, codes: Tensor, numbers: Tensor | None = None) -> Tensor:
        network = self.network
        if isinstance(network, RelistenSeed):
            logits: Tensor = network(codes, torch.empty(0))
            return logits.sigmoid()
        return _score(network, codes, numbers).sigmoid()


def _score(network: RelistenNet, codes: Tensor, numbers: Tensor | None) -> Tensor:
    """Logits; layers of what there is none of have no inputs to trace."""
    num_hidden = network.num_hidden
    user, song = (
        _project(network, network.user_rows[codes[:, USER]]),
        _project(network, network.song_rows[codes[:, SONG]]),
    )
    if network.sizes.user_numbers:
        user = user + network.of_user(network.user_numbers[codes[:, USER]])
    if network.sizes.song_numbers:
        song = song + network.of_song(network.song_numbers[codes[:, SONG]])
    first = (user + song)[:, :num_hidden] + network.of_row.bias
    if network.sizes.row:
        first = first + _project(network, network.own_rows(codes))[:, :num_hidden]
    if numbers is not None:
        first = first + numbers @ network.of_row.weight.T
    logits: Tensor = network.third(network.second(first.relu()).relu()).squeeze(1)
    return logits + (user * song)[:, num_hidden:].sum(1)


def _project(network: RelistenNet, rows: Tensor) -> Tensor:
    """What the first layer makes of the sums of some rows of the table, (num, num_columns)."""
    projected: Tensor = network.project(F.embedding(rows.long(), network.table).sum(1))
    return projected
