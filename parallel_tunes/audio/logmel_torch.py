"""The log-mel spectrogram on torch: batches of waveforms, on any device that has float64, with gradients."""

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
# frames in one transform: on a CPU their spectra stay in the cache; on a GPU they fill it, with 0.7 GiB at n_fft=2048
_FRAMES = {"cpu": 256, "cuda": 1 << 14}


class LogMelTransform(nn.Module):
    """Waveforms to log-mel spectrograms, as `LogMel` defines them; a layer without parameters and without state to save.

    It computes in float64, whatever the model around it is cast to and whatever autocast, TF32 or
    `torch.set_float32_matmul_precision` say: beside a pure tone float32's rounding alone costs 5e-3 dB at 80 dB below.

    Args:
        settings: what the spectrogram is made with.

    Example:
        >>> import torch
        >>> transform = LogMelTransform(LogMel(sample_rate_hz=22050))
        >>> transform(torch.zeros(2, 22050, dtype=torch.int16)).shape
        torch.Size([2, 128, 44])
    """

    window: Tensor  # shape (n_fft,)
    filters: Tensor  # shape (num_mels, n_fft // 2 + 1)

    def __init__(self, settings: LogMel) -> None:
        super().__init__()
        self.settings = settings
        window = torch.from_numpy(settings.window)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.tensor(settings.filters, dtype=torch.float64), persistent=False)
        self._blocks = _split(settings.filters)

    def forward(self, waveform: Tensor, gain: Tensor | None = None) -> Tensor:
        """Mel power spectrograms in decibels relative to full scale.

        Args:
            waveform: shape (batch, num_samples); floating, nominally within ±1, or int16, of which 32768 is full scale.
            gain: shape (batch,), a factor for each clip.

        Returns:
            Shape (batch, num_mels, num_frames), float32, dB, on the device of this module;
            num_frames = 1 + num_samples // hop_length. Each clip is floored `top_db` below its own maximum.

        Raises:
            TypeError: another integer type, whose full scale is unknown.
            ValueError: shapes other than these.
        """
        if waveform.ndim != 2 or not len(waveform):
            raise ValueError(f"waveform has shape {tuple(waveform.shape)}, not (batch, num_samples)")
        if gain is not None and gain.shape != waveform.shape[:1]:
            raise ValueError(f"gain has shape {tuple(gain.shape)}, not ({len(waveform)},), one factor a clip")
        if waveform.dtype != torch.int16 and not waveform.is_floating_point():
            raise TypeError(f"waveform is {waveform.dtype}: give floating samples or int16")
        device = self.window.device
        with torch.autocast(device.type, enabled=False):
            samples = waveform.to(device).to(torch.float64)  # first there, then wider: there is less to carry
            if waveform.dtype == torch.int16:
                samples = samples / 32768
            if gain is not None:
                samples = samples * gain.to(device, torch.float64)[:, None]
            decibels = self._decibels(samples).to(torch.float32)
            if self.settings.top_db is not None:
                loudest = decibels.amax(dim=(1, 2), keepdim=True)
                decibels = torch.maximum(decibels, loudest - self.settings.top_db)
            return decibels

    def _decibels(self, samples: Tensor) -> Tensor:
        """Without a floor, shape (batch, num_mels, num_frames), float64."""
        n_fft, hop_length = self.settings.n_fft, self.settings.hop_length
        # zeros around, as many as `log_mel` takes: of an odd n_fft, the larger half at the end
        padded = F.pad(samples, (n_fft // 2, n_fft - n_fft // 2))
        # unfold, not torch.stft: the gradient of the latter's overlapping frames is added in random order on CUDA
        frames = padded.unfold(1, n_fft, hop_length)
        at_once = max(1, _FRAMES.get(samples.device.type, 256) // len(samples))
        if samples.requires_grad and torch.is_grad_enabled():
            at_once = frames.shape[1]  # all of them are kept for the gradient anyhow
        parts = [self._analyse(frames[:, first : first + at_once]) for first in range(0, frames.shape[1], at_once)]
        return torch.cat(parts, dim=1).transpose(1, 2).contiguous()

    def _analyse(self, frames: Tensor) -> Tensor:
        """Decibels of frames, shape (batch, frames, n_fft) to (batch, frames, num_mels)."""
        spectra = torch.fft.rfft(frames * self.window)
        power = spectra.real.square() + spectra.imag.square()
        mel = [power[..., bins] @ self.filters[bands, bins].T for bands, bins in self._blocks]
        return 10 * torch.log10(torch.cat(mel, dim=-1).clamp(min=1e-10))

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
