"""The same model by torch and, exported, by onnxruntime: what they answer to the same windows or rows, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.models.star import OWN
from parallel_tunes.serve.export import Graphs
from parallel_tunes.train.frozen import Frozen
from parallel_tunes.train.learner import Inputs, Rows, Waveforms
from parallel_tunes.train.model_folder import ModelFolder
from parallel_tunes.train.relisten_learner import FrozenListens
from parallel_tunes.train.relisten_model import RelistenFolder
from parallel_tunes.train.windows import AT_ONCE, Feed

Answers = NDArray[np.floating]  # (num, num_classes); of rows (num,), of listening again
Runtime = Callable[[Feed], Answers]
CPU = torch.device("cpu")


def start_all(by_torch: Runtime, graphs: Graphs) -> dict[str, Runtime]:
    """The runtimes by name: torch, float32 and int8, the graphs on one thread."""
    return {"torch": by_torch, "float32": _start(graphs.float32), "int8": _start(graphs.int8)}


def _start(graph: bytes) -> Runtime:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only: it warns of inputs that have default values
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def answer(feed: Feed) -> Answers:
        found: Answers = session.run(None, feed)[0]
        return found

    return answer


def run_genre(folder: ModelFolder) -> Runtime:
    """By torch, as an evaluation does; the model is changed for it, and can be exported no more."""
    log_mel = None if folder.features.kind == "picture" else front_end.definition(folder.features)
    frozen = Frozen(folder.model, CPU, log_mel=log_mel, multi_label=folder.multi_label, **folder.facts["standardise"])

    def answer(feed: Feed) -> Answers:
        parts = [torch.tensor(array) for array in feed.values()]  # copies, since levels are standardised in place
        inputs: Inputs = parts[0] if log_mel is None else Waveforms(*parts)
        return np.asarray(frozen.predict(inputs).numpy())

    return answer


def run_listens(folder: RelistenFolder) -> Runtime:
    """By torch, as an evaluation does."""
    frozen = FrozenListens(folder.model, CPU)

    def answer(feed: Feed) -> Answers:
        codes = torch.from_numpy(feed["codes"].astype(np.int32))
        numbers = torch.from_numpy(feed["numbers"]) if "numbers" in feed else torch.empty(len(codes), 0)
        return np.asarray(frozen.predict(Rows(codes, numbers))[:, 1].numpy())

    return answer


def make_windows(folder: ModelFolder, num: int, seed: int) -> Iterator[Feed]:
    """Windows of tones in noise, loud and faint, of clips that are as loud elsewhere; every third is cut short."""
    rng, features = np.random.default_rng(seed), folder.features
    window = int(folder.facts["windows"]["num_frames"])
    for first in range(0, num, AT_ONCE):
        size = min(AT_ONCE, num - first)
        is_short = np.arange(size) % 3 == 1
        if features.kind == "picture":
            yield {"levels": rng.uniform(-80, 0, (size, features.num_mels, window)).astype(np.float32)}
            continue
        definition = front_end.definition(features)
        times = np.arange((window - 1) * definition.hop_length + definition.n_fft) / definition.sample_rate_hz
        tones = np.sin(2 * np.pi * rng.uniform(50, definition.sample_rate_hz / 2, (size, 1)) * times)
        noise = rng.standard_normal(tones.shape) * 10 ** rng.uniform(-4, 0, (size, 1))
        samples = ((tones + noise) * 10 ** rng.uniform(-3, 0, (size, 1)) / 8).astype(np.float32)
        yield {
            "samples": samples,
            "gain": (1 / np.abs(samples).max(1)).astype(np.float32),
            "floor_db": rng.uniform(-40, 0, size).astype(np.float32),  # no lower than 80 dB below a tone of full scale
            "num_frames": np.where(is_short, rng.integers(1, window, size), window),
        }


def make_rows(folder: RelistenFolder, num: int, seed: int) -> Feed:
    """Rows of users, songs and codes drawn evenly, their numbers from a normal distribution."""
    rng, sizes = np.random.default_rng(seed), folder.model.sizes
    codes = rng.integers(0, [sizes.num_users, sizes.num_songs, *sizes.row], (num, OWN + len(sizes.row)))
    numbers = rng.standard_normal((num, sizes.row_numbers)).astype(np.float32)
    return {"codes": codes, **({"numbers": numbers} if sizes.row_numbers else {})}


class Comparison:
    """What all runtimes answer, and how far the exported model in float32 is from torch.

    Attributes:
        largest: difference in probability so far; of what is no number, 1.
        num: windows, or rows, so far.
    """

    def __init__(self, runtimes: dict[str, Runtime]) -> None:
        self.runtimes, self.largest, self.num = runtimes, 0.0, 0

    def answer(self, feed: Feed) -> dict[str, Answers]:
        """The answers to a feed by runtime."""
        answers = {name: run(feed) for name, run in self.runtimes.items()}
        apart = np.nan_to_num(np.abs(answers["float32"] - answers["torch"]), nan=1.0)
        self.largest, self.num = max(self.largest, float(apart.max())), self.num + len(apart)
        return answers


def time_all(runtimes: dict[str, Runtime], feed: Feed, rounds: int) -> dict[str, list[float]]:
    """Milliseconds that each takes for `feed`, one of each in turn; a first round, that fills caches, is not counted."""
    ms: dict[str, list[float]] = {name: [] for name in runtimes}
    for _ in range(rounds + 1):
        for name, answer in runtimes.items():
            began = time.perf_counter()
            answer(feed)
            ms[name].append(1000 * (time.perf_counter() - began))
    return {name: taken[1:] for name, taken in ms.items()}
