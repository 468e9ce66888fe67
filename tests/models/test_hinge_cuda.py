"""The CUDA back end gives what the NumPy one gives: in numba's simulator everywhere, and on a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_checks import BLOCK, CASES, SMOOTHING, SOLVED, THOROUGH, Case, ask, permute, problem
from fakes import PATIENCE_S, ROOT, needs_gpu
from numpy.testing import assert_allclose

from parallel_tunes.models.hinge import NumpyOracle
from parallel_tunes.models.hinge_cuda import CudaOracle, find_gpu
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.train.margin import Limits
from parallel_tunes.train.newton import solve_newton

TOLERANCES = {"float32": 1e-5, "float64": 1e-12}


def run_python(*words: str, **variables: str) -> str:
    """What a Python of its own prints; warnings are errors there, too."""
    command = [sys.executable, "-W", "error", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the simulator has found of all cases."""
    script = Path(__file__).with_name("cuda_checks.py")
    found: dict[str, Any] = json.loads(run_python(str(script), NUMBA_ENABLE_CUDASIM="1"))
    return found


def assert_close(found: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    """Each part up to rounding of its largest number; sums of one number are each their own part."""
    for name, want in wanted.items():
        assert np.shape(found[name]) == np.shape(want), name
        for got, part in zip(split(name, found[name]), split(name, want), strict=True):
            assert_allclose(got, part, rtol=tolerance, atol=tolerance * np.abs(part).max(initial=0), err_msg=name)


def split(name: str, values: Any) -> list[Any]:
    return [*values[:4], np.array(values[4:])] if name == "sums" else [np.array(values)]


@pytest.mark.slow
def test_it_gives_what_numpy_gives(told: dict[str, Any]) -> None:
    assert told["reason"] is None
    assert told["is_simulated"]
    for case, found in zip(CASES, told["cases"], strict=True):
        rows, w = problem(case)
        assert found["start"] == []
        assert_close(found["first"], ask(NumpyOracle(rows), w), TOLERANCES[case.dtype])
        assert found["transfer_s"] > 0


@pytest.mark.slow
def test_neither_what_was_asked_before_nor_the_order_of_rows_matters(told: dict[str, Any]) -> None:
    for case in THOROUGH:
        found = told["cases"][CASES.index(case)]
        rows, w = problem(case)
        assert_close(found["zero"], ask(NumpyOracle(rows), 0 * w), 1e-12)
        assert found["again"] == found["first"]
        assert_close({"sums": found["permuted"]}, {"sums": found["first"]["sums"]}, 1e-12)


@pytest.mark.slow
def test_its_solution_is_certified(told: dict[str, Any]) -> None:
    sure = solve_newton(NumpyOracle, problem(SOLVED)[0], Mesh().apart(), Limits(1e-8))
    assert told["solved"]["is_certified"]
    assert told["solved"]["gap"] <= 1e-6
    assert sure.bound * (1 - 1e-9) <= told["solved"]["objective"] <= sure.objective * (1 + 1.1e-6)


def test_without_cuda_it_loads_and_says_why() -> None:
    lines = run_python(
        "-c",
        "import sys\n"
        "from parallel_tunes.models import hinge_cuda\n"
        "print('numba.cuda' in sys.modules, hinge_cuda.is_simulated())\n"
        "print(hinge_cuda.find_gpu())",
        NUMBA_DISABLE_CUDA="1",
        NUMBA_ENABLE_CUDASIM="0",
    ).splitlines()
    assert lines[0] == "False False"
    assert len(lines) == 2
    assert "CUDA is disabled" in lines[1]


def test_blocks_that_do_not_fit_are_refused() -> None:
    rows, threads = problem(CASES[0])[0], 512
    with pytest.raises(ValueError, match=f"threads_per_block={threads}: from 16 to 256"):
        CudaOracle(rows, threads_per_block=threads)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("loss", "dtype"), [("hinge", "float32"), ("squared_hinge", "float64")])
@pytest.mark.parametrize(("num_rows", "num_features"), [(0, 57), (BLOCK + 1, 130), (200_000, 57)])
def test_a_gpu_gives_what_numpy_gives(num_rows: int, num_features: int, dtype: str, loss: str) -> None:
    # there is one, says torch; numba wants a driver and libraries of its own, and says which it misses
    if (reason := find_gpu()) is not None:
        pytest.skip(reason)
    rows, w = problem(Case(num_rows, num_features, dtype, loss))
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]  # sums of more rows than above
    oracle, wanted = CudaOracle(rows), ask(NumpyOracle(rows), w)
    first = ask(oracle, w)
    del wanted["curve"]  # of every second row: one more or less at the corner, and it is made of others
    assert_close(first, wanted, tolerance)
    assert_close(ask(oracle, w), first, 1e-12)
    permuted = CudaOracle(permute(rows)).query(w, SMOOTHING).flat()
    assert_close({"sums": permuted}, {"sums": first["sums"]}, 1e-12)
