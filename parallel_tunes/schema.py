"""How a config is described and checked: keys with meanings and bounds, and plain values built into dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

Config = TypeVar("Config")
SECRET = "(secret)"


class UserError(Exception):
    """What the user can mend, in one line. The door prints it and exits with code 2."""


def key(
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    verbatim: bool = False,
    may_be_empty: bool = False,
    secret: bool = False,
) -> Any:
    """A config key: its meaning, its inclusive bounds or choices; `verbatim` keeps its text away from Hydra's grammar.

    A list with a lower bound for its entries has at least one, unless it `may_be_empty`. What is `secret` is written nowhere.
    """
    bounds = {"low": low, "high": high, "choices": choices, "may_be_empty": may_be_empty or low is None}
    return field(metadata={"meaning": meaning, "verbatim": verbatim, "secret": secret, **bounds})


@dataclass(frozen=True)
class Key:
    """A leaf of a job's config: its dotted name, its type, its meaning and bounds."""

    name: str
    kind: Any
    meaning: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    may_be_empty: bool
    verbatim: bool


def keys_of(config: type[Any], prefix: str = "") -> Iterator[Key]:
    """All leaves of a config dataclass, in order."""
    hints = typing.get_type_hints(config)
    for entry in dataclasses.fields(config):
        kind, name = hints[entry.name], prefix + entry.name
        if dataclasses.is_dataclass(kind):
            assert isinstance(kind, type)
            yield from keys_of(kind, name + ".")
        elif entry.metadata:  # what has none is no key: the door fills it in
            verbatim = entry.metadata["verbatim"] or Path in (kind, *typing.get_args(kind))
            facts = {fact: entry.metadata[fact] for fact in ("meaning", "low", "high", "choices", "may_be_empty")}
            yield Key(name, kind, **facts, verbatim=verbatim)


def suggest(word: str, known: list[str]) -> str:
    """` (did you mean …?)` for a word that is nearly one of `known`, else nothing."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def build(config: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """A config dataclass from a plain tree of values.

    Raises:
        UserError: a key is unknown, missing, of the wrong type or out of its bounds.
    """
    hints = typing.get_type_hints(config)
    for name in values:
        if name not in hints:
            raise UserError(f"unknown key {prefix}{name}{suggest(str(name), list(hints))}")
    leaves = {leaf.name: leaf for leaf in keys_of(config)}
    built: dict[str, Any] = {}
    for name in hints:
        if name not in values and name not in (leaf.partition(".")[0] for leaf in leaves):
            continue
        if name not in values:
            raise UserError(f"{prefix}{name} is missing: give it a value")
        if name in leaves:
            built[name] = convert(leaves[name], values[name], prefix + name)
        elif isinstance(values[name], Mapping):
            built[name] = build(hints[name], values[name], prefix + name + ".")
        else:
            raise UserError(f"{prefix}{name}={values[name]}: this is a group of keys, or names a file of conf/{name}/")
    return config(**built)


def convert(leaf: Key, value: Any, name: str) -> Any:
    """`value` as the type of `leaf`, within its bounds."""
    kind, optional = leaf.kind, False
    if isinstance(kind, types.UnionType):
        optional = type(None) in typing.get_args(kind)
        kind = next(option for option in typing.get_args(kind) if option is not type(None))
    if value is None:
        if optional:
            return None
        raise UserError(f"{name}=null: {_expected(leaf, kind)}")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple) or (not value and not leaf.may_be_empty):
            raise UserError(f"{name}={value}: expected a list such as [1,2]")
        return tuple(_scalar(leaf, typing.get_args(kind)[0], entry, name) for entry in value)
    return _scalar(leaf, kind, value, name)


def _scalar(leaf: Key, kind: Any, value: Any, name: str) -> Any:
    wrong = UserError(f"{name}={value}: {_expected(leaf, kind)}")
    if kind is bool:
        if not isinstance(value, bool):
            raise wrong
    elif kind in (int, float):
        if value in leaf.choices:  # auto, say
            return value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (kind is int and not float(value).is_integer())
        ):
            raise wrong
        if (
            not math.isfinite(value)
            or (leaf.low is not None and value < leaf.low)
            or (leaf.high is not None and value > leaf.high)
        ):
            raise wrong
        value = kind(value)
    elif kind is Path:
        if not str(value) or "\0" in str(value):
            raise UserError(f"{name}: a path cannot be empty")
        value = Path(str(value))
    elif leaf.choices and value not in leaf.choices:
        raise UserError(f"{name}={value}: {_expected(leaf, kind)}{suggest(str(value), list(leaf.choices))}")
    elif not isinstance(value, str):
        value = str(value)  # run.name=7 is a name
    return value


def _expected(leaf: Key, kind: Any) -> str:
    if leaf.choices and kind is str:
        return "expected one of " + ", ".join(leaf.choices)
    noun = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "text"}[kind]
    words = "".join(f", or {word}" for word in leaf.choices)
    if leaf.low is not None and leaf.high is not None:
        return f"expected {noun} from {leaf.low:g} to {leaf.high:g}{words}"
    return f"expected {noun}" + (f" of at least {leaf.low:g}" if leaf.low is not None else "") + words


def to_plain(config: Any) -> Any:
    """A config dataclass as a tree of JSON values, secrets blotted out."""
    if dataclasses.is_dataclass(config):
        values = {entry.name: (getattr(config, entry.name), entry.metadata) for entry in dataclasses.fields(config)}
        return {
            name: SECRET if facts.get("secret") and value is not None else to_plain(value)
            for name, (value, facts) in values.items()
        }
    if isinstance(config, tuple):
        return [to_plain(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def to_words(config: Any, job: str) -> list[str]:
    """A job's config as the words of a command line that mean it: what differs from the defaults."""
    values, usual = flatten(to_plain(config)), read_defaults(job)[0]
    differing = (leaf.name for leaf in keys_of(type(config)) if values[leaf.name] != usual.get(leaf.name, values))
    return [f"{name}={to_word(values[name])}" for name in differing]


def to_word(value: Any) -> str:
    """A value as it stands on a command line."""
    if isinstance(value, list):
        return "[" + ",".join(map(to_word, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def shipped(name: str) -> Path:
    """conf/, hpc/ or slurm/: of this checkout, or the copy in the wheel."""
    inside = Path(__file__).parent / name
    return inside if inside.is_dir() else Path(__file__).parent.parent / name


def defaults(group: str, option: str) -> dict[str, Any]:
    """The values of conf/<group>/<option>.yaml."""
    values: dict[str, Any] = yaml.safe_load((shipped("conf") / group / f"{option}.yaml").read_text())
    return values


def read_defaults(job: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """A job's default values by dotted key and its groups' options, read without Hydra: --help must be quick."""
    folder = shipped("conf")
    tree = yaml.safe_load((folder / f"{job}.yaml").read_text())
    options: dict[str, list[str]] = {}
    for entry in tree.pop("defaults"):
        for group, option in entry.items() if isinstance(entry, dict) else ():
            tree[group] = defaults(group, option)
            options[group] = sorted(file.stem for file in (folder / group).glob("*.yaml"))
    return flatten(tree), options
