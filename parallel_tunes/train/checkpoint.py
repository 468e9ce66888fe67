"""Checkpoints: plain tensors and numbers, written by rename behind the training's back; the newest good one wins."""

from __future__ import annotations

import itertools
import re
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import torch

from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train.disturbance import Disturbance

KEEP = 2


class Writer:
    """Writes the files of checkpoints/, one after the other, while the training goes on.

    A snapshot of the state is taken first: the training may change its tensors at once. It goes into the memory of an
    earlier one that is written, if there is one: new pages cost more than the copy.
    """

    def __init__(self, run: Run, disturbance: Disturbance) -> None:
        self.run, self.disturbance = run, disturbance
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []
        self._written: dict[str, list[Any]] = {"step": [], "best": []}

    def put(self, name: str, state: dict[str, Any]) -> None:
        """Write checkpoints/NAME: flushed to disk, then renamed.

        Raises:
            UserError: an earlier one could not be written.
        """
        if self.run.is_writer:
            failed = any(written.done() and written.exception() for written in self._pending)
            # where the disk is slower than the training, no more than so many in memory
            if failed or len(self._pending) >= KEEP:
                self.wait()
            written = self._written[name.partition("-")[0]]
            taken = snapshot(state, written.pop() if written else None)
            self._pending.append(self._thread.submit(self._write, name, taken))

    def wait(self) -> None:
        """Until all are written.

        Raises:
            UserError: one could not be.
        """
        pending, self._pending = self._pending, []
        for written in pending:
            written.result()

    def close(self) -> None:
        """End the thread; what it has begun is finished."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        self.run.write(f"checkpoints/{name}", partial(self._save, state))
        self._written[name.partition("-")[0]].append(state)
        for old in steps_in(self.run.folder)[:-KEEP]:
            (self.run.folder / "checkpoints" / f"step-{old}.pt").unlink(missing_ok=True)

    def _save(self, state: dict[str, Any], stream: IO[bytes]) -> None:
        sink = _Sink(stream, self.disturbance)
        try:
            torch.save(state, cast(IO[bytes], sink))
        except RuntimeError as error:
            raise sink.error or error from error


class _Sink:
    """A file that torch.save writes to piece by piece, nothing of which keeps the training waiting.

    What the disk says torch hides behind an error of its own: it is kept here.
    """

    def __init__(self, stream: IO[bytes], disturbance: Disturbance) -> None:
        self.stream, self.disturbance = stream, disturbance
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            num = self.stream.write(data)
        except OSError as error:
            self.error = error
            raise
        self.disturbance.after_write(self.stream)
        return num

    def flush(self) -> None:
        """Nothing yet: whoever opened the file does it, and hears what the disk says."""


def snapshot(tree: Any, memory: Any = None) -> Any:
    """A copy of a tree of dicts, lists and tensors, its tensors on the CPU.

    Args:
        memory: a copy of the like that is no longer wanted; its tensors are written over.
    """
    if isinstance(tree, torch.Tensor):
        if isinstance(memory, torch.Tensor) and (memory.shape, memory.dtype) == (tree.shape, tree.dtype):
            return memory.copy_(tree.detach())
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        old = memory if isinstance(memory, dict) else {}
        return {name: snapshot(value, old.get(name)) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        rest = memory if isinstance(memory, list) else []
        return [snapshot(value, old) for value, old in itertools.zip_longest(tree, rest[: len(tree)])]
    return tree


def resume(run: Run, mesh: Mesh, index_digest: str) -> dict[str, Any] | None:
    """The newest good checkpoint, the same on every rank; None at a fresh start.

    Raises:
        UserError: it was made from another data index.
    """
    state = mesh.on_first(lambda: _resume_here(run) if mesh.is_first else None)
    if state is not None:
        if state["index_digest"] != index_digest:
            raise UserError(
                f"{run.folder}: its checkpoint was trained on another data index (tracks, labels or files differ): choose another run.name"
            )
        run.log(f"goes on from step {state['progress']['total_step']}")
    return state


def _resume_here(run: Run) -> dict[str, Any] | None:
    found = load_newest(run)
    if found is None:
        run.history.resume(0, None)
        return None
    name, state = found
    run.history.resume(state["progress"]["total_step"], (run.folder / "checkpoints" / name).stat().st_mtime)
    return state


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints of the run in a folder, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.pt", path.name) for path in (folder / "checkpoints").glob("step-*.pt"))
    return sorted(int(match[1]) for match in found if match)


def load_newest(run: Run) -> tuple[str, dict[str, Any]] | None:
    """The newest checkpoint that can be read, and its name; damaged ones are passed over with a warning."""
    for step in reversed(steps_in(run.folder)):
        state = load(run, f"step-{step}.pt")
        if state is not None:
            return f"step-{step}.pt", state
    return None


def load(run: Run, name: str) -> dict[str, Any] | None:
    """The checkpoint `name`, tensors on the CPU, or None, with a warning, where it is damaged."""
    path = run.folder / "checkpoints" / name
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    # torch raises whatever the damaged bytes lead to: zip, pickle, EOF, key and runtime errors
    except Exception as error:
        run.warn(f"{path}: damaged, passed over ({type(error).__name__})")
        return None
