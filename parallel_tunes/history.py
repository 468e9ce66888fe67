"""The starts of a run: when, where, from which step, how each ended, and what that cost. Kept by rank 0 in starts.jsonl."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parallel_tunes.schema import UserError

STALLED = 3  # so many starts of a job without a step gained, and the next is refused


class History:
    """The starts of the run in a folder.

    Args:
        write: writes a file of the run folder by rename, if the run is still this process's own.
    """

    def __init__(self, folder: Path, write: Callable[[str, bytes], None]) -> None:
        self.folder = folder
        self._write = write
        self.starts: list[dict[str, Any]] = []
        self._beat: int | None = None
        self._step: int | None = None

    def begin(
        self,
        where: Mapping[str, Any],
        why_last_ended: Callable[[Mapping[str, Any]], str],
        *,
        cap: int,
        counts_steps: bool,
    ) -> None:
        """Note a new start and, if the one before ended without notice, how far it had come.

        Args:
            where: this start's host, process and world, torchrun's `launch`, and `job` and `restart` of a batch system.
            why_last_ended: says it of a start that could not say it itself.
            cap: how often a batch system may start its job again.
            counts_steps: whether the job says by `resume` where it goes on from, so that starts without a gain can be told.

        Raises:
            UserError: more restarts than `cap`, or the last ones all died before they could go on.
        """
        self.starts = read_starts(self.folder)
        if self.starts:
            last = self.starts[-1]
            if last["ended"] is None:
                last.update({"status": "killed", "cause": why_last_ended(last)} | self._last_beat(last))
            elif str(last["cause"]).startswith("RankLost"):  # rank 0 only saw that another was gone
                last["cause"] = why_last_ended(last)
        if int(where.get("restart") or 0) > cap:
            raise UserError(
                f"{self.folder}: Slurm has started this job {where['restart']} times again, more than run.max_restarts={cap}"
            )
        if counts_steps:
            self._refuse_stalled(where, None)
        self.starts.append({**where, "started": round(time.time(), 3), "from_step": None, "ended": None})
        self._save()
        self._beat = os.open(self.folder / "heartbeat", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def resume(self, step: int, saved: float | None) -> None:
        """Note the step that this start goes on from; `saved` is when its checkpoint was written.

        Raises:
            UserError: this job's last starts gained no step.
        """
        current, earlier = self.starts[-1], self.starts[:-1]
        if earlier and earlier[-1].get("lost_steps") is None:
            last = earlier[-1]
            last["lost_steps"] = max((last.get("step") or step) - step, 0)
            since = last["started"] if saved is None else max(saved, last["started"])
            last["lost_s"] = round(max((last["ended"] or since) - since, 0.0), 3) if last["lost_steps"] else 0.0
        self._refuse_stalled(current, step)
        current["from_step"] = step
        self._save()

    def _refuse_stalled(self, current: Mapping[str, Any], step: int | None) -> None:
        if not current.get("restart"):
            return  # a person's start, not a batch system's: something may have been mended
        mine = [start for start in self.starts if start.get("job") == current.get("job") and start is not current]
        stalled = mine[-STALLED:]
        steps = {start["from_step"] for start in stalled} - {None}
        if len(stalled) == STALLED and steps <= {step}:
            causes = "; ".join(str(start.get("cause")) for start in stalled)
            raise UserError(
                f"{self.folder}: the last {STALLED} starts gained no step ({causes}): mend that, then submit again"
            )

    def beat(self, step: int) -> None:
        """Note how far the run is: some microseconds, since nothing waits for the disk."""
        self._step = step
        if self._beat is not None:
            os.pwrite(self._beat, f"{time.time():017.3f} {step:012d}\n".encode(), 0)

    def _last_beat(self, start: Mapping[str, Any]) -> dict[str, Any]:
        try:
            at, step = (self.folder / "heartbeat").read_text().split()
            return {"ended": max(float(at), start["started"]), "step": int(step)}
        except (OSError, ValueError):
            return {"ended": start["started"], "step": start["from_step"]}

    def end(self, status: str, cause: str | None) -> None:
        """Note how this start ended."""
        if self.starts and self.starts[-1]["ended"] is None:
            ending = {"ended": round(time.time(), 3), "status": status, "cause": cause, "step": self._step}
            self.starts[-1].update(ending)
            self._save()
        if self._beat is not None:
            os.close(self._beat)
            self._beat = None

    def _save(self) -> None:
        self._write("starts.jsonl", "".join(json.dumps(start) + "\n" for start in self.starts).encode())

    def summary(self) -> dict[str, Any]:
        """Restarts, their causes, and the work lost to them, for the report."""
        before = self.starts[:-1]
        return {
            "num": len(before),
            "causes": [start.get("cause") for start in before],
            "lost_steps": sum(start.get("lost_steps") or 0 for start in before),
            "lost_s": round(sum(start.get("lost_s") or 0.0 for start in before), 3),
            "waited_s": round(
                sum(
                    after["started"] - (start["ended"] or after["started"])
                    for start, after in zip(before, self.starts[1:], strict=True)
                ),
                3,
            ),
            "starts": self.starts,
        }


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """The starts noted in a run folder."""
    try:
        return [json.loads(line) for line in (folder / "starts.jsonl").read_text().splitlines()]
    except (FileNotFoundError, ValueError):
        return []
