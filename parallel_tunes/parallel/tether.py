"""python -m parallel_tunes.parallel.tether PARENT [MODULE:FUNCTION,]MODULE WORD …: runs a module that ends when process PARENT,
which has started it, does; the function of another, if one is named, is called beside it.

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


def tie(parent: int) -> None:
    """Watch the parent, which may be gone by now, from a thread."""
    threading.Thread(target=watch, args=(parent,), daemon=True).start()


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    # the controller's own processes are tied to it, and so to us
    family = [os.getpid()]
    os.register_at_fork(before=lambda: family.append(os.getpid()), after_in_child=lambda: tie(family[-1]))
    *beside, module = sys.argv[2].split(",")
    for where, _, function in (name.partition(":") for name in beside):
        threading.Thread(target=getattr(importlib.import_module(where), function), daemon=True).start()
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
