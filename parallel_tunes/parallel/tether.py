"""python -m parallel_tunes.parallel.tether [MODULE:FUNCTION,]MODULE WORD …: runs a module that ends when the process that
started it does; the function of another, if one is named, is called beside it.

ipyparallel's controller and engines outlive a process that is killed without notice, and would wait for it for ever.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import threading
import time

POLL_S = 0.3
GRACE_S = 2.0  # for the controller to end its own processes


def watch(parent: int) -> None:
    """End this process as soon as its parent is another."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


def tie() -> None:
    """Watch the parent from a thread."""
    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()


if __name__ == "__main__":
    tie()
    *beside, module = sys.argv[1].split(",")
    for where, _, function in (name.partition(":") for name in beside):
        threading.Thread(target=getattr(importlib.import_module(where), function), daemon=True).start()
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
