"""The house plan, read from the syntax tree: who may import whom, and where each outside power lives."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT

PACKAGE = ROOT / "parallel_tunes"
FLOORS = {
    "__main__": 6,
    "jobs": 5,
    "summaries": 5,
    "table_jobs": 5,
    "listen_jobs": 5,
    "ladder": 5,
    "export_jobs": 5,
    "predicting": 5,
    "synthesis": 4,
    "exploration": 5,
    "serving": 5,
    "session": 3,
    "verification": 4,
    "submission": 4,
    "studies": 4,
    "diagnosis": 4,
    "tasks": 4,
    "reports": 4,
    "benchmark": 4,
    "serve": 4,
    "train": 3,
    "preprocess": 3,
    "shard_work": 3,
    "scaling": 3,
    "data": 2,
    "parallel": 2,
    "audio": 2,
    "models": 1,
    "config": 1,
    "config_benchmark": 1,
    "config_explore": 1,
    "config_export": 1,
    "config_run": 1,
    "config_scaling": 1,
    "config_serve": 1,
    "config_synth": 1,
    "config_svm": 1,
    "config_tracks": 1,
    "config_listens": 1,
    "config_train": 1,
    "schema": 1,
    "files": 1,
    "lanes": 1,
    "run": 1,
    "history": 1,
    "names": 1,
    "descriptor_names": 1,
    "": 0,
}
FILES = sorted(PACKAGE.rglob("*.py"))
RANK_VARIABLES = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
}


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(file: Path) -> list[tuple[str, bool]]:
    """Dotted names that a file imports, and whether lazily, inside a function."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.extend((f"{node.module}.{alias.name}", lazy) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(file.read_text()), False)
    return found


def own_imports(file: Path) -> set[str]:
    """Modules of this package that a file imports, without the package's name."""
    modules = {module_of(other) for other in FILES}
    found = set()
    for name, _ in imports_of(file):
        if name.split(".")[0] == "parallel_tunes":
            tail = name.removeprefix("parallel_tunes").removeprefix(".")
            found.add(tail if tail in modules else tail.rpartition(".")[0])
    return found - {""}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_run_down(file: Path) -> None:
    here = module_of(file).split(".")[0]
    for there in own_imports(file):
        floor, room = FLOORS[there.split(".")[0]], there.split(".")[0]
        same_folder = room == here or ("." not in module_of(file) and "." not in there)
        assert floor < FLOORS[here] or (same_folder and floor == FLOORS[here]), f"{file.name} imports {there}"
        if room == "jobs":
            assert here == "__main__"


def test_no_cycles() -> None:
    graph = {module_of(file): own_imports(file) for file in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(
    ("powers", "rooms"),
    [
        (("hydra", "omegaconf"), ("__main__",)),
        (("torch.distributed", "torch.nn.parallel"), ("parallel.mesh",)),
        (("ipyparallel",), ("parallel.engines",)),
        (("subprocess",), ("parallel.", "run")),
        (("numba.cuda",), ("models.hinge_cuda",)),
        (("pickle", "joblib", "cloudpickle", "dill"), ()),
    ],
    ids=lambda value: value[0] if value else "nowhere",
)
def test_powers_live_in_one_room(powers: tuple[str, ...], rooms: tuple[str, ...]) -> None:
    for file in FILES:
        module = module_of(file)
        for name, _ in imports_of(file):
            if any(name == power or name.startswith(power + ".") for power in powers):
                assert any(module == room or (room.endswith(".") and module.startswith(room)) for room in rooms), (
                    f"{module} imports {name}"
                )


def test_only_mesh_reads_rank_variables() -> None:
    for file in FILES:
        if module_of(file) != "parallel.mesh":
            words = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
            assert not words & RANK_VARIABLES, f"{file}: {words & RANK_VARIABLES}"


@pytest.mark.parametrize("file", [file for file in FILES if file.parent.name == "models"], ids=module_of)
def test_models_stand_alone(file: Path) -> None:
    outside = set(sys.stdlib_module_names) | {"torch", "numpy", "numba", "__future__"}
    assert {
        name.split(".")[0] for name, _ in imports_of(file) if not name.startswith("parallel_tunes.models.")
    } <= outside


@pytest.mark.parametrize("file", [file for file in FILES if file.parent.name in ("audio", "data")], ids=module_of)
def test_audio_and_data_know_no_ranks(file: Path) -> None:
    assert not {name for name in own_imports(file) if name.startswith("parallel")}


@pytest.mark.parametrize("file", [file for file in FILES if file.parent.name in ("audio", "data")], ids=module_of)
def test_audio_and_data_cost_no_torch(file: Path) -> None:
    """One back end of the spectrogram is on torch; engines, which never take it, do not load it."""
    if module_of(file) != "audio.logmel_torch":
        at_once = [name.removeprefix("parallel_tunes.") for name, lazy in imports_of(file) if not lazy]
        assert not {name for name in at_once if name.split(".")[0] == "torch" or name.startswith("audio.logmel_torch")}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_rooms_are_small(file: Path) -> None:
    assert file.stem not in {"utils", "helpers", "common", "base", "manager", "misc"}
    text = file.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{file.name}: {node.name}"


@pytest.mark.parametrize(
    "words", [["-c", "import parallel_tunes"], ["-m", "parallel_tunes"], ["-m", "parallel_tunes", "train", "--help"]]
)
def test_the_door_is_quick(words: list[str]) -> None:
    """Importing the package, the list of jobs and --help load none of the slow libraries."""
    # -X importtime lists every module loaded, on standard error
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "parallel_tunes" in loaded
    assert not loaded & {
        "torch",
        "librosa",
        "numpy",
        "pandas",
        "hydra",
        "omegaconf",
        "ipyparallel",
        "matplotlib",
        "sklearn",
    }


def test_top_level() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.split("/")[0] for name in tracked if name and not name.startswith(".")}
    assert top <= {"README.md", "pyproject.toml", "LICENSE", "hpc", "slurm", "conf", "parallel_tunes", "tests", "logs"}
