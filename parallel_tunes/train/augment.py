"""Augmentation of batches on the device that trains, by draws keyed by sample: the same on every world size.

Each transform takes spectrograms as a model sees them, standardised levels of shape (num, 1, num_mels, num_frames), and one
key a sample, int64, which all its draws are made of; what a sample becomes depends on nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.config_train import AugmentConfig
from parallel_tunes.models.dropout import draw_uniform

# what turns each of them off
OFF: dict[str, dict[str, Any]] = {
    "mixup": {"mixup": 0},
    "masks": {"time_masks": 0, "mel_masks": 0},
    "gain": {"gain_db": 0},
    "eq": {"eq_db": 0},
    "noise": {"noise": 0},
    "shift": {"time_shift": 0},
    "stretch": {"time_stretch": 0},
    "pitch": {"pitch_semitones": 0},
}
NUM_KNOTS = 8  # of an equaliser's curve
NUM_STEPS = 32  # between the lowest and the highest pitch, that are tabulated
QUIETEST_DB, LOUDEST_DB = -70.0, -30.0  # noise, against the crop's loudest level


def settle(cfg: AugmentConfig) -> AugmentConfig:
    """The augmentation without what `augment.without` names."""
    return dataclasses.replace(cfg, **OFF[cfg.without]) if cfg.without else cfg


def list_on(cfg: AugmentConfig) -> list[str]:
    """Names of those that are on."""
    return [name for name, keys in OFF.items() if any(getattr(settle(cfg), key) for key in keys)]


def reach(window: int, cfg: AugmentConfig) -> int:
    """Frames that a crop of `window` frames may be made of."""
    return math.ceil(window * (1 + cfg.time_stretch))


class Augmentation:
    """What happens to the samples of a batch, but for being mixed.

    Args:
        definition: of the spectrograms, whose mel bands shifted pitches are found in.
        deviation_db: that a standardised level of 1 stands for.
        window: frames of a crop as the model sees it; those given may be longer, by `reach`.
    """

    def __init__(self, cfg: AugmentConfig, definition: LogMel, *, deviation_db: float, window: int) -> None:
        self.cfg, self.deviation_db, self.window = cfg, deviation_db, window
        shifts = np.linspace(-cfg.pitch_semitones, cfg.pitch_semitones, NUM_STEPS + 1)
        self.bands = torch.from_numpy(
            np.stack([definition.place_bands(2.0 ** (-each / 12)) for each in shifts])
        ).float()

    def alter(self, levels: Tensor, keys: Tensor) -> Tensor:
        """All but the masks, which come after mixing: (num, 1, num_mels, window).

        Of samples that are longer than a crop, a crop is taken at random.
        """
        cfg = self.cfg
        if not (cfg.time_stretch or cfg.pitch_semitones) and levels.shape[3] > self.window:
            levels = self._crop(levels, keys)
        steps: list[tuple[float, Callable[[Tensor, Tensor], Tensor]]] = [
            (cfg.time_stretch or cfg.pitch_semitones, self._warp),
            (cfg.time_shift, self._shift),
            (cfg.gain_db, self._gain),
            (cfg.eq_db, self._equalise),
            (cfg.noise, self._add_noise),
        ]
        for strength, transform in steps:
            if strength:
                levels = transform(levels, keys)
        return levels

    def mask(self, levels: Tensor, keys: Tensor) -> Tensor:
        """SpecAugment's masks (Park et al. 2019): stretches of time and of mel bands become 0, the mean of standardised levels."""
        cfg = self.cfg
        for purpose, num, widest, axis in (
            ("time mask", cfg.time_masks, cfg.time_mask_share, 3),
            ("mel mask", cfg.mel_masks, cfg.mel_mask_share, 2),
        ):
            size = levels.shape[axis]
            if num == 0:
                continue
            draws = draw_uniform(keys, purpose, 2 * num)
            widths = (draws[:, :num, None] * (widest * size + 1)).floor()
            firsts = (draws[:, num:, None] * (size - widths + 1)).floor()
            places = torch.arange(size, device=levels.device)
            hidden = ((places >= firsts) & (places < firsts + widths)).any(1)
            levels = levels.masked_fill(hidden[:, None, :, None] if axis == 2 else hidden[:, None, None, :], 0.0)
        return levels

    def _warp(self, levels: Tensor, keys: Tensor) -> Tensor:
        """Time stretch and pitch shift, as a phase vocoder makes them of the magnitudes, the only part that is left here
        (Flanagan & Golden 1966): frames are read faster or slower, levels from the bands their frequencies come from.
        """
        num_bands, num_frames = levels.shape[2:]
        speed, where, pitch = draw_uniform(keys, "warp", 3).T[:, :, None]
        speeds = (1 + self.cfg.time_stretch) ** (2 * speed - 1)
        room = (num_frames - 1 - speeds * (self.window - 1)).clamp(min=0)
        times = where * room + speeds * torch.arange(self.window, device=levels.device)
        at = pitch[:, 0] * NUM_STEPS
        below = at.long()
        table = self.bands.to(levels.device)
        bands = torch.lerp(table[below], table[below + 1], (at - below)[:, None])
        # grid_sample wants both from -1 to 1, the middles of the first and the last value
        across = (times * (2 / max(num_frames - 1, 1)) - 1)[:, None, :].expand(-1, num_bands, -1)
        down = (bands * (2 / (num_bands - 1)) - 1)[:, :, None].expand(-1, -1, self.window)
        grid = torch.stack([across, down], 3).to(levels.dtype)
        warped = F.grid_sample(levels, grid, padding_mode="border", align_corners=True)
        return warped.contiguous(memory_format=torch.channels_last)

    def _crop(self, levels: Tensor, keys: Tensor) -> Tensor:
        firsts = (draw_uniform(keys, "crop", 1) * (levels.shape[3] - self.window + 1)).long()
        places = firsts + torch.arange(self.window, device=levels.device)
        return levels.gather(3, places[:, None, None, :].expand(-1, 1, levels.shape[2], -1))

    def _shift(self, levels: Tensor, keys: Tensor) -> Tensor:
        """Time shift: what leaves the crop at its end comes in at its beginning."""
        size = levels.shape[3]
        steps = ((2 * draw_uniform(keys, "shift", 1) - 1) * self.cfg.time_shift * size).round().long()
        places = (torch.arange(size, device=levels.device) - steps) % size
        return levels.gather(3, places[:, None, None, :].expand_as(levels))

    def _gain(self, levels: Tensor, keys: Tensor) -> Tensor:
        """All levels higher or lower by up to gain_db."""
        steps_db = (2 * draw_uniform(keys, "gain", 1) - 1) * self.cfg.gain_db
        return levels + (steps_db / self.deviation_db).to(levels.dtype)[:, :, None, None]

    def _equalise(self, levels: Tensor, keys: Tensor) -> Tensor:
        """A filter: a curve over the mel bands of up to eq_db, straight between eight knots."""
        knots_db = (2 * draw_uniform(keys, "eq", NUM_KNOTS) - 1) * self.cfg.eq_db
        curve = F.interpolate(knots_db[:, None], levels.shape[2], mode="linear", align_corners=True)
        return levels + (curve / self.deviation_db).to(levels.dtype)[:, :, :, None]

    def _add_noise(self, levels: Tensor, keys: Tensor) -> Tensor:
        """White noise in a share of the samples, 30 to 70 dB below their loudest; powers add, the noise's are exponential."""
        per_db = math.log(10) / 10 * self.deviation_db
        chosen, loudness = draw_uniform(keys, "noise", 2).T[:, :, None, None, None]
        below_db = QUIETEST_DB + (LOUDEST_DB - QUIETEST_DB) * loudness
        draws = draw_uniform(keys, "noise levels", levels[0].numel()).view_as(levels).to(levels.dtype)
        noise = levels.amax((2, 3), keepdim=True) * per_db + below_db * math.log(10) / 10 + (-(1 - draws).log()).log()
        noisy = torch.logaddexp(levels * per_db, noise) / per_db
        return torch.where(chosen < self.cfg.noise, noisy, levels)


def mix(levels: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """Mixup (Zhang et al. 2018): shares · levels + (1 - shares) · others.

    Args:
        levels, others: shape (num, 1, num_mels, num_frames).
        shares: shape (num,).
    """
    return torch.lerp(others, levels, shares.to(levels.dtype).view(-1, 1, 1, 1))
