"""torchrun … delayed.py FOLDER: the workshop's training, plain, timed, and timed with a slower all-reduce of gradients."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch.nn.parallel import DistributedDataParallel

from parallel_tunes import session
from parallel_tunes.config import TrainJob
from parallel_tunes.jobs import JOBS
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build

DELAY_S = 0.3  # other tests at work move a step by some milliseconds


class SlowMesh(Mesh):
    """Ranks whose gradients take longer to come together."""

    delay_s = 0.0

    def data_parallel(self, model: torch.nn.Module, *, is_static: bool = True) -> torch.nn.Module:
        parallel = super().data_parallel(model, is_static=is_static)
        assert isinstance(parallel, DistributedDataParallel)
        # a lambda, since DDP looks at a hook's annotations, and torch's stubs leave out the class it wants to see there
        parallel.register_comm_hook(None, lambda state, bucket: self.reduce(bucket))
        return parallel

    def reduce(self, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        if bucket.is_last():
            time.sleep(self.delay_s)
        work = dist.all_reduce(bucket.buffer().div_(self.world_size), async_op=True)
        assert work is not None
        reduced: torch.futures.Future[torch.Tensor] = work.get_future().then(lambda done: done.value()[0])
        return reduced


def train(folder: Path) -> None:
    """In the workshop, where this process is."""
    tree = yaml.safe_load(Path("logs/train/tiny/config.yaml").read_text())
    del tree["job"]
    mesh = SlowMesh()
    mesh.start("cpu", 60)
    for name, timing, delay_s in (("plain", 0, 0.0), ("timed", 5, 0.0), ("slow", 5, DELAY_S)):
        mesh.delay_s = delay_s
        tree["train"] |= {"timing": timing, "timing_s": 0.2}
        tree["run"]["dir"] = str(folder / name)
        assert session.run_job("train", JOBS["train"], build(TrainJob, tree), mesh=mesh) == 0
    mesh.stop()


if __name__ == "__main__":
    train(Path(sys.argv[1]))
