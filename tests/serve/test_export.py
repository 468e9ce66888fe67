from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from fakes import ROOT, TINY, corpus_of, door, tone, write_audio
from PIL import Image

from parallel_tunes.audio import front_end
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.models.heads import Recurrent
from parallel_tunes.schema import UserError
from parallel_tunes.serve import export, onnx_folder
from parallel_tunes.serve.onnx_predictor import OnnxPredictor
from parallel_tunes.serve.portable import PortableLevels, PortableRecurrent
from parallel_tunes.serve.predictor import Predictor
from parallel_tunes.serve.runtimes import Answers, Comparison
from parallel_tunes.train import model_folder
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.windows import Feed

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
LISTENS = ["task=relisten", "data=kkbox", "data.root=logs/synth/l", "train.batch=500", "train.num_epochs=1"]
WITHOUT_TORCH = """
import sys
from parallel_tunes.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    assert "onnxruntime" in sys.modules
    assert not {"torch", "librosa", "sklearn"} & set(sys.modules), "loaded"
    raise
"""


@pytest.fixture(scope="module")
def exported(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workshop's model, exported and judged by its data; tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    model = f"model={workshop}/logs/train/tiny/model"
    assert door("export", model, *corpus_of(workshop), "export.rounds=5", "run.name=e", cwd=folder) == 0
    return folder / "logs/export/e"


@pytest.fixture(scope="module")
def listens(heard: Path) -> Path:
    assert door("train", *LISTENS, "task.resamples=20", "run.name=exported", cwd=heard) == 0
    return heard / "logs/train/exported/model"


def read(folder: Path, name: str = "report.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


def test_an_export_is_true_to_torch_and_judged(exported: Path) -> None:
    metrics = read(exported)["metrics"]
    assert metrics["parity"]["largest_difference"] <= 1e-5
    assert metrics["parity"]["n"] == 160  # of 20 test and 20 valid tracks
    for name, file in (("float32", "model.onnx"), ("int8", "model.int8.onnx")):
        assert metrics["num_bytes"][name] == (exported / file).stat().st_size
    judged = metrics["judged"]
    assert judged["n"] == 20
    assert judged["float32"]["accuracy"] == judged["torch"]["accuracy"]
    assert judged["lost"]["accuracy"] == pytest.approx(judged["float32"]["accuracy"] - judged["int8"]["accuracy"])
    assert abs(judged["lost"]["accuracy"]) <= 0.1
    assert judged["turned"]["share_ci95"][1] > judged["turned"]["share"]
    assert all(metrics["latency"][name]["median"] > 0 for name in ("torch", "float32", "int8"))
    page = (exported / "report.html").read_text()
    assert "ONNX, int8" in page
    assert "20 test tracks" in page


def test_a_graph_tells_no_paths(exported: Path) -> None:
    for name in ("model.onnx", "model.int8.onnx"):
        graph = (exported / name).read_bytes()
        assert not any(word in graph for word in (str(ROOT).encode(), b"site-packages", b".py"))


def test_predict_needs_no_torch_and_answers_alike(workshop: Path, exported: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(3 * 22050)).astype(np.float32)
    write_audio(tmp_path / "short.wav", tone(440, 0.6))
    write_audio(tmp_path / "noise.flac", np.concatenate([tone(3000, 2.0), noise]))
    write_audio(tmp_path / "float.wav", 0.3 * noise, subtype="FLOAT")
    write_audio(tmp_path / "stereo.mp3", tone(500, 3.0, 44100, 2), 44100)
    (tmp_path / "text.wav").write_text("no audio\n" * 50)
    names = ["short.wav", "noise.flac", "float.wav", "stereo.mp3", "text.wav"]
    words = ["predict", "runtime=onnx", f"model={exported}", "top_k=99", "run.name=p", "--", *names]
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr  # one file cannot be answered
    assert len(done.stderr.splitlines()) == 1
    found = read(tmp_path / "logs/predict/p")["predictions"]
    predictor = Predictor(workshop / "logs/train/tiny/model", torch.device("cpu"), max_bytes=1 << 30)
    for name, answer in zip(names, found, strict=True):
        wanted = predictor.predict(tmp_path / name, 99)
        assert answer.keys() == wanted.keys()
        assert answer["file"] == name
        if "reason" not in answer:
            assert answer["duration_s"] == wanted["duration_s"]
            chances = {entry["label"]: entry["probability"] for entry in wanted["top"]}
            for entry in answer["top"]:  # `Predictor` rounds its levels to float16, as shards do
                assert entry["probability"] == pytest.approx(chances[entry["label"]], abs=2e-4)


def test_samples_alone_are_enough_at_any_length(workshop: Path, exported: Path) -> None:
    folder = model_folder.load(workshop / "logs/train/tiny/model")
    frozen = Frozen(folder.model, torch.device("cpu"), **folder.facts["standardise"])
    transform = LogMelTransform(front_end.definition(folder.features))
    session = onnx_folder.load(exported, "float32").session
    rng = np.random.default_rng(0)
    for batch, num_samples in ((1, 24000), (5, 40001)):
        samples = (rng.standard_normal((batch, num_samples)) * rng.uniform(0, 1, (batch, 1)) / 9).astype(np.float32)
        scaled = torch.from_numpy(samples / np.abs(samples).max(1, keepdims=True))
        wanted = frozen.predict(transform(scaled, centred=False)).numpy()
        assert session.run(None, {"samples": samples})[0] == pytest.approx(wanted, abs=1e-5)


def test_integers_answer_too(exported: Path, tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", tone(440, 3.0))
    float32, int8 = (
        OnnxPredictor(exported, max_bytes=1 << 30, precision=each).predict(path, 10)["top"]
        for each in ("float32", "int8")
    )
    chances = {entry["label"]: entry["probability"] for entry in float32}
    assert [entry["probability"] for entry in int8] != sorted(chances.values(), reverse=True)
    for entry in int8:
        assert entry["probability"] == pytest.approx(chances[entry["label"]], abs=0.05)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "model.onnx is not the one that onnx.json names"),
        (lambda folder: (folder / "onnx.json").unlink(), "onnx.json is missing"),
        (lambda folder: (folder / "onnx.json").write_text("{}"), "onnx.json is damaged"),
        (lambda folder: (folder / "onnx.json").write_text("[" * 100_000), "onnx.json is damaged"),
        (lambda folder: change(folder, format=9), "written in format 9"),
        (lambda folder: change(folder, classes=["a"]), "model.onnx answers otherwise than onnx.json says"),
        (lambda folder: change(folder, classes=None), "onnx.json is damaged"),
        (lambda folder: change(folder, fingerprint="0"), "trained on features 0"),
        (lambda folder: change(folder, task="relisten"), "exported from task=relisten"),
        (lambda folder: replace_graph(folder, b"no graph"), "model.onnx is refused"),
    ],
)
def test_a_folder_is_checked_before_use(
    exported: Path, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "e")
    spoil(folder)
    with pytest.raises(UserError, match=says) as caught:
        OnnxPredictor(folder, max_bytes=1 << 30)
    assert "\n" not in str(caught.value)


