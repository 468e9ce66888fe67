"""Trained models as ONNX graphs: traced from torch, and the same with 8-bit integers for weights."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from parallel_tunes.audio import front_end
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.models.star import OWN
from parallel_tunes.schema import UserError
from parallel_tunes.serve.portable import PortableLevels, PortableListens, PortableSamples
from parallel_tunes.train.model_folder import ModelFolder
from parallel_tunes.train.relisten_model import RelistenFolder

OPSET = 18
TABLES = ("network.table", "network.embed.weight")  # of embeddings, as the two networks name them
FLOAT = 1  # onnx.TensorProto.FLOAT, which is here before onnx is imported
MAX_BYTES = 2_000_000_000  # of a graph with its weights: protobuf's limit is 2 GiB
# what an input is where it is not given: one number for all windows
UNGIVEN: Mapping[str, Any] = {"gain": np.float32(0), "floor_db": np.float32(-1e30), "num_frames": np.int64(1 << 40)}
NEEDED = ("onnx", "onnxruntime", "onnxscript")


class Graphs(NamedTuple):
    """A model for other runtimes, as the bytes of two ONNX files."""

    float32: bytes
    int8: bytes


def require() -> None:
    """Raise a UserError where what exports need is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {', '.join(missing)}: pip install -e '.[onnx]' in the checkout")


def export_genre(folder: ModelFolder) -> Graphs:
    """A genre model, front end and all: samples in, or decibels where it was trained on pictures, probabilities out.

    Any number of windows at a time, of any length where the network takes any. The integers are made by dynamic
    quantisation, of convolutions too: of nothing but the weights, so that no data is needed.

    Raises:
        UserError: onnx is not installed, or the model is too large.
    """
    require()
    standardise, features = folder.facts["standardise"], folder.features
    levels = PortableLevels(
        folder.model, mean_db=float(standardise["mean_db"]), deviation_db=float(standardise["deviation_db"]),
        multi_label=folder.multi_label,
    )  # fmt: skip
    windows = folder.facts["windows"]
    num_frames = int(windows["num_frames"])
    architecture = folder.facts["architecture"]
    # dense layers take one size, pieces are placed for one length of window, and torch exports recurrent layers for one length
    is_fixed = bool(architecture["dense"]) or architecture["head"] == "recurrent" or windows["piece"] < num_frames
    names = {0: "batch"} if is_fixed else {0: "batch", 1: "num_samples"}
    if features.kind == "picture":
        example = {"levels": torch.zeros(2, features.num_mels, num_frames)}
        axes = {"levels": {0: "batch"} if is_fixed else {0: "batch", 2: "num_frames"}}
        graph = _trace(levels, example, axes, "probabilities")
    else:
        settings = front_end.definition(features)
        module = PortableSamples(
            levels, LogMelTransform(settings), top_db=features.top_db, by_peak=features.normalise == "peak"
        )
        num_samples = (num_frames - 1) * settings.hop_length + settings.n_fft
        example = {
            "samples": torch.zeros(2, num_samples), "gain": torch.ones(2), "floor_db": torch.zeros(2),
            "num_frames": torch.full((2,), num_frames),
        }  # fmt: skip
        axes = {name: {0: "batch"} for name in example} | {"samples": names}
        graph = _fill_in(_trace(module, example, axes, "probabilities"))
    return Graphs(graph, _quantise(graph))


def export_listens(folder: RelistenFolder) -> Graphs:
    """A re-listen model: codes and numbers in, the probability of listening again out.

    The integers are its embeddings, a scale for each, made into numbers after they were looked up; its layers are small.

    Raises:
        UserError: onnx is not installed, or the model is too large.
    """
    require()
    sizes = folder.model.sizes
    example = {"codes": torch.zeros(2, OWN + len(sizes.row), dtype=torch.int64)}
    if sizes.row_numbers:
        example["numbers"] = torch.zeros(2, sizes.row_numbers)
    axes = {name: {0: "batch"} for name in example}
    graph = _trace(PortableListens(folder.model), example, axes, "probability")
    return Graphs(graph, _shrink_table(graph))


def _trace(module: nn.Module, example: dict[str, Tensor], axes: dict[str, dict[int, str]], output: str) -> bytes:
    """The graph of a module; `axes` are those of any length, by name."""
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if num_bytes > MAX_BYTES:
        raise UserError(
            f"the model has {num_bytes / 2**30:.1f} GiB of weights: an ONNX file holds {MAX_BYTES / 2**30:.1f}"
        )
    with _quietly():
        program = torch.onnx.export(
            module.eval(), kwargs=example, dynamo=True, opset_version=OPSET, input_names=list(example),
            output_names=[output], dynamic_shapes=axes, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    return _strip(program.model_proto)


def _strip(model: Any) -> bytes:
    """The graph without notes of where each node was traced from: they are as long as a small model, and tell paths."""
    graph = model.graph
    del graph.value_info[:]  # shapes, worked out before inputs could be left out; runtimes work them out anew
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    whole: bytes = model.SerializeToString()
    return whole


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what libraries say of their own insides: that others are missing, names that are joined, what is deprecated."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _fill_in(graph: bytes) -> bytes:
    """The same graph, all of whose inputs but the samples may be left out: what is known of a clip is taken as `UNGIVEN`.

    An input that has a value of the same name needs none from outside; it may come once for all windows, or once for each.
    """
    import onnx

    model = onnx.load_from_string(graph)
    for given in model.graph.input:
        if given.name in UNGIVEN:
            given.type.tensor_type.shape.dim[0].dim_param = "one_or_batch"
            value = np.full(1, UNGIVEN[given.name])
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, given.name))
    whole: bytes = model.SerializeToString()
    return whole


def _quantise(graph: bytes) -> bytes:
    """Convolutions and linear layers on 8-bit integers, weights beforehand, activations as they come; not the front end."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(graph)
    kept = [node.name for node in model.graph.node if any("filters_" in name for name in node.input)]
    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model, path, op_types_to_quantize=["Conv", "Gemm", "MatMul"], nodes_to_exclude=kept,
            weight_type=QuantType.QUInt8,  # with signed ones onnxruntime has no convolutions
        )  # fmt: skip
        return path.read_bytes()


def _shrink_table(graph: bytes) -> bytes:
    """Embeddings as bytes, each with a scale of its own, its largest value being 127; they are looked up before they are scaled."""
    import onnx
    from onnx.helper import make_node

    model = onnx.load_from_string(graph)
    table = next(tensor for tensor in model.graph.initializer if tensor.name in TABLES)
    weights = onnx.numpy_helper.to_array(table)
    scales = np.maximum(np.abs(weights).max(1, keepdims=True), np.float32(1e-30)) / np.float32(127)
    parts = {"rows": np.rint(weights / scales).astype(np.int8), "scales": scales}
    nodes = []
    for at, node in enumerate(model.graph.node):
        if node.op_type != "Gather" or node.input[0] != table.name:
            nodes.append(node)
            continue
        rows, wide, scale = (f"embedding_{at}_{name}" for name in ("rows", "wide", "scale"))
        nodes += [
            make_node("Gather", ["rows", node.input[1]], [rows], axis=0),
            make_node("Cast", [rows], [wide], to=FLOAT),
            make_node("Gather", ["scales", node.input[1]], [scale], axis=0),
            make_node("Mul", [wide, scale], list(node.output)),
        ]
    model.graph.initializer.remove(table)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in parts.items())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    whole: bytes = model.SerializeToString()
    return whole
