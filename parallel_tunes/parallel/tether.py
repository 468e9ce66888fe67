"""python -m parallel_tunes.parallel.tether [MODULE,]MODULE WORD …: runs a module that ends when the process that started it
does; modules before it are imported first.

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
    os.register_at_fork(after_in_child=tie)  # the controller's own processes are tied to it, and so to us
    *first, sys.argv[1] = sys.argv[1].split(",")
    for module in first:
        importlib.import_module(module)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
