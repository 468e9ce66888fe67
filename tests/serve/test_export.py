from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fakes import PATIENCE_S, ROOT, corpus_of, door, tone, write_audio
from PIL import Image

from parallel_tunes.audio import front_end
from parallel_tunes.audio.logmel_torch import LogMelTransform
from parallel_tunes.serve.portable import PortableLevels
from parallel_tunes.serve.predictor import Predictor
from parallel_tunes.serve.runtimes import Answers, Comparison
from parallel_tunes.train import model_folder
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.windows import Feed


@pytest.fixture(scope="module")
def exported(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the workshop's model was exported, as logs/export/demo, and evaluated; tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    model = f"model={workshop}/logs/train/tiny/model"
    assert door("export", model, *corpus_of(workshop), "export.rounds=5", "run.name=demo", cwd=folder) == 0
    return folder / "logs/export/demo"


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def answer(graph: Path, **feed: Any) -> Any:
    """What onnxruntime computes; of its warnings, that inputs have default values is meant."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options).run(None, feed)[0]


def test_an_export_equals_torch_and_is_evaluated(exported: Path) -> None:
    metrics = read(exported)["metrics"]
    assert metrics["parity"]["largest_difference"] <= 1e-5
    assert metrics["parity"]["n"] == 160  # of 20 test and 20 valid tracks
    for name, file in (("float32", "model.onnx"), ("int8", "model.int8.onnx")):
        graph = (exported / file).read_bytes()
        assert metrics["num_bytes"][name] == len(graph)
        assert not any(word in graph for word in (str(ROOT).encode(), b"site-packages", b".py")), (
            "a graph holds no paths"
        )
    judged = metrics["judged"]
    assert judged["n"] == 20
    assert judged["float32"]["accuracy"] == judged["torch"]["accuracy"]
    assert judged["lost"]["accuracy"] == pytest.approx(judged["float32"]["accuracy"] - judged["int8"]["accuracy"])
    assert judged["turned"]["share_ci95"][1] > judged["turned"]["share"]
    page = (exported / "report.html").read_text()
    assert "ONNX, int8" in page
    assert "20 test tracks" in page


def test_the_example_of_the_readme_labels_a_file_as_predict_does(workshop: Path, exported: Path) -> None:
    """The example runs as it stands in README.md, in a process without torch."""
    text = (ROOT / "README.md").read_text()
    (example,) = (part for part in text.split("```python\n")[1:] if "onnxruntime" in part.partition("```")[0])
    code = example.partition("```")[0] + "import sys\nassert 'torch' not in sys.modules\n"
    folder = exported.parents[2]
    rng = np.random.default_rng(0)
    for duration_s in (0.7, 3.3):  # shorter than a window; several windows
        wave = tone(440, duration_s) * np.linspace(0.1, 1, int(duration_s * 22050)) + 0.05 * rng.standard_normal(
            int(duration_s * 22050)
        )
        file = write_audio(folder / "song.wav", wave.astype(np.float32), subtype="FLOAT")
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        printed = dict(line.split() for line in done.stdout.splitlines())
        predictor = Predictor(workshop / "logs/train/tiny/model", torch.device("cpu"), max_bytes=1 << 30)
        top = predictor.predict(file, 3)["top"]
        assert list(printed) == [entry["label"] for entry in top]
        for entry in top:  # the shards' levels, and so Predictor's, are rounded to float16
            assert float(printed[entry["label"]]) == pytest.approx(entry["probability"], abs=5e-4)


def test_samples_alone_are_enough_at_any_length(workshop: Path, exported: Path) -> None:
    folder = model_folder.load(workshop / "logs/train/tiny/model")
    frozen = Frozen(folder.model, torch.device("cpu"), **folder.facts["standardise"])
    transform = LogMelTransform(front_end.definition(folder.features))
    rng = np.random.default_rng(0)
    for batch, num_samples in ((1, 24000), (5, 40001)):
        samples = (rng.standard_normal((batch, num_samples)) * rng.uniform(0, 1, (batch, 1)) / 9).astype(np.float32)
        scaled = torch.from_numpy(samples / np.abs(samples).max(1, keepdims=True))
        wanted = frozen.predict(transform(scaled, centred=False)).numpy()
        assert answer(exported / "model.onnx", samples=samples) == pytest.approx(wanted, abs=1e-5)
        by_int8 = answer(exported / "model.int8.onnx", samples=samples)
        assert by_int8 == pytest.approx(wanted, abs=0.05)
        assert np.abs(by_int8 - wanted).max() > 1e-5, "the weights are rounded"


def test_a_listen_model_is_exported_with_small_embeddings(heard: Path, relisten_model: Path) -> None:
    words = ["data=kkbox", "data.root=logs/synth/l", "export.resamples=20", "export.rounds=5", "run.name=listens"]
    assert door("export", f"model={relisten_model}", *words, cwd=heard) == 0
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
    whole, small = (
        {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(folder / name).graph.initializer}
        for name in ("model.onnx", "model.int8.onnx")
    )
    assert small["rows"].dtype == np.int8
    assert "network.table" not in small
    error = np.abs(small["rows"] * small["scales"] - whole["network.table"])
    assert (error <= 0.501 * small["scales"]).all()


def test_a_graph_beyond_the_tolerance_is_not_written(
    run: Callable[..., int], relisten_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export.tolerance=0", "export.num_windows=200", "export.rounds=5", "run.name=x"]
    assert run("export", f"model={relisten_model}", *words) == 1
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


def test_labels_by_themselves_have_probabilities_by_themselves(workshop: Path) -> None:
    folder = model_folder.load(workshop / "logs/train/tiny/model")
    levels, standardise = 20 * torch.randn(3, 128, 43), folder.facts["standardise"]
    with torch.no_grad():
        found = PortableLevels(folder.model.eval(), **standardise, multi_label=True)(levels)
    frozen = Frozen(folder.model, torch.device("cpu"), **standardise, multi_label=True)
    assert torch.allclose(found, frozen.predict(levels.clone()), atol=1e-6)


@pytest.mark.slow
def test_pictures_go_in_as_levels(run: Callable[..., int], tmp_path: Path) -> None:
    """The window is all of a picture; a recurrent layer is exported for one length."""
    rng = np.random.default_rng(0)
    for number in range(8):
        levels = np.linspace(0.8, 0.2, 64)[:, None] + 0.1 * rng.standard_normal((64, 100))
        levels[number % 2 * 20 : number % 2 * 20 + 10] += 0.3
        pixels = matplotlib.colormaps["magma"](np.clip(levels[::-1], 0, 1), bytes=True)[..., :3]
        (tmp_path / f"drawn/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.copy()).save(tmp_path / f"drawn/{number % 2}/{number}.png")
    words = [
        f"data.root={tmp_path}/drawn",
        "split=stratified",
        "model=crnn",
        "model.widths=[4,8]",
        "train.batch=2",
        "train.num_epochs=1",
    ]
    assert run("train", *words, "run.name=p") == 0
    assert run("export", "model=logs/train/p/model", "export.num_windows=40", "export.rounds=5", "run.name=p") == 0
    parity = read(tmp_path / "logs/export/p")["metrics"]["parity"]
    assert (parity["n"], parity["is_held"]) == (40, True)


def test_what_cannot_be_exported_is_refused(
    run: Callable[..., int], relisten_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "svm").mkdir()
    (tmp_path / "svm/model.json").write_text('{"task": "popularity"}')
    assert run("export", "model=svm", "run.name=a") == 2
    assert "a support vector machine" in capsys.readouterr().err
    assert run("export", f"model={relisten_model}", f"data.root={tmp_path}", "run.name=b") == 2
    assert "data=kkbox" in capsys.readouterr().err
