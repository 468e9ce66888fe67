"""The door: `python -m parallel_tunes JOB key=value … [-- FILE …]`, installed as `ptunes`. Hydra ends here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, get_origin

from parallel_tunes import schema
from parallel_tunes.config import CONFIGS, JOBS, VARIANTS
from parallel_tunes.config_svm import GIVEN
from parallel_tunes.parallel.errors import RankLost
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import say
from parallel_tunes.schema import UserError, suggest

USAGE = """usage: ptunes JOB key=value … [-- FILE …]      also: python -m parallel_tunes, torchrun -m parallel_tunes

{jobs}

`ptunes JOB --help` shows a job's keys; `--cfg job` the values it would run with; `-m` sweeps over key=a,b,c.
"""
# conf/model/ is a group, so Hydra cannot take `model` as a plain key: where a job wants a model folder, the door renames it;
# top_k is what people type
SHOWN_KEYS = {"model": "model_path", "top_k": "predict.top_k"}
# torchrun ends all ranks once one has ended: the others wait for rank 0 to say why, and are ended then
LAST_WORDS_S = 10.0
FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a job and exit: 0 done, 1 done in part or failed, 2 the command cannot be done as given."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        sys.exit(run(words))
    except (UserError, RankLost) as error:
        if os.environ.get("PT_DEBUG") == "1":
            traceback.print_exc()
        if isinstance(error, RankLost):
            sys.exit(1)
        mesh = Mesh()
        if mesh.launch and not mesh.is_first:
            time.sleep(LAST_WORDS_S)
        if mesh.is_first:
            print(f"ptunes: {' '.join(str(error).split())}", file=sys.stderr)
            if os.environ.get("PT_BATCH") == "1":
                print("refused", flush=True)  # tells the batch process that starting again would not help
        sys.exit(2)


def run(words: list[str]) -> int:
    """What `main` does, with the exit code returned."""
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, JOBS))
        say(USAGE.format(jobs="\n".join(f"  {name:{width}}  {job.__doc__}" for name, job in JOBS.items())), end="")
        return 0
    job, *rest = words
    if job not in JOBS:
        raise UserError(f"unknown job {job!r}{suggest(job, list(JOBS))}; the jobs are {', '.join(JOBS)}")
    job = find_variant(job, rest)
    if any(word in ("-h", "--help") for word in rest[: rest.index("--") if "--" in rest else None]):
        say(describe(job), end="")
        return 0
    if job == "submit":
        own, words, target = split_submission(rest)
        return compose_and_run(job, to_overrides(job, own), words=tuple(words), target=target)
    return compose_and_run(job, to_overrides(job, rest))


def find_variant(job: str, words: Sequence[str]) -> str:
    """The name under which CONFIGS and conf/ have the job that these words ask for."""
    return next((variant for (name, word), variant in VARIANTS.items() if name == job and word in words), job)


def split_submission(words: list[str]) -> tuple[list[str], list[str], Any]:
    """What is meant for `submit` itself, what for the job that it submits, and that job's config.

    Raises:
        UserError: the job is unknown, or takes no such key.
    """
    own_keys = {leaf.name for leaf in schema.keys_of(JOBS["submit"]) if not leaf.name.startswith("run.")} | {
        "resources"
    }
    own = [word for word in words if word.startswith("-") or word.partition("=")[0] in own_keys]
    rest = [word for word in words if word not in own]
    job = next((word.partition("=")[2] for word in reversed(own) if word.startswith("job=")), "train")
    choices = next(leaf.choices for leaf in schema.keys_of(JOBS["submit"]) if leaf.name == "job")
    if job not in choices:
        raise UserError(f"job={job}: expected one of {', '.join(choices)}{suggest(job, list(choices))}")
    variant = find_variant(job, rest)
    return own, rest, compose(variant, to_overrides(variant, rest))


def compose(job: str, overrides: list[str]) -> Any:
    """The config of a job that is not to be run here."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(schema.shipped("conf").resolve())):
            return to_config(job, hydra.compose(job, overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error


def to_config(job: str, composed: Any) -> Any:
    """A job's config from what Hydra composed, interpolations resolved.

    Raises:
        UserError: a value is not what its key takes.
    """
    from omegaconf import OmegaConf

    as_given: Any = OmegaConf.to_container(composed)
    tree: Any = OmegaConf.to_container(composed, resolve=True)
    for leaf in schema.keys_of(CONFIGS[job]):
        *groups, last = leaf.name.split(".")
        before, parent = as_given, tree
        for group in groups:
            before, parent = before.get(group) or {}, parent.get(group) or {}
        if last in parent and not leaf.verbatim:
            parent[last] = read_text(before[last], parent[last])
    return schema.build(CONFIGS[job], {str(name): value for name, value in tree.items()})


def read_text(before: Any, value: Any) -> Any:
    """What an interpolation gives is a text: for a number or a list it means what it would mean on the command line."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    if isinstance(before, list) and isinstance(value, list):
        return [read_text(*pair) for pair in zip(before, value, strict=True)]
    if isinstance(before, str) and isinstance(value, str) and "${" in before:
        with contextlib.suppress(OverrideParseException):
            return OverridesParser.create().parse_override(f"key={value}").value()
    return value


def explain(error: Exception) -> str:
    """What Hydra or OmegaConf says, without where in its own objects; and how an interpolation is written that is none."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.strip().startswith("object_type=")]
    key = next((line.partition("full_key: ")[2] for line in lines if "full_key: " in line), "")
    text = " ".join(line for line in lines if "full_key: " not in line)
    text = re.sub(r"^\w+ raised while resolving interpolation: ", "", text)
    if "nterpolation" in f"{type(error).__name__} {text}":
        text += r"; a text that holds ${ as it is has \${ there"
    return f"{key}: {text}" if key else text


def describe(job: str) -> str:
    """The keys of a job with their defaults, bounds and meanings."""
    shown = next((f"{name} {word}" for (name, word), variant in VARIANTS.items() if variant == job), job)
    lines = [f"ptunes {shown}: {CONFIGS[job].__doc__}"]
    lines += [f"with other keys: ptunes {job} {word} --help" for name, word in VARIANTS if name == job] + [""]
    defaults, options = schema.read_defaults(job)
    for group in options:
        names = list_options(job, group)
        if len(names) > 1:
            lines.append(f"  {group}={'|'.join(names)}")
    rows = []
    for leaf in schema.keys_of(CONFIGS[job]):
        value = defaults.get(leaf.name)
        shown = schema.to_word(value)
        name = {name: shown for shown, name in SHOWN_KEYS.items()}.get(leaf.name, leaf.name)
        rows.append((f"{name}={shown}", leaf.meaning + (f" ({', '.join(leaf.choices)})" if leaf.choices else "")))
    width = min(max(len(left) for left, _ in rows), 36)
    lines += [f"  {left:{width}}  {right}" for left, right in rows]
    return "\n".join(lines) + "\n"


def list_options(job: str, group: str) -> list[str]:
    """What a group may be: the files of conf/<group>/ that hold the keys which this job has there, and what makes it another job."""
    prefix = f"{group}."
    wanted = {leaf.name.removeprefix(prefix) for leaf in schema.keys_of(CONFIGS[job]) if leaf.name.startswith(prefix)}
    fitting = [
        option
        for option in schema.read_defaults(job)[1][group]
        if set(schema.flatten(schema.defaults(group, option))) == wanted
    ]
    return fitting + [word.partition("=")[2] for name, word in VARIANTS if name == job and word.startswith(f"{group}=")]


def to_overrides(job: str, words: Sequence[str]) -> list[str]:
    """Command-line words as Hydra overrides: paths, names and all words after `--` are quoted, so that any text goes.

    Raises:
        UserError: a word is no key=value, or its key is unknown.
    """
    words, files = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    leaves = {leaf.name: leaf for leaf in schema.keys_of(CONFIGS[job])}
    groups = schema.read_defaults(job)[1]
    renamed = {shown: name for shown, name in SHOWN_KEYS.items() if name in leaves}
    overrides = []
    flag_value, is_sweep = False, bool({"-m", "--multirun"} & set(words))
    for word in words:
        name, equals, value = word.partition("=")
        name = renamed.get(name, name)
        if flag_value or word.startswith("-"):
            flag_value = word in FLAGS_WITH_VALUE
            overrides.append(word)
        elif (job, word) in GIVEN:
            continue
        elif not equals:
            raise UserError(f"{word!r} is no key=value" + ("; files come after --" if "files" in leaves else ""))
        elif name in leaves:
            overrides.append(f"{name}={to_value(leaves[name], value)}")
        elif name in groups:
            known = list_options(job, name)
            for option in value.split(",") if is_sweep else [value]:
                if option not in known:
                    raise UserError(f"{word}: expected one of {', '.join(known)}{suggest(option, known)}")
            overrides.append(word)
        elif name.startswith("hydra"):
            overrides.append(word)
        else:
            raise UserError(
                f"unknown key {name}{suggest(name, [*leaves, *groups])}; `ptunes {job} --help` lists the keys"
            )
    if files and "files" not in leaves:
        raise UserError(f"ptunes {job} takes no files after --")
    if files:
        overrides.append(f"files=[{','.join(map(quote, files))}]")
    return overrides


def to_value(leaf: schema.Key, text: str) -> str:
    """The text of a key's value in Hydra's grammar, each entry of a list verbatim where the key is."""
    if not leaf.verbatim or text == "null":
        return text
    if get_origin(leaf.kind) is tuple and text.startswith("[") and text.endswith("]"):
        parts = (part.strip() for part in text[1:-1].split(","))
        return "[" + ",".join(quote(part, interpolates=True) for part in parts if part) + "]"
    return quote(text, interpolates=True)


def quote(text: str, *, interpolates: bool = False) -> str:
    """`text` as a quoted value of Hydra's grammar that means exactly `text`, up to its interpolations where they count."""
    # In Hydra a backslash is special only before a quote or another backslash run that ends at a quote.
    if not (interpolates and has_interpolations(text)):
        text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + r"\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def has_interpolations(text: str) -> bool:
    """Whether a text holds ${…} that OmegaConf would resolve; a dollar, or a brace that is never closed, is a part of a name."""
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    if "${" not in text:
        return False
    try:
        parse(text)
    except GrammarParseError:
        return False
    return True


def compose_and_run(job: str, overrides: list[str], **filled_in: Any) -> int:
    """Let Hydra compose the job's config (and sweep over it with -m), fill in what is no key; run the job for each."""
    import hydra
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    codes: list[int] = []
    failures: list[Exception] = []  # kept from Hydra, which would print a page about them

    @hydra.main(config_path=str(schema.shipped("conf").resolve()), config_name=job, version_base="1.3")
    def composed(values: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        sweep = HydraConfig.get()
        part = sweep.job.num if sweep.mode is not None and sweep.mode.name == "MULTIRUN" else None
        try:
            cfg = dataclasses.replace(to_config(job, values), **filled_in)
            from parallel_tunes import jobs

            codes.append(jobs.run_job(job, cfg, part=part))
        except (UserError, RankLost) as error:
            failures.append(error)
        except OmegaConfBaseException as error:
            failures.append(UserError(explain(error)))

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of Hydra's own pages of text
    sys.argv = ["ptunes", *overrides]
    try:
        composed()
    except (HydraException, OmegaConfBaseException) as error:
        where = f"{error.override}: " if isinstance(error, OverrideParseException) and error.override else ""
        raise UserError(f"{where}{explain(error)}") from error
    for failure in failures:
        raise failure
    return max(codes, default=0)


if __name__ == "__main__":
    main()
