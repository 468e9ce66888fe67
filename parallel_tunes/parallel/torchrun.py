"""python -m parallel_tunes.parallel.torchrun …: torchrun, whose own lines are left out where a rank has said what is wrong.

With PT_RENDEZVOUS, the first node keeps the store in which all nodes meet, and keeps it a little longer than its own ranks
run: torchrun's own store closes while other nodes still take their leave, and they fill the log with errors.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

FAREWELL_S = 2.0
# exit codes of ranks that have said all there is to say: the command cannot be done as given; interrupted
SAID = (2, 130)
# what torchrun logs of such ends, and of its ending the other ranks
NOISE = re.compile(rf"exitcode: (?:{'|'.join(map(str, SAID))})\b|closing signal|death signal")


def run(words: Sequence[str]) -> int:
    """Run torchrun; its exit code, that of a rank which has said why."""
    try:
        torchrun(list(words))
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        for code in SAID:
            if code in codes.values():
                return code
        for rank, code in sorted(codes.items()):
            if code != -signal.SIGTERM or len(codes) == 1:  # torchrun ends the others itself
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                print(f"torchrun: rank {rank} (process {error.failures[rank].pid}) {how}", file=sys.stderr)
        return 1
    return 0


def main(words: Sequence[str]) -> int:
    """Run torchrun, and on the first node the store around it."""
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").addFilter(
        lambda record: not NOISE.search(record.getMessage())
    )
    logging.getLogger("torch.distributed.elastic.agent.server.api").addFilter(
        lambda record: not NOISE.search(record.getMessage())
    )
    if not os.environ.get("PT_RENDEZVOUS") or os.environ.get("SLURM_NODEID") != "0":
        return run(words)
    from torch.distributed import TCPStore  # type: ignore[attr-defined] # documented, but not in the stubs

    host, _, port = os.environ["PT_RENDEZVOUS"].rpartition(":")
    store = TCPStore(host, int(port), is_master=True, wait_for_workers=False)
    try:
        return run(words)
    finally:
        time.sleep(FAREWELL_S)
        del store


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
