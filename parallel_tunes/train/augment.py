"""Augmentation of batches on the device that trains, by draws keyed by sample: the same on every world size."""

from __future__ import annotations

import torch
from torch import Tensor

from parallel_tunes.config_train import AugmentConfig
from parallel_tunes.models.dropout import draw_uniform


def mask(levels: Tensor, keys: Tensor, cfg: AugmentConfig) -> Tensor:
    """SpecAugment's masks (Park et al. 2019): stretches of time and of mel bands become 0, the mean of standardised levels.

    Args:
        levels: shape (num, 1, num_mels, num_frames), standardised.
        keys: shape (num,), int64.
    """
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


def mix(levels: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """Mixup (Zhang et al. 2018): shares · levels + (1 - shares) · others.

    Args:
        levels, others: shape (num, 1, num_mels, num_frames).
        shares: shape (num,).
    """
    return torch.lerp(others, levels, shares.to(levels.dtype).view(-1, 1, 1, 1))
