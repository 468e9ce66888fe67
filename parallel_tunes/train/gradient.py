"""Learning by gradient descent: one torch model, its optimizer and schedule, DDP and mixed precision."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.config_train import AugmentConfig, TrainConfig
from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.parallel.batch_norm import synchronise, weigh
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train import augment
from parallel_tunes.train.learner import Batch, Inputs, Sums, Waveforms
from parallel_tunes.train.norm_pool import fuse
from parallel_tunes.train.profile import MarkedRanks, mark
from parallel_tunes.train.stem import fuse_stem

AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto` as `bf16` where the hardware multiplies it natively, else `fp16` on GPUs and `fp32` on CPUs; other words as they are.

    Raises:
        UserError: fp16 is wanted of a CPU.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise UserError("train.precision=fp16: needs a GPU; on a CPU take bf16 or fp32")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    abilities = torch.cpu.get_capabilities()
    return "bf16" if abilities.get("amx_bf16") or abilities.get("avx512_bf16") else "fp32"


def scale_lr(cfg: TrainConfig, batch: int) -> float:
    """The highest learning rate: train.lr, scaled with the batch linearly (Goyal et al. 2017) or by its square root."""
    ratio = batch / cfg.lr_batch
    return cfg.lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[cfg.lr_rule]


def check_compiler(device: torch.device) -> None:
    """Raise a UserError where torch.compile finds no compiler for this device."""
    if device.type == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise UserError("train.compile=true: no C++ compiler is here (g++ or clang++); install one or leave it out")


class Frozen:
    """A model that only answers: what judges and serves.

    Args:
        model: takes (batch, 1, num_mels, num_frames), gives logits (batch, num_classes).
        mean_db, deviation_db: the training split's statistics; inputs are standardised by them.
        log_mel: what the spectrograms are made with; needed where inputs are waveforms.
        dtype: of its parameters.
        fused: whether layers are fused, where that is faster.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, *,
        mean_db: float, deviation_db: float, log_mel: LogMel | None = None,
        dtype: torch.dtype = torch.float32, fused: bool = True,
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
        self.mean_db, self.deviation_db = mean_db, deviation_db

    def standardise(self, inputs: Inputs) -> Tensor:
        """dB, shape (num, num_mels, num_frames), or waveforms → (num, 1, num_mels, num_frames) on the device."""
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
        return F.softmax(self.model(self.standardise(inputs)), 1).cpu()


