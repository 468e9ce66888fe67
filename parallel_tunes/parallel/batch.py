"""The process of a batch job, started by slurm/*.sbatch: `python -m parallel_tunes.parallel.batch JOB key=value …`.

It starts the job's ranks as a step, passes Slurm's USR1 on to them, reads from their reports how they ended, and asks
Slurm to queue the job again when they stopped at a checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from parallel_tunes.parallel import launch, slurm
from parallel_tunes.parallel.waiting import INTERRUPTED
from parallel_tunes.schema import UserError

# jobs.py knows too, but imports run down: this floor cannot ask it. The other jobs are one process, and start steps of their own
ON_RANKS = ("train", "evaluate")
REPEAT_S = 5.0  # a rank that is still starting may miss a signal; ranks take it any number of times
# to USR1, until the job listens: unheard it would end the process
DEAF = ("sh", "-c", "trap '' USR1; exec \"$@\"", "sh")
REQUEUE_S = 60.0  # how long Slurm may take to end a job that it has queued again


class Batch:
    """One start of a batch job."""

    def __init__(self, job: str, words: Sequence[str]) -> None:
        found = slurm.allocation()
        if found is None:
            raise UserError("this runs inside a Slurm job: sbatch slurm/train.sbatch …, or ptunes without Slurm")
        self.allocation = found
        self.words = (job, *words)
        self.asked_to_stop = threading.Event()
        self.ended_by_slurm = False
        self.reports: list[Path] = []
        self.refused = False

    def heed(self, number: int, frame: FrameType | None) -> None:
        """Take a signal: USR1 comes from --signal or from a person; TERM when Slurm itself ends the job."""
        del frame
        if number == signal.SIGTERM:
            self.ended_by_slurm = True
        else:
            self.asked_to_stop.set()

    def run(self) -> int:
        """Run the job; the exit code of the batch script."""
        signal.signal(signal.SIGUSR1, self.heed)
        signal.signal(signal.SIGTERM, self.heed)
        if os.environ.pop("PT_ASKED_TO_STOP", None):  # hpc/batch.sh was told, before this process was there
            self.asked_to_stop.set()
        code = self._run_on_ranks() if self.words[0] in ON_RANKS else self._run_here()
        statuses = [read_status(path) for path in self.reports]
        if self.ended_by_slurm:
            return 0 if statuses and "failed" not in statuses else 1  # Slurm has decided what becomes of the job
        # a signal that came before all ranks had met leaves no report
        if "preempted" in statuses or (code == INTERRUPTED and not statuses and self.asked_to_stop.is_set()):
            return self._requeue()
        if self.refused:
            return 2
        if code == 0 and not statuses:
            say("the job ended without a report")
            return 1
        if code and not statuses and self.words[0] in ON_RANKS:
            say("no rank came as far as a report: the start or the rendezvous failed; the lines above say where")
        return code if code or "failed" not in statuses else 1

    def _run_on_ranks(self) -> int:
        command = launch.ranks_command(
            self.words,
            num_ranks=self.allocation.num_ranks,
            allocation=self.allocation,
            max_restarts=launch.MAX_RESTARTS,
        )
        return self._watch(command.words, command.full_environment | {"PT_BATCH": "1"})

    def _run_here(self) -> int:
        words = (*DEAF, sys.executable, "-m", "parallel_tunes", *self.words)
        return self._watch(words, {**os.environ, "PT_BATCH": "1"})

    def _watch(self, words: Sequence[str], environment: dict[str, str]) -> int:
        """Run a command with its output passed through, until it ends; its exit code."""
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(process.stdout,))
        reader.start()
        told_at: float | None = None
        while process.poll() is None:
            if self.refused:
                with contextlib.suppress(UserError):  # to start the ranks again would not help
                    slurm.signal_step(self.allocation.job, "KILL")
                process.wait()
            waits = told_at is not None and time.monotonic() - told_at < REPEAT_S
            if self.asked_to_stop.is_set() and not self.ended_by_slurm and not waits:
                if told_at is None:
                    say("USR1: asking the job to stop at a checkpoint")
                told_at = time.monotonic()
                self._pass_on(process)
            time.sleep(0.1)
        reader.join()
        return process.returncode

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        if self.words[0] not in ON_RANKS:
            process.send_signal(signal.SIGUSR1)
            return
        with contextlib.suppress(UserError):  # the step has not begun, or has ended: the next try tells
            slurm.signal_step(self.allocation.job, "USR1")

    def _read(self, stream: IO[bytes]) -> None:
        """Pass standard output on, and pick out what is meant for this process."""
        for line in stream:
            if line == b"refused\n":
                self.refused = True
                continue
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            text = line.decode(errors="surrogateescape").rstrip("\n")
            if text.startswith("report: "):
                self.reports.append(Path(text.removeprefix("report: ")))

    def _requeue(self) -> int:
        try:
            slurm.requeue(self.allocation.job)
        except UserError as error:
            say(
                f"stopped at a checkpoint, but cannot be queued again ({error}): submit it again under the same run.name"
            )
            return 1
        say("stopped at a checkpoint; queued again")
        until = time.monotonic() + REQUEUE_S
        while not self.ended_by_slurm and time.monotonic() < until:
            time.sleep(0.1)
        return 0


def read_status(report: Path) -> str:
    """How a run ended, from its report."""
    try:
        status = json.loads(report.read_text())["status"]
    except (OSError, ValueError, KeyError, TypeError):
        return "failed"
    return str(status)


def say(line: str) -> None:
    """A line in the job's output."""
    print(f"{time.strftime('%F %T')} {line}", flush=True)


def main(argv: Sequence[str]) -> int:
    """Run a batch job; 2 where it cannot be done as given."""
    try:
        if not argv:
            raise UserError("which job? python -m parallel_tunes.parallel.batch JOB key=value …")
        for word in argv:
            if "\n" in word or "\r" in word:
                raise UserError(f"{word!r}: a value holds a line break; take it out")
        return Batch(argv[0], argv[1:]).run()
    except UserError as error:
        print(f"ptunes: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
