"""The log-mel spectrogram on torch: batches of waveforms, or crops of them, on any device that has float64, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from parallel_tunes.audio.definition import LogMel

_BANDS = 32  # in one product: neighbours share their bins, and the rest of the bank is zeros
# frames in one transform: on a CPU, where it is of one clip, their spectra stay in the cache; on a GPU they fill it, with
# 0.7 GiB at n_fft=2048
_FRAMES = {"cpu": 256, "cuda": 1 << 14}


class LogMelTransform(nn.Module):
    """Waveforms to log-mel spectrograms, as `LogMel` defines them; a layer without parameters and without state to save.

    It computes in `dtype`, whatever the model around it is cast to and whatever autocast, TF32 or
    `torch.set_float32_matmul_precision` say. On a CPU a clip's spectrogram has the same bits whatever clips are beside it.

    Args:
        settings: what the spectrogram is made with.
        dtype: float64, exact to a float32 step; or float32, for GPUs that are slow at float64, whose rounding lies 140 dB
            below a frame's energy: it costs up to 1e-2 dB at a level 80 dB below.

    Attributes:
        blocks: of the bank what is not zero, bands and the bins that they use.

    Example:
        >>> import torch
        >>> transform = LogMelTransform(LogMel(sample_rate_hz=22050))
        >>> transform(torch.zeros(2, 22050, dtype=torch.int16)).shape
        torch.Size([2, 128, 44])
    """

    window: Tensor  # shape (n_fft,)
    filters: Tensor  # shape (num_mels, n_fft // 2 + 1)

    def __init__(self, settings: LogMel, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("window", torch.from_numpy(settings.window).to(dtype), persistent=False)
        # always float64: no setting makes that product coarser
        self.register_buffer("filters", torch.tensor(settings.filters, dtype=torch.float64), persistent=False)
        self.blocks = _split(settings.filters)

    def forward(
        self, waveform: Tensor, gain: Tensor | None = None, *, floor_db: Tensor | None = None, centred: bool = True
    ) -> Tensor:
        """Mel power spectrograms in decibels relative to full scale.

        Args:
            waveform: shape (batch, num_samples); floating, nominally within ±1, or int16, of which 32768 is full scale.
            gain: shape (batch,), a factor for each clip.
            floor_db: shape (batch,), the lowest level of each clip, dB; by default `top_db` below its own maximum.
            centred: whether frames are centred on multiples of `hop_length` with zeros around the clip. Otherwise they
                begin there and lie within the samples: those of a crop, with what its first and last frames reach.

        Returns:
            Shape (batch, num_mels, num_frames), float32, dB, on the device of this module;
            num_frames = 1 + num_samples // hop_length, or 1 + (num_samples - n_fft) // hop_length.

        Raises:
            TypeError: another integer type, whose full scale is unknown.
            ValueError: shapes other than these.
        """
        self._check(waveform, {"gain": gain, "floor_db": floor_db}, centred)
        device = self.window.device
        # on a CPU clip by clip: products of another size may add in another order
        together = 1 if device.type == "cpu" else len(waveform)
        with torch.autocast(device.type, enabled=False):
            clips = torch.split(waveform.to(device, non_blocking=True), together)
            gains = [None] * len(clips) if gain is None else torch.split(gain.to(device, non_blocking=True), together)
            parts = [self._decibels(*pair, centred=centred) for pair in zip(clips, gains, strict=True)]
            decibels = torch.cat(parts).to(torch.float32)
            if floor_db is not None:
                return torch.maximum(decibels, floor_db.to(device, torch.float32, non_blocking=True)[:, None, None])
            if self.settings.top_db is not None:
                loudest = decibels.amax(dim=(1, 2), keepdim=True)
                decibels = torch.maximum(decibels, loudest - self.settings.top_db)
            return decibels

    def _check(self, waveform: Tensor, of_clips: dict[str, Tensor | None], centred: bool) -> None:
        if waveform.ndim != 2 or not len(waveform):
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}, not (batch, num_samples)")
        for name, values in of_clips.items():
            if values is not None and values.shape != waveform.shape[:1]:
                raise ValueError(f"{name} has shape {tuple(values.shape)}, not ({len(waveform)},), one for each clip")
        if waveform.dtype != torch.int16 and not waveform.is_floating_point():
            raise TypeError(f"waveform is {waveform.dtype}: give floating samples or int16")
        if not centred and waveform.shape[1] < self.settings.n_fft:
            raise ValueError(f"waveform has {waveform.shape[1]} samples, fewer than n_fft={self.settings.n_fft}")

    def _decibels(self, clips: Tensor, gain: Tensor | None, *, centred: bool) -> Tensor:
        """Without a floor, shape (batch, num_mels, num_frames), float64 or float32."""
        n_fft, hop_length, dtype = self.settings.n_fft, self.settings.hop_length, self.window.dtype
        unit = 1 / 32768 if clips.dtype == torch.int16 else 1.0
        samples = clips.to(dtype) * (unit if gain is None else gain.to(dtype)[:, None] * unit)
        if centred:
            # zeros around, as many as `log_mel` takes: of an odd n_fft, the larger half at the end
            samples = F.pad(samples, (n_fft // 2, n_fft - n_fft // 2))
        # unfold, not torch.stft: the gradient of the latter's overlapping frames is added in random order on CUDA
        frames = samples.unfold(1, n_fft, hop_length)
        at_once = max(1, _FRAMES.get(samples.device.type, 256) // len(samples))
        if samples.requires_grad and torch.is_grad_enabled():
            at_once = frames.shape[1]  # all of them are kept for the gradient anyhow
        parts = [self._analyse(frames[:, first : first + at_once]) for first in range(0, frames.shape[1], at_once)]
        return torch.cat(parts, dim=1).transpose(1, 2)

    def _analyse(self, frames: Tensor) -> Tensor:
        """Decibels of frames, shape (batch, frames, n_fft) to (batch, frames, num_mels)."""
        spectra = torch.fft.rfft(frames * self.window)
        power = (spectra.real.square() + spectra.imag.square()).to(self.filters.dtype)
        mel = [power[..., bins] @ self.filters[bands, bins].T for bands, bins in self.blocks]
        return 10 * torch.log10(torch.cat(mel, dim=-1).to(frames.dtype).clamp(min=1e-10))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the model to its device, but not to a coarser type."""
        exact = dict(self.named_buffers(recurse=False))
        module: Any = super()  # torch declares no types for _apply
        module._apply(fn, recurse)
        for name, buffer in exact.items():
            self.register_buffer(name, buffer.to(self.get_buffer(name).device), persistent=False)
        return self


def _split(filters: NDArray[np.float32]) -> list[tuple[slice, slice]]:
    """The blocks of a bank that are not zero: some bands each, and all the bins that these use."""
    blocks = []
    for first in range(0, len(filters), _BANDS):
        used = np.flatnonzero(filters[first : first + _BANDS].any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0)
        blocks.append((slice(first, first + _BANDS), bins))
    return blocks