class GradientLearner(Frozen):
    """A model trained with AdamW (Loshchilov & Hutter 2019) under a linear warm-up and a cosine to zero.

    Args:
        total_steps: length of the schedule.
        lr: its highest learning rate.
        augmentation: of the batches; by default none.
        norm: sync: batch norms normalise over the batches of all ranks; otherwise each rank over its own.
        model, mean_db, deviation_db, log_mel: as for `Frozen`.

    Raises:
        UserError: the device has no such precision, or no compiler.
    """

    def __init__(
        self, model: nn.Module, cfg: TrainConfig, mesh: Mesh, *, mean_db: float, deviation_db: float, total_steps: int, lr: float,
        augmentation: AugmentConfig | None = None, norm: str = "sync", log_mel: LogMel | None = None,
    ) -> None:  # fmt: skip
        self.precision = choose_precision(cfg.precision, mesh.device)
        if cfg.compile:
            check_compiler(mesh.device)
        super().__init__(
            model, mesh.device, mean_db=mean_db, deviation_db=deviation_db, log_mel=log_mel,
            dtype=torch.float64 if self.precision == "fp64" else torch.float32, fused=not cfg.compile,
        )  # fmt: skip
        self.ranks = MarkedRanks(mesh)
        if norm == "sync" and mesh.world_size > 1:
            synchronise(self.model, mesh if cfg.compile else self.ranks)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
        # a static graph may be told from the first pass alone only where every pass synchronises
        self.parallel = mesh.data_parallel(self.model, is_static=cfg.accumulate == 1 and not cfg.compile)
        how = "reduce-overhead" if self.device.type == "cuda" else "default"  # the former by CUDA graphs
        self.forward = torch.compile(self.parallel, mode=how) if cfg.compile else self.parallel
        self.mesh, self.cfg, self.augmentation, self.total_steps = mesh, cfg, augmentation, total_steps
        self.lr = lr
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]  # biases and norms are not decayed
        groups = [{"params": matrices, "weight_decay": cfg.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training."""
        warmup = max(round(self.cfg.warmup * self.total_steps), 1)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        done = min((step - warmup) / max(self.total_steps - warmup, 1), 1.0)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))

    def _forward(self, batch: Batch) -> tuple[Tensor, Sums]:
        self.parallel.train()
        weigh(self.model, batch.weights)
        with mark("host_to_device"):
            parts = (batch.targets, batch.weights, batch.keys, batch.marks)
            targets, weights, keys, marks = (part.to(self.device, non_blocking=True) for part in parts)
        for layer in self.model.modules():
            if isinstance(layer, KeyedDropout):
                layer.keys = keys
        inputs = self.standardise(batch.inputs)
        mixed = batch.mixed
        if mixed:
            shares = mixed.shares.to(self.device, non_blocking=True)
            inputs = augment.mix(inputs, self.standardise(mixed.inputs), shares)
        if self.augmentation:
            inputs = augment.mask(inputs, keys, self.augmentation)
        amp = AMP.get(self.precision)
        with torch.autocast(self.device.type, amp) if amp else contextlib.nullcontext():
            logits = self.forward(inputs)
        logits = logits if self.precision == "fp64" else logits.float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        if mixed:
            others = F.cross_entropy(logits, mixed.targets.to(self.device, non_blocking=True), reduction="none")
            losses = torch.lerp(others, losses, shares.to(losses.dtype))
        # DDP averages the ranks' gradients; the mean wanted is over samples, of which ranks may have unequal numbers
        loss = torch.dot(losses, weights.to(losses.dtype)) * (self.mesh.world_size / batch.num_global)
        sums = Sums.of(losses.detach(), logits.detach().argmax(1) == targets, weights, marks)
        return self.scaler.scale(loss), sums

    def _backward(self, batch: Batch) -> Sums:
        with mark("forward"):
            loss, sums = self._forward(batch)
        with mark("backward"):
            torch.autograd.backward(loss)
        return sums

    def step(self, batch: Batch, step: int, *, is_shared: bool = True) -> Sums:
        """One optimizer step on this rank's part of a global batch; sums over that part."""
        self.optimizer.zero_grad(set_to_none=True)
        *parts, last = batch.split(self.cfg.accumulate, self.mesh.world_size)
        with self.mesh.alone(self.parallel):
            before = [self._backward(part) for part in parts]
        with contextlib.nullcontext() if is_shared else self.mesh.alone(self.parallel):
            sums = self._backward(last)
        for part_sums in before:
            sums += part_sums
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        with mark("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return sums

    def gradient(self, batch: Batch) -> Tensor:
        """This rank's gradient of a batch's loss, flat, as DDP would take it in: its mean over the ranks is that of the whole."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.mesh.alone(self.parallel):
            self._backward(batch)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.model.parameters()]
        self.optimizer.zero_grad(set_to_none=True)
        return torch.cat([part.flatten() for part in parts]) / self.scaler.get_scale()

    def waited_s(self) -> float:
        """Seconds that the passes so far have waited for other ranks, gradients aside."""
        return self.ranks.waited_s

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

    def is_finite(self) -> bool:
        """Whether all parameters are numbers."""
        return bool(nn.utils.get_total_norm(self.model.parameters(), torch.inf).isfinite())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, copied to the CPU."""
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.model.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over a model's tensors."""
        self.model.load_state_dict(weights)
