from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from fakes import ROOT

SCRIPTS = [*sorted((ROOT / "hpc").rglob("*.sh")), *sorted((ROOT / "slurm").glob("*.sbatch"))]
SCRIPTS += [path for path in sorted((ROOT / "hpc/cluster").iterdir()) if not path.suffix]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_name_no_machine(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--external-sources", "--severity=warning", str(script)], check=True)
    text = script.read_text()
    assert str(ROOT) not in text
    assert "/home/" not in text


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_the_sites_own_python_is_left_alone() -> None:
    done = shell('before=$PATH; . hpc/env.sh && [ "$PATH" = "$before" ]', PT_VENV="none")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["../evil", "no such", "", "a/b"])
def test_a_site_is_a_bare_name_of_a_profile(name: str) -> None:
    done = shell(". hpc/env.sh && echo loaded", PT_VENV="none", PT_SITE=name)
    if name:
        assert (done.stdout, done.returncode) == ("", 1)
        assert f"PT_SITE={name}: there is no hpc/sites/{name}.sh" in done.stderr
    else:
        assert done.stdout == "loaded\n"


def test_a_site_is_chosen_by_name_or_by_host(tmp_path: Path) -> None:
    (tmp_path / "hpc/sites").mkdir(parents=True)
    for script in [ROOT / "hpc/env.sh", *(ROOT / "hpc/sites").iterdir()]:
        (tmp_path / script.relative_to(ROOT)).write_text(script.read_text())
    (tmp_path / "hpc/sites/mine.sh").write_text("# hosts: login*.example gpu[0-9]*\nexport SBATCH_PARTITION=fast\n")
    show = f". {tmp_path}/hpc/env.sh && echo ${{SBATCH_PARTITION:-none}} ${{GLOO_SOCKET_IFNAME:-any}}"
    for host, site, said in (
        ("gpu7", "", "fast any"),
        ("login1.example", "", "fast any"),
        ("laptop", "", "none any"),
        ("laptop", "local-cluster", "none lo"),
    ):
        # bash sets HOSTNAME itself
        done = shell(f"HOSTNAME={host}; {show}", PT_VENV="none", PT_SITE=site)
        assert done.stdout.strip() == said, done.stderr


def test_a_finished_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    """The second time nothing is installed: neither pip nor another Python is called."""
    stamp = shell(". hpc/env.sh >/dev/null 2>&1; pt_stamp", PT_VENV="none").stdout
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / ".pt-stamp").write_text(stamp)
    done = shell('. hpc/env.sh && echo "$VIRTUAL_ENV"', PT_VENV=str(venv), PT_PYTHON="no-such-python")
    assert done.stdout.strip() == str(venv)
    (venv / ".pt-stamp").write_text("of another checkout")
    done = shell(". hpc/env.sh", PT_VENV=str(venv), PT_PYTHON="no-such-python")
    assert done.returncode == 1
    assert "no Python of at least 3.11" in done.stderr


def test_torchaudio_works_beside_this_torch() -> None:
    found = importlib.util.find_spec("torchaudio")
    assert found is not None
    assert found.origin is not None
    if torch.version.cuda is None:
        assert not list((Path(found.origin).parent / "lib").glob("*.so"))


@pytest.mark.slow
def test_the_wheel_runs_without_the_checkout(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for name in (
        "conf/train.yaml",
        "conf/features/logmel.yaml",
        "hpc/env.sh",
        "hpc/cluster/up",
        "slurm/train.sbatch",
        "reports/training.html",
    ):
        assert f"parallel_tunes/{name}" in names
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    words = ["synth", "num_artists=1", "tracks_per_artist=1", "duration_s=0.2", "run.name=w"]
    # -P keeps the checkout's editable install behind the wheel's files
    done = subprocess.run(
        [sys.executable, "-P", "-m", "parallel_tunes", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs/synth/w/report.json").exists()
    code = "import parallel_tunes; print(parallel_tunes.__file__)"
    where = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert str(tmp_path / "site") in where.stdout
