"""hpc/container: images are not built here; what the two recipes say is read, and what they run is run up to pip."""

from __future__ import annotations

import http.server
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from fakes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE, DEFINITION = ROOT / "hpc/container/Dockerfile", ROOT / "hpc/container/parallel_tunes.def"
SETTING = re.compile(r"cd [\w/]+|export( \w+=[\w/,.:$]*)+")  # a word of text, nothing that is run
HOME = "/opt/parallel_tunes"


@dataclass
class Recipe:
    """What both kinds of file say, in the order in which they say it."""

    base: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # while it is built
    steps: list[tuple[str, str]] = field(default_factory=list)  # ("copy", name in the checkout) or ("run", command)
    folder: str = ""  # where the steps are taken
    later: dict[str, str] = field(default_factory=dict)  # settings of what runs in it

    @property
    def commands(self) -> list[str]:
        return [text for kind, text in self.steps if kind == "run"]


def pairs(words: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(words))


def instructions() -> list[tuple[str, str]]:
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text()).splitlines()
    split = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, rest in split]


def stage(name: str) -> dict[str, str]:
    """The instructions of one stage; of several the last."""
    text = instructions()
    starts = [at for at, (word, _) in enumerate(text) if word == "FROM"] + [len(text)]
    found = [text[a:b] for a, b in itertools.pairwise(starts) if text[a][1].endswith(f" AS {name}")]
    return dict(found[0])


def read_dockerfile() -> Recipe:
    recipe, is_built = Recipe(), False
    for name, rest in instructions():
        match name:
            case "FROM" if not recipe.base:
                recipe.base = rest.split()[0]
            case "LABEL":
                recipe.labels = pairs(rest)
            case "ENV":
                (recipe.later if is_built else recipe.settings).update(pairs(rest))
            case "WORKDIR" if not is_built:
                recipe.folder = rest
            case "COPY":
                *sources, to = rest.split()
                assert to in ("./", sources[0])
                recipe.steps += [("copy", source) for source in sources]
            case "RUN":
                recipe.steps.append(("run", rest))
                is_built = True
    recipe.later = {**recipe.settings, **recipe.later}
    return recipe


