"""The folder of an exported model: model.onnx, model.int8.onnx and onnx.json, checked against each other on load; no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes import files
from parallel_tunes.audio.front_end import fingerprint, restore
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import sealed

if TYPE_CHECKING:
    import onnxruntime

FORMAT = 1
ABOUT, MAX_ABOUT = "onnx.json", 1 << 26
GRAPHS, MAX_GRAPH = {"float32": "model.onnx", "int8": "model.int8.onnx"}, 1 << 31


@dataclass(frozen=True)
class OnnxFolder:
    """An exported genre model and all that is needed to use it as it was trained."""

    session: onnxruntime.InferenceSession
    classes: list[str]
    features: FeaturesConfig
    facts: dict[str, Any]  # onnx.json
    thresholds: NDArray[np.float64] | None  # (num_classes,); None where a track has one label


def save(run: Run, graphs: dict[str, bytes], facts: dict[str, Any]) -> None:
    """Write graphs, by their names in `GRAPHS`, and last what they are."""
    for name, graph in graphs.items():
        run.write_bytes(GRAPHS[name], graph)
    digests = {name: files.digest_bytes(graph) for name, graph in graphs.items()}
    run.write_bytes(ABOUT, sealed.describe({**facts, "digests": digests}, FORMAT))


def read(folder: Path | None, precision: str) -> tuple[dict[str, Any], bytes]:
    """onnx.json and a graph of an exported model, whatever its task.

    Args:
        precision: a name in `GRAPHS`.

    Raises:
        UserError: it is missing, unfinished, damaged, or of another format.
    """
    if folder is None:
        raise UserError("model: say which, the folder of an export run: model=logs/export/NAME")
    return sealed.read(
        folder, ((ABOUT, MAX_ABOUT), (GRAPHS[precision], MAX_GRAPH)), version=FORMAT,
        find_digest=lambda facts: facts["digests"][precision], advice="`ptunes export model=…/model run.name=NAME` makes one",
    )  # fmt: skip


def load(folder: Path | None, precision: str) -> OnnxFolder:
    """Read the folder of an exported genre model.

    Raises:
        UserError: it is missing, unfinished, damaged, of another task, or made for another front end than it says.
    """
    facts, graph = read(folder, precision)
    if facts.get("task") != "genre":
        raise UserError(
            f"model={folder}: exported from task={facts.get('task')}; runtime=onnx answers audio and pictures alone, "
            "rows are answered by the model folder: leave runtime=onnx out"
        )
    try:
        features, classes, named = restore(facts["features"]), list(map(str, facts["classes"])), facts["fingerprint"]
        int(facts["windows"]["num_frames"]), float(facts["windows"]["overlap"])
        chosen = facts["thresholds"]
        thresholds = None if chosen is None else np.array([float(chosen[name]) for name in classes])
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"model={folder}: {ABOUT} is damaged ({type(error).__name__}: {error})") from error
    if named != fingerprint(features):
        raise UserError(
            f"model={folder}: trained on features {named}, these settings give {fingerprint(features)}; export it again with this version"
        )
    try:
        session = start(graph, len(os.sched_getaffinity(0)))
    except RuntimeError as error:
        raise UserError(f"model={folder}: {GRAPHS[precision]} is refused ({str(error).splitlines()[0]})") from error
    wanted, given = (
        ("levels" if features.kind == "picture" else "samples"),
        [each.name for each in session.get_inputs()],
    )
    if given != [wanted] or session.get_outputs()[0].shape[1:] != [len(classes)]:
        raise UserError(f"model={folder}: {GRAPHS[precision]} answers otherwise than {ABOUT} says")
    return OnnxFolder(session, classes, features, facts, thresholds)


def start(graph: bytes, num_threads: int) -> onnxruntime.InferenceSession:
    """What runs a graph on the CPU.

    Raises:
        UserError: onnxruntime is not installed.
        RuntimeError: it cannot run this graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("runtime=onnx needs onnxruntime: pip install 'parallel-tunes[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # errors: that inputs have values of their own is meant
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common but this one
        raise RuntimeError(str(error)) from error
