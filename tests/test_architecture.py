"""The house plan, read from the syntax tree: who may import whom, and where each outside power lives."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from fakes import PATIENCE_S, ROOT

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
    "compiled": 0,
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
POWERS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("hydra", "omegaconf"): ("__main__",),
    ("torch.distributed", "torch.nn.parallel"): ("parallel.mesh", "parallel.torchrun"),
    ("ipyparallel",): ("parallel.engines",),
    ("subprocess",): ("parallel.", "run"),
    ("numba.cuda",): ("models.hinge_cuda",),
    ("pickle", "joblib", "cloudpickle", "dill"): (),
}


def module_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(file) for file in FILES}


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
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

    visit(tree_of(file), False)
    return found


@cache
def own_imports(file: Path) -> set[str]:
    """Modules of this package that a file imports, without the package's name."""
    found = set()
    for name, _ in imports_of(file):
        if name.split(".")[0] == "parallel_tunes":
            tail = name.removeprefix("parallel_tunes").removeprefix(".")
            found.add(tail if tail in MODULES else tail.rpartition(".")[0])
    return found - {""}


def test_imports_run_down() -> None:
    wrong = []
    for file in FILES:
        here = module_of(file).split(".")[0]
        for there in own_imports(file):
            room = there.split(".")[0]
            same_folder = room == here or ("." not in module_of(file) and "." not in there)
            is_lower = FLOORS[room] < FLOORS[here] or (same_folder and FLOORS[room] == FLOORS[here])
            if not is_lower or (room == "jobs" and here != "__main__"):
                wrong.append(f"{module_of(file)} imports {there}")
    assert not wrong


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


def test_powers_live_in_one_room() -> None:
    wrong = []
    for powers, rooms in POWERS.items():
        for file in FILES:
            module = module_of(file)
            if any(module == room or (room.endswith(".") and module.startswith(room)) for room in rooms):
                continue
            wrong += [
                f"{module} imports {name}"
                for name, _ in imports_of(file)
                if any(name == power or name.startswith(power + ".") for power in powers)
            ]
    assert not wrong


def test_only_mesh_reads_rank_variables() -> None:
    wrong = []
    for file in FILES:
        if module_of(file) != "parallel.mesh":
            constants = (node.value for node in ast.walk(tree_of(file)) if isinstance(node, ast.Constant))
            words = {value for value in constants if isinstance(value, str)}
            wrong += [f"{module_of(file)} reads {word}" for word in words & RANK_VARIABLES]
    assert not wrong


def test_models_audio_and_data_stand_alone() -> None:
    """Models import torch, numpy and numba only; audio and data know no ranks and load no torch at import."""
    outside = set(sys.stdlib_module_names) | {"torch", "numpy", "numba", "__future__"}
    wrong = []
    for file in FILES:
        module, room = module_of(file), file.parent.name
        names = [name for name, _ in imports_of(file)]
        at_once = [name for name, lazy in imports_of(file) if not lazy]
        if room == "models":
            others = (
                name for name in names if not name.startswith(("parallel_tunes.models.", "parallel_tunes.compiled"))
            )
            wrong += [f"{module} imports {name}" for name in others if name.split(".")[0] not in outside]
        if room in ("audio", "data"):
            wrong += [f"{module} imports {name}" for name in own_imports(file) if name.startswith("parallel")]
        if room in ("audio", "data") and module != "audio.logmel_torch":  # engines never load that back end
            loads = ("torch", "parallel_tunes.audio.logmel_torch")
            wrong += [f"{module} imports {name}" for name in at_once if name.split(".")[0] in loads or name in loads]
    assert not wrong


def test_rooms_are_small() -> None:
    wrong = []
    for file in FILES:
        if file.stem in {"utils", "helpers", "common", "base", "manager", "misc"}:
            wrong.append(f"{file.name}: a name that says nothing")
        functions = (node for node in ast.walk(tree_of(file)) if isinstance(node, ast.FunctionDef))
        long = (node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60)
        wrong += [f"{file.name}: {name} is longer than 60 lines" for name in long]
    assert not wrong


def test_the_command_line_is_quick() -> None:
    """Importing the package, the list of jobs and --help load none of the slow libraries."""
    slow = {"torch", "librosa", "numpy", "pandas", "hydra", "omegaconf", "ipyparallel", "matplotlib", "sklearn"}
    for words in (
        ["-c", "import parallel_tunes"],
        ["-m", "parallel_tunes"],
        ["-m", "parallel_tunes", "train", "--help"],
    ):
        # -X importtime lists every module loaded, on standard error
        command = [sys.executable, "-X", "importtime", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
        assert "parallel_tunes" in loaded
        assert not loaded & slow, words


def test_top_level() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {name.split("/")[0] for name in tracked.splitlines() if not name.startswith(".")}
    assert top <= {"README.md", "pyproject.toml", "LICENSE", "hpc", "slurm", "conf", "parallel_tunes", "tests", "logs"}
