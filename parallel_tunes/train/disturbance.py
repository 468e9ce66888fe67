"""Disturbances on purpose, for the job `verify`: this process ends at a step, or while it writes a checkpoint."""

from __future__ import annotations

import os
import re
import signal
from typing import IO

from parallel_tunes.schema import UserError

VARIABLE = "PT_DISTURB"
SIGNALS = ("USR1", "TERM", "INT")
PART = 1000  # bytes of a checkpoint, of which any has more
SIGNAL_AFTER = 3  # steps from where a start begins to a `signal:`


class Disturbance:
    """What befalls this rank, said by PT_DISTURB: step:N, during:checkpoint, signal:NAME, or nothing.

    `step:N` kills the last rank after step N, `during:checkpoint` kills rank 0 when a part of a checkpoint is on disk, and
    `signal:NAME` gives the last rank a signal that asks it to stop.
    """

    def __init__(self, text: str, *, is_first: bool, is_last: bool) -> None:
        self.step: int | None = None
        self.signal_name, self.in_checkpoint = "", False
        kind, value = parse(text) if text else ("", "")
        if kind == "step" and is_last:
            self.step = int(value)
        elif kind == "signal" and is_last:
            self.signal_name = value
        elif kind == "during" and is_first:
            self.in_checkpoint = True

    def begin(self, step: int) -> None:
        """Be told where this start begins."""
        if self.signal_name:
            self.step = step + SIGNAL_AFTER

    def after_step(self, step: int) -> None:
        """Strike, if it is time."""
        if step == self.step:
            self.step = None
            os.kill(os.getpid(), signal.Signals[f"SIG{self.signal_name}"] if self.signal_name else signal.SIGKILL)

    def after_write(self, stream: IO[bytes]) -> None:
        """Be told that a checkpoint has begun to be written; strike, if that is what is to befall this process."""
        if self.in_checkpoint and stream.tell() > PART:
            stream.flush()
            os.fsync(stream.fileno())
            os.kill(os.getpid(), signal.SIGKILL)


def parse(text: str) -> tuple[str, str]:
    """`kind:value` of a disturbance.

    Raises:
        UserError: it is none.
    """
    kind, _, value = text.partition(":")
    good = {"step": re.fullmatch(r"[1-9]\d*", value), "during": value == "checkpoint", "signal": value in SIGNALS}
    if not good.get(kind):
        raise UserError(f"{text}: expected step:N, during:checkpoint or signal:{'|'.join(SIGNALS)}")
    return kind, value
