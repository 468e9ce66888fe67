"""The cells of a scaling study and its launches, and which machine each needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from parallel_tunes.config import ScalingJob
from parallel_tunes.config_run import ResourcesConfig
from parallel_tunes.schema import UserError


@dataclass(frozen=True)
class TrainCell:
    """A training of so many ranks.

    Args:
        batch: the number on the axis: of all GPUs, or in weak scaling of each.
        global_batch: of all GPUs.
        precision: as train.precision takes it.
        ddp: whether gradients go through DistributedDataParallel.
        is_alone: whether the study has no other precision, which need not be named then.
    """

    gpus: int
    batch: int
    global_batch: int
    precision: str
    ddp: bool
    is_alone: bool

    @property
    def name(self) -> str:
        """Of the cell and of its folder."""
        words = f"gpus{self.gpus}-batch{self.batch}" + ("" if self.is_alone else f"-{self.precision}")
        return words + ("-ddp" if self.gpus == 1 and self.ddp else "")

    @property
    def shape(self) -> str:
        """Names what it needs of a cluster."""
        return f"gpus{self.gpus}"


@dataclass(frozen=True)
class PreprocessCell:
    """A preprocessing on so many engines; `engines` None: librosa in one process, as the seed projects did it."""

    engines: int | None
    shard_mib: float | None

    @property
    def name(self) -> str:
        """Of the cell and of its folder."""
        if self.engines is None:
            return "librosa"
        return f"engines{self.engines}" + (f"-shard{self.shard_mib:g}" if self.shard_mib else "")

    @property
    def shape(self) -> str:
        """Names what it needs of a cluster."""
        return f"engines{max(self.engines or 0, 1)}"


Cell = TrainCell | PreprocessCell


@dataclass(frozen=True)
class Launch:
    """One of the independent starts of a cell."""

    cell: Cell
    number: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell.name}, launch {self.number}"


def list_cells(cfg: ScalingJob) -> list[Cell]:
    """The cells that a study asks for.

    Raises:
        UserError: none, or some twice, or a key that a mode needs is missing.
    """
    settings, axes = cfg.scaling, cfg.scaling.axes
    if settings.mode == "target" and settings.target is None:
        raise UserError("scaling.mode=target: give scaling.target, the validation accuracy to reach, 0.8 say")
    for name, values in (("gpus", settings.gpus), ("batch", settings.batch), ("axes.engines", axes.engines)):
        if len(set(values)) < len(values):
            raise UserError(f"scaling.{name}={list(values)}: a number is listed twice")
    if settings.gpus and not settings.batch:
        raise UserError("scaling.batch=[]: the grid is empty; give one batch at least, [64] say")
    precisions = axes.precision or (cfg.train.precision,)
    cells = list[Cell]()
    for precision, batch, gpus in product(precisions, settings.batch, settings.gpus):
        whole = batch * gpus if settings.mode == "weak" else batch
        for ddp in (False, True) if gpus == 1 and settings.ddp_baseline else (gpus > 1,):
            cells.append(TrainCell(gpus, batch, whole, precision, ddp, len(precisions) == 1))
        if whole < gpus:
            raise UserError(f"scaling.batch={batch}: {gpus} ranks want one sample each at least; give a larger one")
    if axes.engines:
        cells += [PreprocessCell(None, None)]
        cells += [
            PreprocessCell(*pair) for pair in product(axes.engines, axes.shard_mib or (cfg.preprocess.shard_mib,))
        ]
    if not cells:
        raise UserError(
            "the grid is empty: give scaling.gpus=[1,2] and scaling.batch=[64], or scaling.axes.engines=[1,2]"
        )
    return cells


def list_launches(cells: Sequence[Cell], num: int, seed: int) -> list[Launch]:
    """All launches, in rounds: each has every cell once, in a random order of its own."""
    orders = (np.random.default_rng([seed, number]).permutation(len(cells)) for number in range(num))
    return [Launch(cells[at], number) for number, order in enumerate(orders) for at in order]


def find_resources(cell: Cell, cfg: ScalingJob) -> ResourcesConfig:
    """What a cell asks Slurm for: as many nodes as its ranks fill, resources.cpus_per_task CPUs for each of them.

    Raises:
        UserError: its ranks fill no whole number of nodes.
    """
    wanted = cfg.resources
    options = f"{wanted.options} --exclusive".strip() if cfg.scaling.exclusive else wanted.options
    common = replace(wanted, options=options, array=None)
    if isinstance(cell, PreprocessCell):
        cpus = max(cell.engines or 1, wanted.cpus_per_task)
        return replace(common, nodes=1, gpus_per_node=0, tasks_per_node=1, cpus_per_task=cpus)
    a_node = min(wanted.gpus_per_node or wanted.tasks_per_node, cell.gpus)
    if cell.gpus % a_node:
        raise UserError(f"scaling.gpus: {cell.gpus} fill no whole number of nodes of {a_node}; choose a multiple")
    nodes = cell.gpus // a_node
    if wanted.gpus_per_node:  # one task a node, torchrun, which has the CPUs of all its ranks
        cpus = a_node * wanted.cpus_per_task
        return replace(common, nodes=nodes, gpus_per_node=a_node, tasks_per_node=1, cpus_per_task=cpus)
    return replace(common, nodes=nodes, tasks_per_node=a_node)


def name_share(cfg: ScalingJob) -> str | None:
    """What the folder of this process's share is called; None if it does the whole."""
    return cfg.scaling.share and f"{cfg.scaling.share}-{os.environ.get('SLURM_ARRAY_TASK_ID', 'all')}"