def sections() -> dict[str, list[str]]:
    """The lines of each section; the header's under ''."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in map(str.strip, DEFINITION.read_text().splitlines()):
        if line.startswith("%"):
            name = line[1:]
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


def read_definition() -> Recipe:
    found = sections()
    recipe = Recipe(base=dict(line.split(": ") for line in found[""])["From"])
    recipe.labels = dict(line.split(maxsplit=1) for line in found["labels"])
    for line in found["files"]:
        source, to = line.split()
        assert to == f"{HOME}/"  # the / makes it a folder, into which the source is put under its own name
        recipe.steps.append(("copy", source))
    defaults = dict(line.split("=", 1) for line in found["arguments"])
    for line in found["post -c /bin/bash"]:
        said = re.sub(r"\{\{ (\w+) \}\}", lambda name: defaults[name[1]], line)
        if not SETTING.fullmatch(said):
            recipe.steps.append(("run", said))
        elif said.startswith("cd "):
            recipe.folder = said.removeprefix("cd ")
        else:
            recipe.settings.update(pairs(said.removeprefix("export ")))
    for line in found["environment"]:
        recipe.later.update(pairs(line.removeprefix("export ")))
    return recipe


@pytest.fixture(params=[read_dockerfile, read_definition], ids=["Dockerfile", "definition"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    read: Recipe = request.param()
    return read


def run_by_ci() -> set[str]:
    """The lines of .ci/run and of the scripts that it starts."""
    scripts = [".ci/run"]
    for script in scripts:
        scripts += [
            found for found in re.findall(r"bash (hpc/\S+\.sh)", (ROOT / script).read_text()) if found not in scripts
        ]
    lines = [line for script in scripts for line in (ROOT / script).read_text().splitlines()]
    return {line.split(" #")[0].strip() for line in lines}


def test_every_command_is_one_that_ci_runs(recipe: Recipe) -> None:
    assert ". hpc/env.sh" in recipe.commands
    assert set(recipe.commands) <= run_by_ci()


def test_the_extras_are_ones_that_ci_installs(recipe: Recipe) -> None:
    (said,) = (line for line in run_by_ci() if line.startswith("export PT_EXTRAS="))
    extras = PROJECT["project"]["optional-dependencies"]
    installed = set(said.partition("=")[2].split(","))
    assert installed <= set(extras)
    for word in extras["test"]:
        if word.startswith("parallel_tunes["):
            installed |= set(word[len("parallel_tunes[") : -1].split(","))
    wanted = set(recipe.settings["PT_EXTRAS"].split(","))
    assert {"serve", "onnx"} <= wanted <= installed - {"test"}


def test_both_make_the_same() -> None:
    docker, apptainer = read_dockerfile(), read_definition()
    assert docker.base == apptainer.base
    assert docker.labels == apptainer.labels
    assert docker.folder == apptainer.folder == HOME
    copied = [{text for kind, text in recipe.steps if kind == "copy"} for recipe in (docker, apptainer)]
    assert copied[0] - {"parallel_tunes/__init__.py"} == copied[1]
    assert [text for text in apptainer.commands if text != "set -euo pipefail"] == docker.commands
    # pip takes an empty setting for none
    assert docker.settings == {name: value for name, value in apptainer.settings.items() if value}
    assert apptainer.later.items() <= docker.later.items()


def build(recipe: Recipe, tmp_path: Path) -> tuple[Path, list[str]]:
    """The steps, below tmp_path instead of /, with a pip that only says what it is asked for."""
    root = tmp_path / HOME[1:]
    root.mkdir(parents=True, exist_ok=True)
    environment = {name: value.replace("/opt/", f"{tmp_path}/opt/") for name, value in recipe.settings.items()}
    python = Path(environment["PT_VENV"]) / "bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n')
    python.chmod(0o755)
    environment = {**os.environ, "PT_PYTHON": sys.executable, **environment}
    for kind, text in recipe.steps:
        if kind == "run":
            # pip would install nothing to import, and say nothing
            assert (root / "parallel_tunes/__init__.py").exists()
            subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=root, env=environment, check=True)
        elif (ROOT / text).is_dir():
            shutil.copytree(ROOT / text, root / text, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / text).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / text, root / text)
    asked = (tmp_path / "asked").read_text().splitlines()
    return root, [line for line in asked if " install " in line]


def test_torch_is_installed_first_then_the_rest_and_what_is_copied_suffices(recipe: Recipe, tmp_path: Path) -> None:
    root, installs = build(recipe, tmp_path)
    pins = (root / "hpc/constraints.txt").read_text().splitlines()
    quiet = "-m pip install --quiet --disable-pip-version-check"
    assert installs == [
        f"{quiet} {next(line for line in pins if line.startswith('torch=='))}",
        f"{quiet} -c {root}/hpc/constraints.txt -e {root}[{recipe.settings['PT_EXTRAS']}]",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "parallel_tunes", "serve", "--help"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "serve.token" in done.stdout


def test_other_extras_are_installed_once(tmp_path: Path) -> None:
    recipe = read_dockerfile()
    for times, extras in ((1, "serve"), (1, "serve"), (2, "onnx"), (3, "test"), (3, "")):
        recipe.settings["PT_EXTRAS"] = extras
        _, installs = build(recipe, tmp_path)
        assert len(installs) == 2 * times, (extras, installs)


@pytest.mark.parametrize("name", ["RUN", "post", "environment", "runscript", "test"])
def test_the_scripts_have_no_faults(name: str, tmp_path: Path) -> None:
    lines = (
        read_dockerfile().commands
        if name == "RUN"
        else read_definition().commands
        if name == "post"
        else sections()[name]
    )
    shell = "bash" if name in ("RUN", "post") else "sh"
    script = tmp_path / name
    script.write_text("\n".join(lines) + "\n")
    subprocess.run([shell, "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        words = ["shellcheck", "--external-sources", "--severity=warning", f"--shell={shell}", str(script)]
        subprocess.run(words, cwd=ROOT, check=True)


def test_the_base_and_the_labels_are_pinned(recipe: Recipe) -> None:
    python = PROJECT["tool"]["mypy"]["python_version"]
    assert re.fullmatch(rf"python:{re.escape(python)}(\.\d+)?-slim-\w+", recipe.base)
    about = {name.rpartition(".")[2]: value for name, value in recipe.labels.items()}
    project = PROJECT["project"]
    assert (about["title"], about["version"], about["licenses"]) == (
        project["name"],
        project["version"],
        project["license"],
    )


def test_nothing_secret_nothing_left_no_other_host(recipe: Recipe) -> None:
    names = {*recipe.settings, *recipe.later, *(rest for name, rest in instructions() if name == "ARG")}
    assert not [name for name in names if re.search("token|password|secret|key", name, re.IGNORECASE)]
    assert recipe.settings["PIP_NO_CACHE_DIR"] == "1"
    for path in (DOCKERFILE, DEFINITION):
        assert set(re.findall(r"https?://([^/\s]+)", path.read_text())) == {"download.pytorch.org"}


def test_the_image_runs_as_nobody_and_its_door_is_ptunes() -> None:
    train, serve = stage("train"), stage("serve")
    assert serve["FROM"] == "train AS serve"
    assert train["USER"] == "nobody"
    assert "USER" not in serve
    assert json.loads(train["ENTRYPOINT"]) == ["ptunes"]
    assert json.loads(serve["ENTRYPOINT"]) == ["ptunes", "serve", "serve.host=0.0.0.0"]
    assert json.loads(train["SHELL"]) == ["/bin/bash", "-euo", "pipefail", "-c"]
    assert sections()["runscript"] == ['exec ptunes "$@"']
    for recipe in (read_dockerfile(), read_definition()):
        assert recipe.later["PATH"] == f"{recipe.later['PT_VENV']}/bin:$PATH"


@pytest.mark.parametrize("status", [200, 503])
def test_an_image_is_healthy_when_its_service_is(status: int) -> None:
    default = str(yaml.safe_load((ROOT / "conf/serve/default.yaml").read_text())["port"])
    serve = stage("serve")
    assert serve["EXPOSE"] == default
    command = json.loads(serve["HEALTHCHECK"].partition(" CMD ")[2])
    assert default in command[-1]

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asks = command[-1].replace(default, str(server.server_port))
        done = subprocess.run([sys.executable, *command[1:-1], asks])
        server.shutdown()
    assert (done.returncode == 0) == (status == 200)
    assert (
        subprocess.run([sys.executable, *command[1:-1], asks], capture_output=True).returncode != 0
    )  # nobody is there


def test_docker_is_sent_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]

    def is_sent(name: str) -> bool:
        """The last pattern that fits a path, or a folder above it, decides."""
        sent = True
        for pattern in patterns:
            fits = re.escape(pattern.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if re.fullmatch(rf"{fits}(/.*)?", name):
                sent = pattern.startswith("!")
        return sent

    copied = [text for kind, text in read_dockerfile().steps if kind == "copy"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        wanted = any(name == text or name.startswith(f"{text}/") for text in copied)
        assert is_sent(name) == (wanted and not name.startswith("hpc/container/")), name
    for name in (".env", ".git/config", ".venv/bin/python", "id_rsa", "conf/__pycache__/a.pyc"):
        assert not is_sent(name), name
