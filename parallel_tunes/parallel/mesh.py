"""Ranks, device and collectives: the one file that reads torchrun's environment and talks to torch.distributed."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import psutil

from parallel_tunes.parallel import slurm
from parallel_tunes.parallel.errors import LOST, OutOfMemory, RankLost, is_out_of_memory
from parallel_tunes.parallel.processor import take_cores
from parallel_tunes.parallel.signs import Signs, kill_stopped_siblings, stopped_siblings
from parallel_tunes.parallel.waiting import HEED_S, Meeting, finish, leave
from parallel_tunes.schema import UserError

if TYPE_CHECKING:
    import torch

    from parallel_tunes.parallel.near import NearSum

Value = TypeVar("Value")


class Mesh:
    """All ranks of this job, and the one that this process is. A world of one needs no torch until it has a device."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.launch = os.environ.get("TORCHELASTIC_RUN_ID")  # the same after torchrun has started the ranks again
        self.misses_gpu = False  # Slurm gave one, torch sees none
        self._device: torch.device | None = None
        self._signs: Signs | None = None
        self._near: NearSum | None = None
        self._has_lost = False  # another rank
        self._is_apart = False  # from the ranks of its process group

    def check(self) -> None:
        """Refuse a world other than the one that was asked for: ranks that train alone would all write one run.

        Raises:
            UserError: too few ranks met, or srun started several processes without torchrun.
        """
        lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if self.world_size > 1 and name not in os.environ]
        if lacking:
            raise UserError(
                f"WORLD_SIZE={self.world_size} is set, but no {lacking[0]}: unset RANK and WORLD_SIZE, or use hpc/torchrun.sh"
            )
        wanted = int(os.environ.get("PT_NUM_RANKS", self.world_size))
        if self.world_size != wanted:
            raise UserError(f"{self.world_size} ranks met where {wanted} were to: see what torchrun says above")
        if "WORLD_SIZE" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            raise UserError(
                "srun has started several processes that know nothing of each other: use slurm/train.sbatch"
            )

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that writes and speaks."""
        return self.rank == 0

    @property
    def started(self) -> float:
        """When this job was started, seconds since 1970: torchrun's start under torchrun, so that its restarts agree."""
        process = psutil.Process(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else os.getpid())
        return float(process.create_time())

    @property
    def device(self) -> torch.device:
        """The device of this rank; `start` chooses it."""
        assert self._device is not None, "Mesh.start comes first"
        return self._device

    @property
    def device_name(self) -> str:
        """What the device is, for the report."""
        if self._device is None:
            return "cpu"
        import torch

        if self._device.type == "cpu":
            num_threads = torch.get_num_threads()
            return f"cpu ({num_threads} thread{'s' if num_threads > 1 else ''} a rank)"
        return torch.cuda.get_device_name(self._device)

    @property
    def peak_memory_mib(self) -> float:
        """This rank's peak: of GPU memory on a GPU, of resident memory on a CPU, MiB."""
        if self._device is not None and self._device.type == "cuda":
            import torch

            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def start(
        self, device: str, timeout_s: float, *, ddp: str = "auto", is_stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """Choose the device (`auto`, `cpu` or `cuda`) and, in a larger world, meet the other ranks.

        Args:
            ddp: always: a world of one too has its collectives, and DistributedDataParallel.
            is_stopped: whether a signal has told this process to stop, where it does not raise KeyboardInterrupt.

        Raises:
            UserError: a GPU is asked for and there is none for this rank.
            RankLost: not all of them have come within `timeout_s`.
        """
        import torch

        num_gpus = torch.cuda.device_count()
        if device == "cuda" and num_gpus == 0:
            raise UserError("device=cuda: no GPU is seen here; use device=cpu or auto")
        if device == "auto":
            device = "cuda" if num_gpus else "cpu"
            self.misses_gpu = not num_gpus and os.environ.get("SLURM_GPUS_ON_NODE", "0") != "0"
        if device == "cuda" and self.local_world_size > num_gpus:
            raise UserError(f"{self.local_world_size} ranks for {num_gpus} GPUs: one rank a GPU, or train.device=cpu")
        self._device = torch.device(device, self.local_rank) if device == "cuda" else torch.device("cpu")
        if device == "cuda":
            torch.cuda.set_device(self._device)
        has_cores = device == "cpu" and take_cores(self.local_rank, self.local_world_size, torch.get_num_threads())
        # CPU tensors always go through gloo: flags and sums need no GPU synchronisation
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        if self.world_size > 1:
            import torch.distributed as dist

            from parallel_tunes.parallel.near import meet

            if "GLOO_SOCKET_IFNAME" not in os.environ and self.local_world_size < self.world_size:
                os.environ["GLOO_SOCKET_IFNAME"] = slurm.interface_towards(os.environ["MASTER_ADDR"])
            host = os.environ["MASTER_ADDR"] if self.local_world_size < self.world_size else "127.0.0.1"
            signs = Signs(self.rank, slurm.address_towards(host), timeout_s, self._give_up)
            try:
                store = self._meet(timeout_s, is_stopped)
                place = {"rank": self.rank, "world_size": self.world_size, "store": store}
                dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s), **place)
                signs.begin(self.gather((signs.address, signs.place)))
            except RuntimeError as error:
                raise self._explain_absence(error, timeout_s) from error
            self._signs = signs
            if self.local_world_size == self.world_size:
                self._near = meet(self, has_cores, timeout_s)
        elif ddp == "always":
            import torch.distributed as dist

            # with no other rank there is nobody to meet, so no port to open: the documented store for that, which the stubs leave out
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]

    def _meet(self, timeout_s: float, is_stopped: Callable[[], bool]) -> Any:
        """The store in which all ranks have met."""
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        is_host = self.is_first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # ranks that torchrun has started again meet anew

        def connect() -> Any:
            from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined] # documented, not in the stubs

            timeout = timedelta(seconds=timeout_s)
            return PrefixStore(f"ranks/{attempt}", TCPStore(host, port, None, is_host, timeout, wait_for_workers=False))

        advice = "" if self.launch else "; unset RANK and WORLD_SIZE if no launcher has set them"
        meeting = Meeting(self.rank, self.world_size, connect, f"{host}:{port}{advice}", timeout_s)
        return meeting.hold(is_stopped)

    def _give_up(self, text: str) -> None:
        """End this process, which was told to stop and waits for ranks that do not answer."""
        kill_stopped_siblings("RANK")  # they heed no signal
        leave(text)

    def stop(self) -> None:
        """Leave the other ranks. Those that are stopped are killed if this one is lost without them."""
        if self._signs:
            self._signs.end()
        if self._has_lost and self.launch:
            kill_stopped_siblings("RANK")  # they heed no SIGTERM: torchrun would do it itself, after half a minute
        if self.in_company:
            import torch.distributed as dist

            dist.destroy_process_group()

    def explain(self, error: Exception) -> Exception:
        """An error of a collective whose other end is gone as a RankLost, want of memory as what to do; any other as it is."""
        if is_out_of_memory(error):
            return self._leave(error)
        reasons = [words for words in LOST if words in str(error)]
        if self._signs is None or not isinstance(error, RuntimeError) or not reasons:
            return error
        missing, is_to_say = self._signs.find_missing()
        unknown = f"rank {self.rank} cannot go on: another rank has died or does not answer ({reasons[0]})"
        lost = self._lose("; ".join(missing) or unknown, is_to_say)
        lost.__cause__ = error
        return lost

    def apart(self) -> Mesh:
        """This rank as a world of one, on the same device."""
        one = Mesh()
        one.rank, one.world_size, one._device, one._is_apart = 0, 1, self._device, True
        return one

    def _leave(self, error: Exception) -> Exception:
        """What to raise where this rank alone cannot go on, for want of memory: it says so, and the others lose it."""
        text = f"out of memory on {self.device_name}: take a smaller batch or model, or ask for more memory"
        if self._signs is None:
            explained: Exception = OutOfMemory(text, self.peak_memory_mib)
        else:
            self._signs.claim()
            explained = self._lose(f"rank {self.rank}: {text}", is_to_say=True)
        explained.__cause__ = error
        return explained

    def _lose(self, text: str, is_to_say: bool) -> RankLost:
        self._has_lost = True
        if is_to_say:  # at once: when the first rank has ended, torchrun ends the others
            print(f"ptunes: {text}", file=sys.stderr, flush=True)
        return RankLost(text)

    def _explain_absence(self, error: Exception, timeout_s: float) -> RankLost:
        stopped = [f"{place} is stopped" for place in stopped_siblings("RANK")]
        reason = "; ".join(stopped) or str(error).partition("\n")[0]
        text = f"not all {self.world_size} ranks have met within parallel.timeout_s={timeout_s:g}: {reason}"
        return self._lose(text, bool(stopped) or self.local_rank == 0)

    def wait(self, most_s: float = math.inf) -> None:
        """Until all ranks are here, or for so long."""
        if self.in_company:
            import torch
            import torch.distributed as dist

            finish(dist.all_reduce(torch.zeros(1), async_op=True), most_s)  # of a CPU tensor: GPUs need not wait

    def wait_for_first(self) -> None:
        """Until rank 0 is here, which may take hours: for as long as it shows signs of life.

        Raises:
            RuntimeError: it has died or does not answer.
        """
        import torch
        import torch.distributed as dist

        patient = dist.new_group(timeout=timedelta(days=365), backend="gloo")
        arrival = dist.all_reduce(torch.zeros(1), group=patient, async_op=True)
        while not arrival.is_completed():
            finish(arrival, HEED_S)
            if self._signs and self._signs.is_silent(0):
                raise RuntimeError(f"rank 0: {LOST[3]}")
        arrival.wait()  # raises what it has failed of

    @property
    def in_company(self) -> bool:
        """Whether there are collectives to take part in, if only with itself; `start` begins them."""
        if self._is_apart or "torch.distributed" not in sys.modules:
            return False
        import torch.distributed as dist

        return dist.is_initialized()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of `tensor` over all ranks, on every rank; in place."""
        if self._near and self._near.fits(tensor):
            self._near.sum(tensor)
        elif self.in_company:
            import torch.distributed as dist

            finish(dist.all_reduce(tensor, async_op=True))
        return tensor

    def from_first(self, tensor: torch.Tensor) -> None:
        """Overwrite `tensor` with that of rank 0."""
        if self.in_company:
            import torch.distributed as dist

            finish(dist.broadcast(tensor, src=0, async_op=True))

    def agree(self, *flags: bool) -> list[bool]:
        """Whether each flag is set on any rank; the same answers on every rank."""
        if not self.in_company:
            return list(flags)
        import torch

        return [bool(count) for count in self.sum(torch.tensor(flags, dtype=torch.int64)).tolist()]

    def largest(self, value: float) -> float:
        """The largest `value` of all ranks, on every rank."""
        if not self.in_company:
            return value
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(value, dtype=torch.float64)
        finish(dist.all_reduce(tensor, op=dist.ReduceOp.MAX, async_op=True))
        return float(tensor.item())

    def gather(self, value: Value) -> list[Value]:
        """The `value` of every rank, in their order, on every rank."""
        if not self.in_company:
            return [value]
        import torch.distributed as dist

        self.wait()  # torch's own waits hear no signals
        values: list[Value | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return cast(list[Value], values)

    def on_first(self, act: Callable[[], Value], *, is_long: bool = False) -> Value:
        """What `act` returns on rank 0, or the UserError it raises there, on every rank.

        Args:
            is_long: it may take longer than ranks wait for each other.
        """
        if not self.in_company:
            return act()
        import torch.distributed as dist

        outcome: list[object] = [None, None]
        if self.is_first:
            try:
                outcome[0] = act()
            except (UserError, KeyboardInterrupt) as error:
                outcome[1] = error
        if is_long:
            self.wait_for_first()
        else:
            self.wait()  # torch's own waits hear no signals
        dist.broadcast_object_list(outcome, src=0)
        if isinstance(outcome[1], BaseException):
            raise outcome[1]
        return cast(Value, outcome[0])

    def data_parallel(self, model: torch.nn.Module, *, is_static: bool = True) -> torch.nn.Module:
        """`model`, its gradients averaged over the ranks.

        Args:
            is_static: whether every pass goes through the same layers and ends with the averaging.
        """
        if not self.in_company:
            return model
        from torch.nn.parallel import DistributedDataParallel

        devices = [self.device] if self.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True, static_graph=is_static)
        model.broadcast_buffers = False  # equal at the start, they stay so; the argument of this name is deprecated
        return model

    def alone(self, model: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within the block, gradients of a `data_parallel` model add up on each rank; the first pass after it averages them."""
        if not self.in_company:
            return contextlib.nullcontext()
        from torch.nn.parallel import DistributedDataParallel

        assert isinstance(model, DistributedDataParallel)
        return cast("contextlib.AbstractContextManager[None]", model.no_sync())
