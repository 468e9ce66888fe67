"""Small inputs, good and bad, that tests make for themselves; and ways to run the door."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
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
