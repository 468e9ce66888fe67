"""Functions compiled by numba and kept on disk."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import caching
from numba.np.ufunc import wrappers


def _name_data(file: Any, number: int) -> str:
    del number
    name: str = file._data_name_pattern.format(number=uuid.uuid4().int >> 64)
    return name


# numba numbers the files that it keeps by an index which it has read before. Two processes that compile at the same time
# would both write to one name, and every later process would run the wrong function for a type, or crash: seen with
# librosa's. Whoever imports this module writes to names that cannot meet.
caching.IndexDataCacheFile._data_name = _name_data  # type: ignore[method-assign]


def _build_wrapper(wrapper: Any) -> Any:
    built = _build_or_load(wrapper)
    if built.library.get_pointer_to_function(built.name) == 0:
        wrapper.cache = caching.NullCache()
        built = _build_or_load(wrapper)
    return built


# A gufunc (librosa has some) is kept as two files, the function and a wrapper that calls it by a name with a number, which
# differs from process to process. Of two that compile at the same time one may leave the function, the other the wrapper:
# NumPy would then call address 0 (https://github.com/numba/numba/issues/10128). Such a wrapper is built anew.
_build_or_load = wrappers._GufuncWrapper.build
wrappers._GufuncWrapper.build = _build_wrapper  # type: ignore[method-assign]


def compile_with(*sources: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Make a decorator that compiles functions without the GIL and keeps them on disk.

    Where no folder can be written to, each process compiles for itself, which takes some ten seconds.

    Args:
        sources: files whose changes make what was kept stale. numba looks at the function's own file alone, so that files
            of what it calls must be named; they show in the function's name.
        options: of `numba.njit`.
    """
    version = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()[:12]

    def compile_it(function: Callable[..., Any]) -> Any:
        if sources:
            function.__qualname__ += f"_{version}"
        options_of_all = {"nogil": True, "error_model": "numpy", **options}
        try:
            return numba.njit(function, cache=True, **options_of_all)
        except RuntimeError:  # no folder to keep it in
            return numba.njit(function, **options_of_all)

    return compile_it
