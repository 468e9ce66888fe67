"""Small inputs, good and bad, that tests make for themselves; and ways to run the door."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"
# Real recordings have no licence to be redistributed: they lie beside the project where they may, as in CI, and nowhere else
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not on this machine")
TINY = [
    "model.widths=[4,8]",
    "task.crop_s=1",
    "train.batch=8",
    "split.train=0.5",
    "split.valid=0.25",
    "split.test=0.25",
]


def tone(
    frequency_hz: float, duration_s: float = 1.0, sample_rate_hz: int = 22050, channels: int = 1
) -> NDArray[np.float32]:
    """A sine at half of full scale, shape (num_samples,) or (num_samples, channels)."""
    seconds = np.arange(int(duration_s * sample_rate_hz)) / sample_rate_hz
    wave = (0.5 * np.sin(2 * np.pi * frequency_hz * seconds)).astype(np.float32)
    return wave if channels == 1 else np.repeat(wave[:, None], channels, axis=1)


def write_audio(
    path: Path, samples: NDArray[np.float32], sample_rate_hz: int = 22050, subtype: str | None = None
) -> Path:
    """Write a file in the format of its ending, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, sample_rate_hz, subtype=subtype)
    return path


def write_tree(root: Path, num_tracks: int = 6, duration_s: float = 1.2) -> Path:
    """Two labels that differ in pitch, with awkward names."""
    names = ["plain", "with space", "it's (live)", "été", "a&b=c", 'quo"te', "b,c", "100%", "#1", "$x", "[y]", "{z}"]
    for number in range(num_tracks):
        for label, frequency_hz in (("high", 2000.0), ("low & slow", 200.0)):
            write_audio(root / label / f"{names[number % len(names)]}.wav", tone(frequency_hz + 9 * number, duration_s))
    return root


def write_bad(root: Path) -> dict[str, str]:
    """Files that give no features, under the label `bad`; their paths and what their reasons must say."""
    folder = root / "bad"
    folder.mkdir(parents=True)
    (folder / "zero.wav").write_bytes(b"")
    whole = write_audio(folder / "truncated.wav", tone(440, 2.0)).read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "text.wav").write_text("this is no audio\n" * 50)
    write_audio(folder / "silent.wav", np.zeros(22050, np.float32))
    write_audio(folder / "short.wav", tone(440, 0.1))
    samples = tone(440)
    samples[100:103] = np.nan
    write_audio(folder / "nan.wav", samples, subtype="FLOAT")
    (folder / "dangling.wav").symlink_to(folder / "nowhere.wav")
    os.mkfifo(folder / "pipe.wav")
    return {
        "bad/zero.wav": "empty",
        "bad/truncated.wav": "truncated",
        "bad/text.wav": "no audio",
        "bad/silent.wav": "silent",
        "bad/short.wav": "too short",
        "bad/nan.wav": "3 of 22050 samples are NaN",
        "bad/dangling.wav": "cannot be read",
        "bad/pipe.wav": "not a regular file",
    }


def door(*words: str, cwd: Path) -> int:
    """Run the door in this process, in a folder; the exit code."""
    from parallel_tunes import __main__

    before = sys.argv
    try:
        with contextlib.chdir(cwd):
            __main__.main(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before
    raise AssertionError("the door always exits")


def launch(*words: str, ranks: int = 0) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the door in a process of its own, under torchrun if `ranks` is given."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [sys.executable, "-m", *torchrun, "parallel_tunes", *words], environment


def ptunes(
    *words: str, cwd: Path, ranks: int = 0, check: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the door in a process of its own, under torchrun if `ranks` is given."""
    command, environment = launch(*words, ranks=ranks)
    done = subprocess.run(command, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=280)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def wait_until(holds: Callable[[], object], timeout_s: float = 150.0, what: str = "") -> None:
    """Look again and again until something holds."""
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.1)


class Cluster:
    """The Slurm of hpc/cluster in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PT_", "SBATCH"))}
        self.environment = kept | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PT_SITE": "local-cluster",
            "PT_VENV": "none",  # the python that runs the tests
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }

    def ask(
        self, *words: str, cwd: Path | None = None, check: bool = True, variables: Mapping[str, str] | None = None
    ) -> str:
        """What a command prints, run as by a user of the cluster; its errors too where `check` is off."""
        done = subprocess.run(
            words, cwd=cwd, env={**self.environment, **(variables or {})}, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def sbatch(self, job: str, *words: str, options: tuple[str, ...] = (), cwd: Path, **variables: str) -> str:
        """Submit slurm/<job>.sbatch from a folder; the job's number."""
        template = str(ROOT / "slurm" / f"{job}.sbatch")
        return self.ask("sbatch", "--parsable", *options, template, *words, cwd=cwd, variables=variables).strip()

    def facts(self, job: str) -> str:
        """What scontrol says of a job."""
        return self.ask("scontrol", "--oneliner", "show", "job", job)

    def state(self, job: str) -> str:
        """A job's state."""
        return self.facts(job).partition("JobState=")[2].split()[0]

    def wait(self, job: str, state: str = "COMPLETED", timeout_s: float = 200.0) -> None:
        """Until a job is in a state; fails at once where it has ended in another."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        wait_until(lambda: self.state(job) in final | {state}, timeout_s, f"{state}: {self.facts(job)}")
        assert self.state(job) == state, self.facts(job)
