"""Learning by gradient descent: one torch model, its optimizer and schedule, DDP and mixed precision."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.config import TrainConfig
from parallel_tunes.parallel.batch_norm import synchronise, weigh
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.learner import Batch, Inputs, Sums, Waveforms
from parallel_tunes.train.norm_pool import fuse


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto` as `bf16` where the hardware multiplies it natively, else `fp32`; other words as they are."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else "fp32"


class Frozen:
    """A model that only answers: what judges and serves.

    Args:
        model: takes (batch, 1, num_mels, num_frames), gives logits (batch, num_classes).
        mean_db, deviation_db: the training split's statistics; inputs are standardised by them.
        log_mel: what the spectrograms are made with; needed where inputs are waveforms.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, *,
        mean_db: float, deviation_db: float, log_mel: LogMel | None = None,
    ) -> None:  # fmt: skip
        self.device = device
        self.transform: LogMelTransform | None = None
        if log_mel is not None:
            # most GPUs are slow at float64, and would need longer for it than for the model
            dtype = torch.float32 if device.type == "cuda" else torch.float64
            self.transform = LogMelTransform(log_mel, dtype).to(device)
        self.model = fuse(model.to(device)) if device.type == "cpu" else model.to(device)
        for parameter in self.model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        self.mean_db, self.deviation_db = mean_db, deviation_db

    def standardise(self, inputs: Inputs) -> Tensor:
        """dB, shape (num, num_mels, num_frames), or waveforms → (num, 1, num_mels, num_frames), float32 on the device."""
        moved = inputs.to(self.device, non_blocking=True) if isinstance(inputs, Tensor) else self.hear(inputs)
        levels = moved.float().unsqueeze(1)
        return levels.sub_(self.mean_db).div_(self.deviation_db).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def hear(self, crops: Waveforms) -> Tensor:
        """Log-mel spectrograms, as shards hold them but not rounded: (num, num_mels, num_frames), float32 dB, on the device."""
        assert self.transform is not None, "waveforms need log_mel, the definition of their spectrograms"
        crops = crops.to(self.device)
        levels: Tensor = self.transform(crops.samples, crops.gains, floor_db=crops.floors_db, centred=False)
        # a crop is longer than its clip only if it begins with it: it holds all of the clip's frames, and their lowest
        is_beyond = torch.arange(levels.shape[2], device=self.device) >= crops.num_frames[:, None, None]
        lowest = levels.masked_fill(is_beyond, torch.inf).amin((1, 2), keepdim=True)
        return torch.where(is_beyond, lowest, levels)

    @torch.inference_mode()
    def predict(self, inputs: Inputs) -> Tensor:
        """Probabilities, shape (num, num_classes), float32 on the CPU; always in full precision."""
        self.model.eval()
        return F.softmax(self.model(self.standardise(inputs)), 1).cpu()


class GradientLearner(Frozen):
    """A model trained with AdamW (Loshchilov & Hutter 2019) under a linear warm-up and a cosine to zero.

    Args:
        total_steps: length of the schedule.
        norm: sync: batch norms normalise over the batches of all ranks; otherwise each rank over its own.
        model, mean_db, deviation_db, log_mel: as for `Frozen`.
    """

    def __init__(
        self, model: nn.Module, cfg: TrainConfig, mesh: Mesh, *,
        mean_db: float, deviation_db: float, total_steps: int, log_mel: LogMel | None = None, norm: str = "sync",
    ) -> None:  # fmt: skip
        super().__init__(model, mesh.device, mean_db=mean_db, deviation_db=deviation_db, log_mel=log_mel)
        if norm == "sync" and mesh.world_size > 1:
            synchronise(self.model, mesh)
        self.parallel = mesh.data_parallel(self.model)
        self.mesh = mesh
        self.precision = choose_precision(cfg.precision, self.device)
        self.cfg, self.total_steps = cfg, total_steps
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]  # biases and norms are not decayed
        groups = [{"params": matrices, "weight_decay": cfg.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=cfg.lr, fused=True)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training."""
        warmup = max(round(self.cfg.warmup * self.total_steps), 1)
        if step < warmup:
            return self.cfg.lr * (step + 1) / warmup
        done = min((step - warmup) / max(self.total_steps - warmup, 1), 1.0)
        return self.cfg.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _backward(self, batch: Batch) -> Sums:
        self.parallel.train()
        weigh(self.model, batch.weights)
        targets, weights = batch.targets.to(self.device), batch.weights.to(self.device)
        inputs = self.standardise(batch.inputs)
        amp = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else contextlib.nullcontext()
        with amp:
            logits = self.parallel(inputs)
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        # DDP averages the ranks' gradients; the mean wanted is over samples, of which ranks may have unequal numbers
        torch.autograd.backward(torch.dot(losses, weights) * (self.mesh.world_size / batch.num_global))
        marks = batch.marks.to(self.device)
        return Sums.of(losses.detach(), logits.detach().argmax(1) == targets, weights, marks)

    def step(self, batch: Batch, step: int) -> Sums:
        """One optimizer step on this rank's part of a global batch; sums over that part."""
        self.optimizer.zero_grad(set_to_none=True)
        sums = self._backward(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        self.optimizer.step()
        return sums

    def settle(self, batch: Batch) -> None:
        """Two steps whose gradients are thrown away.

        DDP rebuilds its buckets after the first backward pass, and other buckets add in another order: a resumed
        process must be past that before it computes anything that counts. The caller loads the state afterwards.
        """
        for _ in range(2):
            self._backward(batch)
        self.optimizer.zero_grad(set_to_none=True)

    def align(self) -> None:
        """Give every rank the buffers of rank 0; the synchronised batch norms' are equal already."""
        for buffer in self.model.buffers():
            self.mesh.from_first(buffer)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, copied to the CPU."""
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.model.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over a model's tensors."""
        self.model.load_state_dict(weights)
