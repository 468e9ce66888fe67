"""hpc/container: images are not built here; the two recipes agree with each other and with the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from fakes import PATIENCE_S, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "hpc/container/Dockerfile").read_text()
DEFINITION = (ROOT / "hpc/container/parallel_tunes.def").read_text()
COPIED = ["LICENSE", "README.md", "pyproject.toml", "conf", "hpc", "slurm", "parallel_tunes"]


def test_both_recipes_install_the_same() -> None:
    settings = [re.findall(r"PT_VENV=\S+ PT_EXTRAS=\S+ PIP_NO_CACHE_DIR=1", text) for text in (DOCKERFILE, DEFINITION)]
    assert settings[0] == settings[1] != []
    extras = settings[0][0].split()[1].partition("=")[2].split(",")
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])
    assert "\nRUN . hpc/env.sh\n" in DOCKERFILE
    assert "\n    . hpc/env.sh\n" in DEFINITION
    for text in (DOCKERFILE, DEFINITION):
        (python,) = re.findall(r"^F(?:ROM|rom:) python:([\d.]+)-slim-\w+", text, re.MULTILINE)
        assert python == PROJECT["tool"]["mypy"]["python_version"]
        assert re.search(rf"image.version[= ]\"?{re.escape(PROJECT['project']['version'])}\b", text)
        assert set(re.findall(r"https?://([^/\s]+)", text)) == {"download.pytorch.org"}
        assert not re.search(r"(token|password|secret)=\w", text, re.IGNORECASE)


def test_what_is_copied_suffices(tmp_path: Path) -> None:
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    assert sorted({*copied} - {"parallel_tunes/__init__.py"}) == sorted(COPIED)
    assert re.findall(r"^    (\S+) /opt/parallel_tunes/$", DEFINITION, re.MULTILINE) == COPIED
    sent = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(sent) == sorted(COPIED)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "parallel_tunes", "serve", "--help"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "serve.token" in done.stdout


def test_images_start_ptunes_as_nobody_and_ask_the_service_whether_it_is_healthy() -> None:
    train, serve = DOCKERFILE.split("FROM train AS serve")
    assert "\nUSER nobody\n" in train
    entries = [json.loads(re.findall(r"^ENTRYPOINT (.+)$", part, re.MULTILINE)[0]) for part in (train, serve)]
    assert entries == [["ptunes"], ["ptunes", "serve", "serve.host=0.0.0.0"]]
    assert '%runscript\n    exec ptunes "$@"\n' in DEFINITION
    port = yaml.safe_load((ROOT / "conf/serve/default.yaml").read_text())["port"]
    assert f"\nEXPOSE {port}\n" in serve
    command = json.loads(serve.partition(" CMD ")[2].splitlines()[0])
    assert str(port) in command[-1]
    asks = command[-1].replace(str(port), "9")  # discard: nobody answers
    assert subprocess.run([sys.executable, *command[1:-1], asks], capture_output=True, timeout=PATIENCE_S).returncode
