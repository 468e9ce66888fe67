"""Checkpoints: plain tensors and numbers, written by rename, the newest good one wins."""

from __future__ import annotations

import re
from typing import Any

import torch

from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError

KEEP = 2


def save(run: Run, state: dict[str, Any], step: int) -> None:
    """Write checkpoints/step-N.pt, flushed to disk and renamed; the last two are kept."""
    if not run.is_writer:
        return
    run.write(f"checkpoints/step-{step}.pt", lambda stream: torch.save(state, stream))
    for old in steps(run)[:-KEEP]:
        (run.folder / "checkpoints" / f"step-{old}.pt").unlink(missing_ok=True)


def resume(run: Run, mesh: Mesh, index_digest: str) -> dict[str, Any] | None:
    """The newest good checkpoint, the same on every rank; None at a fresh start.

    Raises:
        UserError: it was made from another data index.
    """
    state = mesh.on_first(lambda: load_newest(run))
    if state is not None:
        if state["index_digest"] != index_digest:
            raise UserError(
                f"{run.folder}: its checkpoint was trained on another data index (tracks, labels or files differ): choose another run.name"
            )
        run.log(f"goes on from step {state['progress']['total_step']}")
    return state


def steps(run: Run) -> list[int]:
    """Steps of the checkpoints there are, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.pt", path.name) for path in (run.folder / "checkpoints").glob("step-*.pt"))
    return sorted(int(match[1]) for match in found if match)


def load_newest(run: Run) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; damaged ones are passed over with a warning. None where there is none."""
    for step in reversed(steps(run)):
        state = load(run, f"step-{step}.pt")
        if state is not None:
            return state
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
