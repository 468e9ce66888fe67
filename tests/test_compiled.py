from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENCE_S, ROOT
from numba.core import caching

import parallel_tunes.compiled  # noqa: F401  which gives the files that numba keeps names of their own

KeptFile: Any = caching.IndexDataCacheFile


def test_two_processes_that_compile_at_once_do_not_mix_what_they_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look into the index, both write to it, both write their functions."""
    one, other = (KeptFile(str(tmp_path), "module.function", 0) for _ in range(2))
    write_index, write_data = KeptFile._save_index, KeptFile._save_data
    late: list[Callable[[], None]] = []

    def meet(self: Any, overloads: dict[str, str]) -> None:
        if self is other:
            one.save("float32", "for float32")
        write_index(self, overloads)

    def wait(self: Any, name: str, data: str) -> None:
        if self is one:
            late.append(lambda: write_data(self, name, data))
        else:
            write_data(self, name, data)

    monkeypatch.setattr(KeptFile, "_save_index", meet)
    monkeypatch.setattr(KeptFile, "_save_data", wait)
    other.save("float64", "for float64")
    late[0]()
    assert KeptFile(str(tmp_path), "module.function", 0).load("float64") == "for float64"


def test_a_gufunc_whose_parts_are_of_two_processes_is_built_anew(tmp_path: Path) -> None:
    """The wrapper is of an earlier compilation than the function: seen where engines begin to work at the same time."""
    (tmp_path / "double.py").write_text(
        "import numba\n"
        "@numba.guvectorize([(numba.float64[:], numba.float64[:])], '(n)->(n)', cache=True)\n"
        "def double(x, out):\n"
        "    for at in range(len(x)):\n"
        "        out[at] = 2 * x[at]\n"
    )
    (tmp_path / "use.py").write_text(
        "import importlib, pathlib\n"
        "import numpy as np\n"
        "import parallel_tunes.compiled, double\n"
        "print(double.double(np.ones(3)))\n"
        "for kept in pathlib.Path(__file__).parent.glob('__pycache__/double.double*.nb?'):\n"
        "    kept.unlink()\n"
        "importlib.reload(double)\n"
        "print(double.double(np.ones(3)))\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "use.py"],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (0, "[2. 2. 2.]\n" * 2), done.stderr
    assert list(tmp_path.glob("__pycache__/guf-*"))
