"""Batch normalisation (Ioffe & Szegedy 2015) over the global batch; torch.nn.SyncBatchNorm takes no CPU tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Ranks(Protocol):
    """What is asked of a Mesh."""

    rank: int
    world_size: int

    def sum(self, tensor: Tensor) -> Tensor: ...


class Alone:
    """A world of one."""

    rank, world_size = 0, 1

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` itself."""
        return tensor


ALONE = Alone()


def synchronise(model: nn.Module, ranks: Ranks) -> nn.Module:
    """`model`, each nn.BatchNorm2d in it replaced, in place, by one over all ranks: same parameters, buffers and names."""
    if isinstance(model, SyncBatchNorm2d):
        model.ranks = ranks
        return model
    if isinstance(model, nn.modules.batchnorm._BatchNorm):
        if type(model) is not nn.BatchNorm2d or not (model.affine and model.track_running_stats):
            raise TypeError(f"{model}: only an affine BatchNorm2d with running statistics can be synchronised")
        return SyncBatchNorm2d(model, ranks)
    for name, child in model.named_children():
        setattr(model, name, synchronise(child, ranks))
    return model


def weigh(model: nn.Module, weights: Tensor) -> None:
    """Keep the samples of weight 0 out of the statistics, until weighed anew; `weights` (num,), on the CPU."""
    for module in model.modules():
        if isinstance(module, SyncBatchNorm2d):
            module.counted = None if bool((weights > 0).all()) else weights > 0


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`norm`, its training statistics those of all ranks, which must all take part; in eval mode it is the same.

    Shapes:
        input and output (num, num_channels, height, width); parameters and statistics (num_channels,).
    """

    counted: Tensor | None = None  # (num,), bool: the samples that enter the statistics; None: all
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm2d, ranks: Ranks) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, device="meta")
        for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
            setattr(self, name, tensor)
        self.training, self.ranks = norm.training, ranks

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        count, mean, variance = statistics(input.detach(), self.counted, self.ranks)
        self.keep(count, mean, variance)
        dtype = torch.promote_types(input.dtype, torch.float32)
        facts = (count, mean.to(dtype), variance.to(dtype), self.counted, self.eps, self.ranks)
        normalise: Callable[..., Tensor] = _Normalise.apply  # torch leaves it without types
        return normalise(input, self.weight, self.bias, *facts)

    def keep(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Let a batch's statistics enter the running ones."""
        self.num_batches_tracked.add_(1)
        part = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), part)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), part)


def statistics(inputs: Tensor, counted: Tensor | None, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values (1,), means and biased variances (num_channels,) over the counted samples of all ranks, float64.

    `inputs` (num, num_channels, height, width).
    """
    inputs = inputs if counted is None else inputs[counted]
    width, dtype = inputs.shape[1], torch.promote_types(inputs.dtype, torch.float32)
    count, mean, squares = 0, inputs.new_zeros(width, dtype=torch.float64), inputs.new_zeros(width, dtype=torch.float64)
    if len(inputs):
        count, unused = inputs.numel() // width, inputs.new_zeros(2, width, dtype=dtype)
        mean, variance = torch.batch_norm_update_stats(inputs, unused[0], unused[1], 0.0)
        mean, squares = mean.double(), variance.double() * count
    return combine(count, mean, squares, ranks)


def combine(count: int, mean: Tensor, squares: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Number of values (1,), mean and biased variance (num_channels,) over all ranks, of each rank's count, means and sums
    of squared deviations, all float64. Each rank combines them (Chan, Golub & LeVeque 1979) in the same order: to the same bits.
    """
    width = len(mean)
    rows = _gather(torch.cat([mean.new_full((1,), count), mean, squares]), ranks)
    counts, means, all_squares = torch.split(rows, [1, width, width], 1)
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    return total, mean, (all_squares + counts * (means - mean) ** 2).sum(0) / total


def sum_in_order(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum of `values` over all ranks, added in their order: the same bits whatever brings them together."""
    return _gather(values, ranks).sum(0)


def _gather(values: Tensor, ranks: Ranks) -> Tensor:
    """Those of each rank, (world_size, …): a sum to which each adds zeros for the others."""
    rows = values.new_zeros(ranks.world_size, *values.shape)
    rows[ranks.rank] = values
    return ranks.sum(rows)


class _Normalise(torch.autograd.Function):
    """weight · x̂ + bias, x̂ = (x - mean) / √(variance + eps), where mean and variance depend on the x of all ranks.

    dx, of the sum of all ranks' losses, is weight / √(variance + eps) · (dy - (Σdy + x̂ Σ(dy x̂)) / count), Σ over all ranks;
    without the fraction for a sample not counted. The gradients of weight and bias are this rank's part, as those of all
    parameters: DDP adds them up, and divides by the world size, by which the learner multiplies its loss.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, *facts: Any) -> Tensor:
        count, mean, variance, counted, ctx.eps, ctx.ranks = facts
        ctx.save_for_backward(x, weight, count, mean, variance, counted)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, ctx.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, count, mean, variance, counted = ctx.saved_tensors
        is_last = x.is_contiguous(memory_format=torch.channels_last)
        dy = dy.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)
        scale = torch.rsqrt(variance + ctx.eps)
        add_up = torch.ops.aten.native_batch_norm_backward  # dy x̂ and dy over this rank
        _, dweight, dbias = add_up(dy, x, weight, None, None, mean, scale, True, ctx.eps, [False, True, True])
        sums = sum_in_order(torch.stack([dweight * scale, dbias]).double(), ctx.ranks)
        slope, shift = (sums * (weight * scale / count)).to(mean.dtype)
        slope = slope.to(x.dtype)
        # with only one new tensor: on a CPU its page faults cost more than the arithmetic
        dx = F.batch_norm(dy, torch.zeros_like(mean), variance, weight, slope * mean - shift, False, 0.0, ctx.eps)
        dx.addcmul_(x, slope.view(1, -1, 1, 1), value=-1)
        if counted is not None:
            dx[~counted] = (dy[~counted] * (weight * scale).view(1, -1, 1, 1)).to(dx.dtype)
        return dx, dweight, dbias, *[None] * 6
