from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import door

from parallel_tunes.config_serve import ServeConfig
from parallel_tunes.schema import SECRET, UserError, build, defaults, to_plain
from parallel_tunes.serve.server import open_socket
from parallel_tunes.serving import tell_tunnel

CFG = replace(build(ServeConfig, defaults("serve", "default")), port=0)
TOKEN = "correct-horse-battery"


def refuse(run: Callable[..., int], capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line in which a server is refused."""
    assert run("serve", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("ptunes: ")


def test_what_cannot_be_served_is_one_line(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        ([], "which model? ptunes serve model="),
        (["models=[nowhere]"], "model=nowhere: no such folder"),
        (["model=x", "serve.token=short"], "serve.token: give 16 or more"),
        (["model=x", "serve.host=0.0.0.0"], "serve.host=0.0.0.0: others could reach it: give serve.token"),
        (["model=x", f"serve.host={'x' * 70}"], "no address of this machine"),  # no name: nobody is asked for it
        (["model=x", "serve.host=192.0.2.1", "serve.open=true"], "serve.port=0 takes a port that is free"),
    ):
        assert says in refuse(run, capsys, "serve.port=0", *words)


def test_one_model_of_each_task_is_served(
    workshop: Path, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = workshop / "logs/train/tiny/model"
    assert "a second model of task=genre" in refuse(run, capsys, f"models=[{model},{model}]", "serve.port=0")
    assert "a second model of task=genre" in refuse(run, capsys, f"model={model}", f"models=[{model}]", "serve.port=0")
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    with (damaged / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x7f")
    assert "damaged or changed" in refuse(run, capsys, f"model={damaged}", "serve.port=0")


def test_without_the_extra_it_says_what_to_install(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)  # an import of it fails, installed or not
    assert "pip install -e '.[serve]'" in refuse(run, capsys, "model=x")


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"serve.port={port}: Address already in use; serve.port=0"):
            open_socket(replace(CFG, port=port))


def test_who_can_reach_it_is_known() -> None:
    for host, changed, is_loopback in (
        ("127.0.0.1", {}, True),
        ("localhost", {}, True),
        ("0.0.0.0", {"token": TOKEN}, False),
        ("0.0.0.0", {"open": True}, False),
    ):
        settings: dict[str, Any] = changed
        listener, found = open_socket(replace(CFG, host=host, **settings))
        with listener:
            assert found is is_loopback, host
            assert listener.getsockname()[1] > 0
    with pytest.raises(UserError, match="no address"):
        open_socket(replace(CFG, host="", open=True))


def test_a_token_is_written_nowhere(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor need it stand on the command line, which others on a machine can read."""
    monkeypatch.setenv("PT_TEST_TOKEN", TOKEN)
    refuse(run, capsys, "model=nowhere", "serve.token=${oc.env:PT_TEST_TOKEN}", "serve.host=0.0.0.0", "serve.port=0")
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(f"token: {SECRET}" in text for text in written)
    assert not any(TOKEN in text for text in written)
    assert to_plain(replace(CFG, token=TOKEN))["token"] == SECRET
    assert to_plain(CFG)["token"] is None


def test_in_a_slurm_job_it_says_how_to_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURMD_NODENAME", "SLURM_SUBMIT_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert tell_tunnel(8000, is_loopback=True) == []
    for name, value in (("SLURM_JOB_ID", "7"), ("SLURMD_NODENAME", "n1"), ("SLURM_SUBMIT_HOST", "login")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOGNAME", "me")
    assert tell_tunnel(8000, is_loopback=True)[0] == "tunnel: ssh -N -L 8000:127.0.0.1:8000 -J me@login me@n1"
    assert tell_tunnel(8000, is_loopback=False)[0] == "tunnel: ssh -N -L 8000:n1:8000 me@login"


def test_it_can_be_submitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert door("submit", "job=serve", "print=true", "model=m", "serve.port=0", cwd=tmp_path) == 0
    text = capsys.readouterr().out
    assert "#SBATCH --job-name=serve\n" in text
    assert "parallel_tunes.parallel.batch serve model=m serve.port=0\n" in text
