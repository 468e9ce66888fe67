from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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
