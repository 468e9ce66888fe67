from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from parallel_tunes import config_run, config_synth, schema
from parallel_tunes.__main__ import list_options
from parallel_tunes.config import CONFIGS, JOBS, FeaturesConfig
from parallel_tunes.config_run import SplitConfig
from parallel_tunes.schema import UserError, read_defaults

CONF = schema.shipped("conf")


def features(**changed: object) -> dict[str, object]:
    return {**schema.defaults("features", "logmel"), **changed}


@pytest.mark.parametrize("job", JOBS)
def test_conf_and_dataclasses_hold_the_same_keys(job: str) -> None:
    values, _ = read_defaults(job)
    assert set(values) == {leaf.name for leaf in schema.keys_of(JOBS[job])}


@pytest.mark.parametrize("job", CONFIGS)
def test_every_option_of_every_group_builds(job: str) -> None:
    groups = typing.get_type_hints(CONFIGS[job])
    for group in read_defaults(job)[1]:
        names = [name for name in list_options(job, group) if (CONF / group / f"{name}.yaml").is_file()]
        assert names
        for name in set(names) - (
            {"spotify", "popularity", "kkbox", "relisten"} if job in JOBS else set()
        ):  # which makes it another job
            assert dataclasses.is_dataclass(schema.build(groups[group], schema.defaults(group, name)))


def test_every_key_has_a_meaning() -> None:
    assert all(len(leaf.meaning) > 5 for job in CONFIGS.values() for leaf in schema.keys_of(job))


def test_configs_are_frozen() -> None:
    split = schema.build(SplitConfig, schema.defaults("split", "auto"))
    for name in ("seed", "train"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(split, name, 1)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"num_mels": "many"}, "features.num_mels=many: expected a whole number from 1 to 1024"),
        ({"num_mels": 12.5}, "features.num_mels=12.5"),
        ({"num_mels": True}, "features.num_mels=True"),
        ({"num_mels": None}, "features.num_mels=None"),
        ({"top_db": float("nan")}, "features.top_db=nan"),
        ({"normalise": "peek"}, "did you mean peak?"),
        ({"trim": "yes"}, "expected true or false"),
        ({"colour": 1}, "unknown key features.colour"),
        ({"nfft": 1}, "did you mean n_fft?"),
    ],
)
def test_bad_values_are_one_clear_line(changed: dict[str, object], says: str) -> None:
    with pytest.raises(UserError) as caught:
        schema.build(FeaturesConfig, features(**changed), "features.")
    assert says.replace("=None", "=null") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_key_and_scalar_for_a_group() -> None:
    with pytest.raises(UserError, match=r"run\.name is missing"):
        schema.build(config_run.RunConfig, {"dir": None}, "run.")
    values = {**yaml.safe_load((CONF / "synth.yaml").read_text()), "run": 3}
    values.pop("defaults")
    with pytest.raises(UserError, match="run=3: this is a group of keys"):
        schema.build(config_synth.SynthJob, values)


def test_values_become_their_types() -> None:
    built = schema.build(FeaturesConfig, features(clip_s=None, top_db=80))
    assert built.clip_s is None
    assert isinstance(built.top_db, float)
    run = schema.build(config_run.RunConfig, {"dir": "a b", "name": 7, "page": False, "max_restarts": 3})
    assert run == config_run.RunConfig(dir=Path("a b"), name="7", page=False, max_restarts=3)


def test_plain_and_back() -> None:
    built: Any = schema.build(FeaturesConfig, features())
    assert schema.build(FeaturesConfig, schema.to_plain(built)) == built
