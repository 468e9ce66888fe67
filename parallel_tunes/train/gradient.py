"""Learning by gradient descent: one torch model, its optimizer and schedule, DDP and mixed precision."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.config_train import TrainConfig
from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.models.residual_cnn import EPSILON, average_branches, find_texture
from parallel_tunes.parallel.batch_norm import synchronise, weigh
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import UserError
from parallel_tunes.train import augment
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.learner import Batch, Sums
from parallel_tunes.train.profile import MarkedRanks, mark

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


def learning_rate(cfg: TrainConfig, highest: float, step: int, total_steps: int) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up, then a cosine to zero, or under plateau the highest."""
    warmup = max(round(cfg.warmup * total_steps), 1)
    if step < warmup:
        return highest * (step + 1) / warmup
    if cfg.schedule == "plateau":
        return highest
    done = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    return highest * 0.5 * (1 + math.cos(math.pi * done))


def check_compiler(device: torch.device) -> None:
    """Raise a UserError where torch.compile finds no compiler for this device."""
    if device.type == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        raise UserError("train.compile=true: no C++ compiler is here (g++ or clang++); install one or leave it out")


class GradientLearner(Frozen):
    """A model trained with AdamW (Loshchilov & Hutter 2019) under train.schedule.

    Args:
        total_steps: length of the schedule.
        lr: its highest learning rate.
        augmentation: of the batches; by default none.
        norm: sync: batch norms normalise over the batches of all ranks; otherwise each rank over its own.
        model, mean_db, deviation_db, log_mel, multi_label: as for `Frozen`.

    Raises:
        UserError: the device has no such precision, or no compiler.
    """

    def __init__(
        self, model: nn.Module, cfg: TrainConfig, mesh: Mesh, *, mean_db: float, deviation_db: float, total_steps: int, lr: float,
        augmentation: augment.Augmentation | None = None, norm: str = "sync", log_mel: LogMel | None = None,
        multi_label: bool = False,
    ) -> None:  # fmt: skip
        self.precision = choose_precision(cfg.precision, mesh.device)
        if cfg.compile:
            check_compiler(mesh.device)
        super().__init__(
            model, mesh.device, mean_db=mean_db, deviation_db=deviation_db, log_mel=log_mel,
            dtype=torch.float64 if self.precision == "fp64" else torch.float32, fused=not cfg.compile, multi_label=multi_label,
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
        self.lr, self.lr_factor = lr, 1.0
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self.texture = find_texture(self.model)
        own = list(self.texture.parameters()) if self.texture else []
        others = [p for p in self.model.parameters() if all(p is not each for each in own)]
        matrices = [p for p in others if p.ndim > 1]
        vectors = [p for p in others if p.ndim <= 1]  # biases and norms are not decayed
        groups = [{"params": matrices, "weight_decay": cfg.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        groups += [{"params": own, "weight_decay": 0.0, "eps": EPSILON}] if own else []
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, fused=True)
        # batch norms' statistics too: they are those of the weights beside them
        if cfg.ema:
            self.averaged = {name: each.detach().clone() for name, each in self._tensors()}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over the whole training."""
        return self.lr_factor * learning_rate(self.cfg, self.lr, step, self.total_steps)

    def _alter(self, levels: Tensor, keys: Tensor) -> Tensor:
        return self.augmentation.alter(levels, keys) if self.augmentation else levels

    def judge_logits(self, logits: Tensor, targets: Tensor, smoothing: float | None = None) -> Tensor:
        """The loss of each sample, (num,): cross-entropy, or of several labels a sample their mean binary cross-entropy."""
        smoothing = self.cfg.label_smoothing if smoothing is None else smoothing
        if self.multi_label:  # what label smoothing spreads, it spreads over yes and no
            spread = torch.lerp(targets.to(logits.dtype), torch.full_like(logits, 0.5), smoothing)
            return F.binary_cross_entropy_with_logits(logits, spread, reduction="none").mean(1)
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)

    def find_right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Which samples are labelled rightly, (num,), bool: of several labels a sample all of them, at one half."""
        return ((logits > 0) == (targets > 0)).all(1) if self.multi_label else logits.argmax(1) == targets

    def _forward(self, batch: Batch) -> tuple[Tensor, Sums]:
        self.parallel.train()
        weigh(self.model, batch.weights)
        with mark("host_to_device"):
            parts = (batch.targets, batch.weights, batch.keys, batch.marks)
            targets, weights, keys, marks = (part.to(self.device, non_blocking=True) for part in parts)
        for layer in self.model.modules():
            if isinstance(layer, KeyedDropout):
                layer.keys = keys
        whole = self.standardise(batch.inputs)
        inputs, mixed = self._alter(whole, keys), batch.mixed
        if mixed:
            shares = mixed.shares.to(self.device, non_blocking=True)
            others = self._alter(self.standardise(mixed.inputs), mixed.keys.to(self.device, non_blocking=True))
            inputs = augment.mix(inputs, others, shares)
        if self.augmentation:
            inputs = self.augmentation.mask(inputs, keys)
        # statistics are of the sample as it is: to read between frames smooths, and makes other statistics than those judged
        views = (inputs, whole) if self.texture else (inputs,)
        amp = AMP.get(self.precision)
        with torch.autocast(self.device.type, amp) if amp else contextlib.nullcontext():
            logits = self.forward(*views)
        logits = logits if self.precision == "fp64" else logits.float()
        network = logits[:, 0] if self.texture else logits
        losses = self.judge_logits(network, targets)
        if mixed:
            of_others = self.judge_logits(network, mixed.targets.to(self.device, non_blocking=True))
            losses = torch.lerp(of_others, losses, shares.to(losses.dtype))
        if self.texture:  # learns alone, of its own label
            losses = (losses + self.judge_logits(logits[:, 1], targets, smoothing=0.0)) / 2
        # DDP averages the ranks' gradients; the mean wanted is over samples, of which ranks may have unequal numbers
        loss = torch.dot(losses, weights.to(losses.dtype)) * (self.mesh.world_size / batch.num_global)
        answer = average_branches(logits.detach()) if self.texture else logits.detach()
        sums = Sums.of(losses.detach(), self.find_right(answer, targets), weights, marks)
        return self.scaler.scale(loss), sums

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and statistics, without counts."""
        return ((name, each) for name, each in self.model.state_dict().items() if each.is_floating_point())

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """The moving average (Polyak & Juditsky 1992), shorter at first, while the weights are still far from where they go."""
        assert self.averaged is not None
        decay = min(self.cfg.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.values()), [each for _, each in self._tensors()], 1 - decay)

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
        if self.cfg.ema:
            self._average(step)
        return sums

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
        for name, buffer in self.model.named_buffers():
            self.mesh.from_first(buffer)
            if self.averaged is not None and name in self.averaged:
                self.mesh.from_first(self.averaged[name])

    def is_finite(self) -> bool:
        """Whether all parameters are numbers."""
        return bool(nn.utils.get_total_norm(self.model.parameters(), torch.inf).isfinite())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **({"averaged": self.averaged} if self.averaged is not None else {}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, each in (self.averaged or {}).items():
            each.copy_(state["averaged"][name])

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, copied to the CPU."""
        tensors = self.model.state_dict() | (self.averaged or {})
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over a model's tensors."""
        self.model.load_state_dict(weights)
        for name, each in (self.averaged or {}).items():
            each.copy_(weights[name])
