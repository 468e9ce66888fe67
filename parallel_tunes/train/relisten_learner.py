"""Learning from listens: Adam for layers, row-wise Adagrad for tables of embeddings, of which a step touches few rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_tunes.models.kernels import take_threads
from parallel_tunes.models.relisten_net import RelistenNet, RelistenSeed
from parallel_tunes.models.rowwise_adagrad import RowwiseAdagrad, split_gradient
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.parallel.sparse import sum_rows
from parallel_tunes.train.gradient import AMP, choose_precision
from parallel_tunes.train.learner import Batch, Inputs, Rows, Sums
from parallel_tunes.train.profile import mark

Model = RelistenNet | RelistenSeed
TABLE_LR = 10.0  # row-wise Adagrad over Adam; it shrinks by itself as rows are met again


class FrozenListens:
    """A model of listens that only answers.

    Args:
        dtype: of its parameters.
    """

    def __init__(self, model: Model, device: torch.device, *, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.device, self.dtype = model.to(device, dtype), device, dtype

    def bring(self, inputs: Inputs) -> Rows:
        """Rows on the device, in the precision of the model."""
        assert isinstance(inputs, Rows), "only listens can be answered"
        here = inputs.to(self.device)
        return Rows(here.codes, here.numbers.to(self.dtype))

    @torch.inference_mode()
    def predict(self, inputs: Inputs) -> Tensor:
        """Probabilities of not listening again and of doing so, (num, 2), on the CPU; always in full precision."""
        rows = self.bring(inputs)
        with self._threads():
            again = torch.sigmoid(self.model(rows.codes, rows.numbers))
        return torch.stack([1 - again, again], 1).cpu()

    def _threads(self) -> contextlib.AbstractContextManager[None]:
        is_compiled = self.device.type == "cpu" and isinstance(self.model, RelistenNet)
        return take_threads() if is_compiled else contextlib.nullcontext()


class RelistenLearner(FrozenListens):
    """A model trained on binary cross-entropy, with Adam (Kingma & Ba 2015) and, for its tables, row-wise Adagrad.

    Args:
        learning_rate: Adam's, of a step counted from 0 over the whole training.
        precision: as train.precision says; `auto` is fp32 on CPUs, whose kernels bf16 does not speed up.
        accumulate: parts of a rank's batch, one after the other in memory.

    Attributes:
        lr_factor: both learning rates are multiplied with it; a schedule that looks at the validation loss sets it.

    Raises:
        UserError: the device has no such precision.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        *,
        learning_rate: Callable[[int], float],
        precision: str = "auto",
        accumulate: int = 1,
    ) -> None:
        is_plain = precision == "auto" and mesh.device.type == "cpu"
        self.precision = "fp32" if is_plain else choose_precision(precision, mesh.device)
        super().__init__(model, mesh.device, dtype=torch.float64 if self.precision == "fp64" else torch.float32)
        self.mesh, self.learning_rate, self.accumulate = mesh, learning_rate, accumulate
        self.lr_factor = 1.0
        self.num_parameters = sum(each.numel() for each in self.model.parameters())
        self.tables = self.model.tables()
        self.layers = [each for each in self.model.parameters() if all(each is not table for table in self.tables)]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(self.layers, fused=True)]
        if self.tables:
            self.optimizers.append(RowwiseAdagrad(self.tables, lr=0.0))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    def _backward(self, batch: Batch) -> Sums:
        rows = self.bring(batch.inputs)
        parts = (batch.targets, batch.weights, batch.marks)
        targets, weights, marks = (part.to(self.device, non_blocking=True) for part in parts)
        labels, shares = targets.to(self.dtype), weights.to(self.dtype) / batch.num_global
        amp = AMP.get(self.precision)
        with mark("forward"), torch.autocast(self.device.type, amp) if amp else contextlib.nullcontext():
            loss, logits = self.model.loss(rows.codes, rows.numbers, labels, shares)
        with mark("backward"):
            torch.autograd.backward(self.scaler.scale(loss))
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return Sums.of(losses, (logits > 0) == (targets > 0), weights, marks)

    def step(self, batch: Batch, step: int, *, is_shared: bool = True) -> Sums:
        """One step of both optimizers on this rank's part of a global batch; sums over that part."""
        self._forget()
        with self._threads():
            sums = Sums()
            for part in batch.split(self.accumulate, self.mesh.world_size):
                sums += self._backward(part)
            if is_shared:
                with mark("all_reduce"):
                    self._sum_gradients()
            rate = self.learning_rate(step) * self.lr_factor
            for optimizer, factor in zip(self.optimizers, (1.0, TABLE_LR), strict=False):
                optimizer.param_groups[0]["lr"] = rate * factor
            with mark("optimizer"):
                for optimizer in self.optimizers:
                    self.scaler.step(optimizer)
                self.scaler.update()
        return sums

    def _sum_gradients(self) -> None:
        """Give every rank the sums of all ranks' gradients; each loss is already a part of the global mean."""
        if not self.mesh.in_company:
            return
        gradients = [_gradient(layer) for layer in self.layers]
        flat = self.mesh.sum(torch.cat([gradient.flatten() for gradient in gradients]).double())
        for layer, part in zip(self.layers, torch.split(flat, [each.numel() for each in self.layers]), strict=True):
            layer.grad = part.view_as(layer).to(layer.dtype)
        for table in self.tables:
            assert table.grad is not None
            rows, values = sum_rows(*split_gradient(table.grad), self.mesh)
            table.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), values, table.shape, check_invariants=False)

    def _forget(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def waited_s(self) -> float:
        """Seconds that the passes have waited for other ranks, gradients aside: none."""
        return 0.0

    def settle(self, batch: Batch) -> None:
        """A pass whose gradient is thrown away: kernels are compiled, memory is taken."""
        with self._threads():
            self._backward(batch)
        self._forget()

    def align(self) -> None:
        """Nothing: ranks keep nothing for themselves."""

    def is_finite(self) -> bool:
        """Whether all parameters are numbers."""
        filled = [each for each in self.model.parameters() if each.numel()]
        return bool(nn.utils.get_total_norm(filled, torch.inf).isfinite())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but for what is known of users and songs, which never changes."""
        return {
            "model": {name: parameter.detach() for name, parameter in self.model.named_parameters()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "lr_factor": self.lr_factor,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(state["model"][name])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.scaler.load_state_dict(state["scaler"])
        self.lr_factor = state["lr_factor"]

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors, what is known of users and songs among them, copied to the CPU."""
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.model.state_dict().items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take over a model's tensors."""
        self.model.load_state_dict(weights)


def _gradient(parameter: Tensor) -> Tensor:
    """A parameter's gradient, dense."""
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
