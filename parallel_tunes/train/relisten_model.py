"""The folder of a re-listen model: the network, the words its codes stand for, and what was counted up to the last listen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from parallel_tunes import schema
from parallel_tunes.config_listens import ListenFeaturesConfig, RelistenModelConfig
from parallel_tunes.data.causal import CausalState
from parallel_tunes.models.relisten_net import RelistenNet, RelistenSeed
from parallel_tunes.models.star import Sizes
from parallel_tunes.run import Run
from parallel_tunes.schema import UserError
from parallel_tunes.train import model_folder

Arrays = dict[str, NDArray[Any]]
Network = RelistenNet | RelistenSeed


@dataclass(frozen=True)
class Dictionary:
    """What a model needs besides its weights to answer rows of words.

    Attributes:
        words: by vocabulary, the word of each raw code; 0 is missing.
        lookups: by column, the model's code of each raw code.
        vocabularies: by column, whose words its codes stand for.
        song_artist: raw code of each song's first artist.
        center, scale: of the row's numbers, (num_numbers,).
        state: what was counted up to the last labelled row; None where the features are static.
    """

    words: dict[str, pa.StringArray]
    lookups: dict[str, NDArray[np.int32]]
    vocabularies: dict[str, str]
    song_artist: NDArray[np.int32]
    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    state: CausalState | None

    def find(self, column: str, words: pa.StringArray) -> NDArray[np.int32]:
        """Raw codes of words: 0 where there is none, -1 where a word is not known."""
        known = self.words[self.vocabularies.get(column, column)]
        found = pc.fill_null(pc.index_in(words, value_set=known), -1).to_numpy(zero_copy_only=False).astype(np.int32)
        is_missing = pc.fill_null(pc.equal(words, ""), True).to_numpy(zero_copy_only=False)
        return np.where(is_missing, np.int32(0), found)

    def encode(self, column: str, raw: NDArray[np.int32]) -> NDArray[np.int32]:
        """The model's codes of raw codes; those of words it does not know are 1, unseen."""
        lookup = self.lookups[column]
        return np.where(raw < 0, np.int32(1), lookup[np.maximum(raw, 0)])

    def stranger(self, kind: str) -> int:
        """The number of the user, or song, that stands for all whom the tables do not know."""
        return len(self.words[kind])

    def tensors(self) -> dict[str, Tensor]:
        """What goes into model.safetensors beside the weights."""
        arrays: Arrays = {f"lookup.{name}": lookup for name, lookup in self.lookups.items()}
        for name, words in self.words.items():
            _, ends, data = words.buffers()
            bounds = np.frombuffer(ends, np.int32)[words.offset : words.offset + len(words) + 1]
            letters = np.frombuffer(data or b"", np.uint8)[bounds[0] : bounds[-1]]
            arrays |= {f"words.{name}.ends": bounds - bounds[0], f"words.{name}.letters": letters}
        arrays |= {"song_artist": self.song_artist, "center": self.center, "scale": self.scale}
        if self.state:
            arrays |= {f"state.{name}": array for name, array in self.state.to_arrays().items()}
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], vocabularies: dict[str, str]) -> Dictionary:
        """What `tensors` gave.

        Raises:
            KeyError, ValueError: it did not.
        """
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        words = {}
        for name in sorted({name.split(".")[1] for name in arrays if name.startswith("words.")}):
            ends, letters = (
                np.ascontiguousarray(arrays[f"words.{name}.ends"], np.int32),
                arrays[f"words.{name}.letters"],
            )
            if len(ends) == 0 or ends[0] != 0 or (np.diff(ends) < 0).any() or ends[-1] != len(letters):
                raise ValueError(f"the words of {name} do not fit together")
            words[name] = pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(letters))
            words[name].validate(full=True)
        lookups = {name.removeprefix("lookup."): array for name, array in arrays.items() if name.startswith("lookup.")}
        state = {name.removeprefix("state."): array for name, array in arrays.items() if name.startswith("state.")}
        return cls(
            words, lookups, vocabularies, arrays["song_artist"], arrays["center"], arrays["scale"],
            CausalState.from_arrays(state) if state else None,
        )  # fmt: skip


@dataclass(frozen=True)
class RelistenFolder:
    """A trained network and all that is needed to use it as it was trained."""

    model: Network
    dictionary: Dictionary
    features: ListenFeaturesConfig
    facts: dict[str, Any]  # model.json


def build(cfg: RelistenModelConfig, sizes: Sizes, seed: int) -> Network:
    """The architecture that `cfg` names, its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if cfg.name == "relisten_seed":
            return RelistenSeed(sizes, width=cfg.width, hidden=cfg.hidden)
        return RelistenNet(sizes, width=cfg.width, hidden=cfg.hidden, num_factors=cfg.factors)


def save(run: Run, weights: dict[str, Tensor], dictionary: Dictionary, sizes: Sizes, facts: dict[str, Any]) -> None:
    """Write <run>/model/."""
    about = {"task": "relisten", "sizes": asdict(sizes), "vocabularies": dictionary.vocabularies}
    model_folder.save(
        run, {f"net.{name}": tensor for name, tensor in weights.items()} | dictionary.tensors(), about | facts
    )


def load(folder: Path | None) -> RelistenFolder:
    """Read the folder of a re-listen model.

    Raises:
        UserError: it is missing, unfinished, damaged, or of another task.
    """
    facts, tensors = model_folder.read(folder)
    if facts.get("task") != "relisten":
        raise UserError(f"model={folder}: a model of task={facts.get('task')}, which takes no listens")
    try:
        architecture = schema.build(RelistenModelConfig, facts["architecture"], "architecture.")
        features = schema.build(ListenFeaturesConfig, facts["features"], "features.")
        parts: dict[str, Any] = {
            name: tuple(size) if isinstance(size, list) else int(size) for name, size in facts["sizes"].items()
        }
        network = build(architecture, Sizes(**parts), 0)
        network.load_state_dict({name[4:]: tensor for name, tensor in tensors.items() if name.startswith("net.")})
        rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("net.")}
        dictionary = Dictionary.of(rest, dict(facts["vocabularies"]))
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, UserError, pa.ArrowException) as error:
        raise UserError(f"model={folder}: damaged ({type(error).__name__}: {str(error).splitlines()[0]})") from error
    return RelistenFolder(network.eval(), dictionary, features, facts)