def change(folder: Path, **facts: Any) -> None:
    (folder / "onnx.json").write_text(json.dumps(read(folder, "onnx.json") | facts))


def replace_graph(folder: Path, graph: bytes) -> None:
    from parallel_tunes import files

    (folder / "model.onnx").write_bytes(graph)
    digests = read(folder, "onnx.json")["digests"]
    change(folder, digests=digests | {"float32": files.digest_bytes(graph)})


def test_what_is_missing_is_named(
    run: Callable[..., int],
    exported: Path,
    workshop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run("predict", "runtime=onnx", f"model={exported}", "--", "a.wav") == 2
    assert capsys.readouterr().err.endswith("runtime=onnx needs onnxruntime: pip install 'parallel-tunes[onnx]'\n")
    monkeypatch.undo()
    assert run("predict", "runtime=onnx", f"model={workshop}/logs/train/tiny/model", "--", "a.wav") == 2
    assert "onnx.json is missing" in capsys.readouterr().err
    assert run("predict", "runtime=onnx", f"model={exported}") == 2
    assert "which files?" in capsys.readouterr().err


def test_a_listen_model_is_exported_with_small_embeddings(heard: Path, listens: Path) -> None:
    words = ["data=kkbox", "data.root=logs/synth/l", "export.resamples=20", "export.rounds=5", "run.name=listens"]
    assert door("export", f"model={listens}", *words, cwd=heard) == 0
    folder = heard / "logs/export/listens"
    metrics = read(folder)["metrics"]
    assert metrics["parity"]["largest_difference"] <= 1e-5
    judged = metrics["judged"]
    assert (judged["n"], metrics["parity"]["n"]) == (1200, 1800)
    assert judged["float32"]["auc"] == pytest.approx(judged["torch"]["auc"], abs=1e-4)
    assert judged["lost"]["auc"] == pytest.approx(judged["float32"]["auc"] - judged["int8"]["auc"])
    low, high = judged["lost"]["auc_ci95"]
    assert -0.01 < low <= judged["lost"]["auc"] <= high < 0.01
    assert metrics["num_bytes"]["int8"] < 0.6 * metrics["num_bytes"]["float32"]
    import onnx

    whole, small = (
        {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(folder / name).graph.initializer}
        for name in ("model.onnx", "model.int8.onnx")
    )
    assert small["rows"].dtype == np.int8
    assert "network.table" not in small
    error = np.abs(small["rows"] * small["scales"] - whole["network.table"])
    assert (error <= 0.501 * small["scales"]).all()


def test_a_graph_that_is_not_true_is_not_written(
    run: Callable[..., int], listens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export.tolerance=0", "export.num_windows=200", "export.rounds=5", "run.name=x"]
    assert run("export", f"model={listens}", *words) == 1
    folder = tmp_path / "logs/export/x"
    assert not list(folder.glob("*.onnx"))
    assert "nothing written" in capsys.readouterr().err
    parity = read(folder)["metrics"]["parity"]
    assert not parity["is_held"]
    assert 0 < parity["largest_difference"] < 1e-5
    assert parity["n"] == 200


def test_no_number_is_as_far_from_torch_as_can_be() -> None:
    answers = {
        "torch": np.full((2, 2), 0.5),
        "float32": np.array([[0.5, 0.4], [np.nan, 0.5]]),
        "int8": np.zeros((2, 2)),
    }

    def give(array: Answers, feed: Feed) -> Answers:
        return array

    compared = Comparison({name: partial(give, array) for name, array in answers.items()})
    compared.answer({})
    assert (compared.largest, compared.num) == (1.0, 2)


def test_a_recurrent_head_is_one_node() -> None:
    import onnx
    import onnxruntime

    torch.manual_seed(0)
    head = Recurrent(6).eval()
    example = {"maps": torch.zeros(2, 6, 4, 5)}
    graph = export._trace(PortableRecurrent(head), example, {"maps": {0: "batch", 3: "num_frames"}}, "summary")
    assert [node.op_type for node in onnx.load_from_string(graph).graph.node].count("GRU") == 1
    maps = torch.randn(3, 6, 4, 9)
    with torch.no_grad():
        wanted = head(maps).numpy()
    assert onnxruntime.InferenceSession(graph).run(None, {"maps": maps.numpy()})[0] == pytest.approx(wanted, abs=1e-6)


def test_labels_by_themselves_have_probabilities_by_themselves(workshop: Path) -> None:
    folder = model_folder.load(workshop / "logs/train/tiny/model")
    levels, standardise = 20 * torch.randn(3, 128, 43), folder.facts["standardise"]
    with torch.no_grad():
        found = PortableLevels(folder.model.eval(), **standardise, multi_label=True)(levels)
    frozen = Frozen(folder.model, torch.device("cpu"), **standardise, multi_label=True)
    assert torch.allclose(found, frozen.predict(levels.clone()), atol=1e-6)


@pytest.mark.parametrize(
    "words", [[word for word in TINY if not word.startswith("task.")], ["model.widths=[4,8]"]], ids=["plain", "default"]
)
def test_pictures_go_in_as_levels(
    words: list[str], run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default's window is all of a picture, its network's pieces of it."""
    rng = np.random.default_rng(0)
    for number in range(8):
        levels = np.linspace(0.8, 0.2, 64)[:, None] + 0.1 * rng.standard_normal((64, 100))
        levels[number % 2 * 20 : number % 2 * 20 + 10] += 0.3
        pixels = matplotlib.colormaps["magma"](np.clip(levels[::-1], 0, 1), bytes=True)[..., :3]
        (tmp_path / f"drawn/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.copy()).save(tmp_path / f"drawn/{number % 2}/{number}.png")
    data, model = f"data.root={tmp_path}/drawn", "model=logs/train/p/model"
    assert run("train", data, "split=stratified", *words, "train.batch=2", "train.num_epochs=1", "run.name=p") == 0
    assert run("export", model, "export.num_windows=40", "export.rounds=5", "run.name=p") == 0
    parity = read(tmp_path / "logs/export/p")["metrics"]["parity"]
    assert (parity["n"], parity["is_held"]) == (40, True)
    shown = str(tmp_path / "drawn/1/1.png")
    assert run("predict", model, "run.name=torch", "--", shown) == 0
    assert run("predict", "runtime=onnx", "model=logs/export/p", "run.name=onnx", "--", shown) == 0
    by_torch, by_onnx = (read(tmp_path / "logs/predict" / name)["predictions"][0] for name in ("torch", "onnx"))
    assert by_onnx["top"] == [
        {**entry, "probability": pytest.approx(entry["probability"], abs=1e-6)} for entry in by_torch["top"]
    ]
    capsys.readouterr()
    assert run("predict", "model=logs/export/p", "--", shown) == 2
    assert "runtime=onnx" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(
    run: Callable[..., int], listens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "svm").mkdir()
    (tmp_path / "svm/model.json").write_text('{"task": "popularity"}')
    assert run("export", "model=svm", "run.name=a") == 2
    assert "a support vector machine" in capsys.readouterr().err
    assert run("export", f"model={listens}", f"data.root={tmp_path}", "run.name=b") == 2
    assert "data=kkbox" in capsys.readouterr().err
