"""What augmentation makes of a crop, to be looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from parallel_tunes.config import TrainJob
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.tasks.planning import Plan
from parallel_tunes.train import augment
from parallel_tunes.train.augment import OFF
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.learner import Batch


def alter_crop(cfg: TrainJob, made: Plan, mesh: Mesh) -> dict[str, NDArray[np.float32]]:
    """A crop of the first epoch under each augmentation that is on, alone, and under all of them; none where none is on.

    Returns:
        By name, dB, shape (num_mels, num_frames).
    """
    names = augment.list_on(cfg.augment)
    if not names:
        return {}
    source = made.source(cfg, mesh.apart(), batch=2, seed=cfg.train.seeds[0])
    batch = next(source.train(0, 0)).repeat(1)
    frozen = Frozen(nn.Identity(), mesh.device, log_mel=source.log_mel, **made.facts["standardise"])
    none = replace(cfg, augment=replace(cfg.augment, without=None, **{key: 0 for keys in OFF.values() for key in keys}))
    shown = {"as it is": none.augment}
    for name in names:
        own: dict[str, Any] = {key: getattr(cfg.augment, key) for key in OFF[name]}
        shown[name] = replace(none.augment, **own)
    shown["all together"] = cfg.augment
    mean_db, deviation_db = made.facts["standardise"]["mean_db"], made.facts["standardise"]["deviation_db"]
    return {
        name: (_alter(batch, chosen, made, frozen)[0, 0] * deviation_db + mean_db).float().cpu().numpy()
        for name, chosen in shown.items()
    }


def _alter(batch: Batch, cfg: Any, made: Plan, frozen: Frozen) -> Tensor:
    augmentation = made.augmentation(cfg)
    keys = batch.keys.to(frozen.device)

    def alter(inputs: Any, keys: Tensor) -> Tensor:
        return augmentation.alter(frozen.standardise(inputs), keys)

    levels = alter(batch.inputs, keys)
    if batch.mixed and augment.settle(cfg).mixup:
        others = alter(batch.mixed.inputs, batch.mixed.keys.to(frozen.device))
        levels = augment.mix(levels, others, batch.mixed.shares.to(frozen.device))
    return augmentation.mask(levels, keys)
