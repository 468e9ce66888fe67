"""A model that only answers: standardised inputs in, probabilities out, always in full precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.train.learner import Inputs, Rows, Waveforms
from parallel_tunes.train.norm_pool import fuse
from parallel_tunes.train.profile import mark
from parallel_tunes.train.stem import fuse_stem


class Frozen:
    """A model that only answers: what judges and serves.

    Args:
        model: takes (batch, 1, num_mels, num_frames), gives logits (batch, num_classes).
        mean_db, deviation_db: the training split's statistics; inputs are standardised by them.
        log_mel: what the spectrograms are made with; needed where inputs are waveforms.
        dtype: of its parameters.
        fused: whether layers are fused, where that is faster.
        multi_label: whether a sample may have several labels, each with a probability of its own.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, *,
        mean_db: float, deviation_db: float, log_mel: LogMel | None = None,
        dtype: torch.dtype = torch.float32, fused: bool = True, multi_label: bool = False,
    ) -> None:  # fmt: skip
        self.device, self.dtype = device, dtype
        self.transform: LogMelTransform | None = None
        if log_mel is not None:
            # most GPUs are slow at float64, and would need longer for it than for the model
            exact = torch.float32 if device.type == "cuda" else torch.float64
            self.transform = LogMelTransform(log_mel, exact).to(device)
        self.model = model.to(device, dtype)
        if fused and device.type == "cpu":
            fuse(self.model)
            fuse_stem(self.model)
        for parameter in self.model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        self.mean_db, self.deviation_db, self.multi_label = mean_db, deviation_db, multi_label
        self.averaged: dict[str, Tensor] | None = None  # what answers in place of the model's own tensors

    def standardise(self, inputs: Inputs) -> Tensor:
        """dB, shape (num, num_mels, num_frames), or waveforms → (num, 1, num_mels, num_frames) on the device."""
        assert not isinstance(inputs, Rows), "no spectrogram is made of listens"
        with mark("host_to_device"):
            here = inputs.to(self.device, non_blocking=True) if isinstance(inputs, Tensor) else inputs.to(self.device)
        moved = here if isinstance(here, Tensor) else self.hear(here)
        levels = moved.to(self.dtype).unsqueeze(1)
        return levels.sub_(self.mean_db).div_(self.deviation_db).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def hear(self, crops: Waveforms) -> Tensor:
        """Log-mel spectrograms, as shards hold them but not rounded: (num, num_mels, num_frames), float32 dB, on the device."""
        assert self.transform is not None, "waveforms need log_mel, the definition of their spectrograms"
        levels: Tensor = self.transform(crops.samples, crops.gains, floor_db=crops.floors_db, centred=False)
        # a crop is longer than its clip only if it begins with it: it holds all of the clip's frames, and their lowest
        is_beyond = torch.arange(levels.shape[2], device=self.device) >= crops.num_frames[:, None, None]
        lowest = levels.masked_fill(is_beyond, torch.inf).amin((1, 2), keepdim=True)
        return torch.where(is_beyond, lowest, levels)

    @torch.inference_mode()
    def predict(self, inputs: Inputs) -> Tensor:
        """Probabilities, shape (num, num_classes), on the CPU; always in full precision."""
        self.model.eval()
        inputs = self.standardise(inputs)
        logits = functional_call(self.model, self.averaged, inputs) if self.averaged else self.model(inputs)
        return (logits.sigmoid() if self.multi_label else F.softmax(logits, 1)).cpu()
