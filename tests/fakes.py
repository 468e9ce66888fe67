"""Small inputs, good and bad, that tests make for themselves; and ways to run the door."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import termios
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
PATIENCE_S = 900  # what waits for other processes: a machine with much to do may take ten times as long as a free one
REAL = ROOT.parent / "shared" / "data"
# Real recordings have no licence to be redistributed: they lie beside the project where they may, as in CI, and nowhere else
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not on this machine")
# CUDA's kernels can only be tried on a GPU: CI has none, and the same functions are tested on its CPU
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
TINY = [
    "model=genre_cnn",
    "model.widths=[4,8]",
    "augment=none",
    "task.crop_s=1",
    "train.batch=8",
    "split.train=0.5",
    "split.valid=0.25",
    "split.test=0.25",
    "run.page=false",  # most of what so small a training takes
]
UNSIZED = [word for word in TINY if not word.startswith(("train.batch", "run.page"))]  # what a study sets itself


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


Fault = Callable[[Path], object]
Worlds = Callable[[int, str], list[Any]]  # the fixture `worlds`


def nan_tone() -> NDArray[np.float32]:
    """A second of sound, three samples of which are no numbers."""
    samples = tone(440)
    samples[100:103] = np.nan
    return samples


def halve(path: Path) -> None:
    """Cut a file off in the middle."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def claim_frames(path: Path, num_frames: int) -> None:
    """A WAV of one byte a frame whose header promises this many."""
    whole = bytearray(write_audio(path, tone(440), subtype="PCM_U8").read_bytes())
    at = whole.index(b"data") + 4
    path.write_bytes(whole[:at] + struct.pack("<I", num_frames) + whole[at + 4 :])


def write_picture(path: Path) -> None:
    """A PNG of noise, whatever its name says."""
    rows = np.random.default_rng(0).integers(0, 256, (64, 65), np.uint8)
    rows[:, 0] = 0  # each row's filter: none
    chunks = [
        (b"IHDR", struct.pack(">2I5B", 64, 64, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_archive(path: Path) -> None:
    """A zip, whatever its name says."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no audio\n" * 500)


# files that give no features: what their reasons must say, and how they are made
FAULTS: dict[str, tuple[str, Fault]] = {
    "zero.wav": ("empty", lambda path: path.write_bytes(b"")),
    "truncated.wav": ("truncated", lambda path: halve(write_audio(path, tone(440, 2.0)))),
    "text.wav": ("no audio", lambda path: path.write_text("this is no audio\n" * 50)),
    "silent.wav": ("silent", lambda path: write_audio(path, np.zeros(22050, np.float32))),
    "short.wav": ("too short", lambda path: write_audio(path, tone(440, 0.01))),
    "nan.wav": ("3 of 22050 samples are NaN", lambda path: write_audio(path, nan_tone(), subtype="FLOAT")),
    "dangling.wav": ("cannot be read", lambda path: path.symlink_to("nowhere.wav")),
    "pipe.wav": ("not a regular file", os.mkfifo),
}
# more that only a large corpus has; a superuser may read what is locked, so that there another fault takes its place
RARE_FAULTS: dict[str, tuple[str, Fault]] = {
    "truncated.flac": (
        "truncated or damaged: its header promises 44100",
        lambda path: halve(write_audio(path, tone(440, 2.0))),
    ),
    "text.mp3": ("no audio", lambda path: path.write_text("this is no audio\n" * 50)),
    "picture.mp3": ("no audio", write_picture),
    "archive.ogg": ("no audio", write_archive),
    "claims.wav": ("truncated: its header promises 1073741824", lambda path: claim_frames(path, 2**30)),
    "folder.wav": ("not a regular file", Path.mkdir),
    "loop.wav": ("cannot be read", lambda path: path.symlink_to(path.name)),
    "locked.wav": ("cannot be read", lambda path: write_audio(path, tone(440)).chmod(0)),
    "channels.wav": ("33 channels", lambda path: write_audio(path, tone(440, channels=33))),
}
del RARE_FAULTS["channels.wav" if os.geteuid() else "locked.wav"]


def write_bad(root: Path) -> dict[str, str]:
    """Files that give no features, under the label `bad`; their paths and what their reasons must say."""
    folder = root / "bad"
    folder.mkdir(parents=True)
    for name, (_, spoil) in FAULTS.items():
        spoil(folder / name)
    return {f"bad/{name}": reason for name, (reason, _) in FAULTS.items()}


# what is good: ending, container, subtype, sampling rate in Hz, channels
GOOD = (
    ("wav", "WAV", "PCM_16", 22050, 1),
    ("flac", "FLAC", "PCM_16", 44100, 2),
    ("ogg", "OGG", "VORBIS", 22050, 1),
    ("MP3", "MP3", "MPEG_LAYER_III", 22050, 1),
    ("au", "AU", "PCM_16", 8000, 1),
    ("wav", "FLAC", "PCM_16", 22050, 1),  # the wrong ending: what a file holds counts, not its name
    ("wav", "WAV", "FLOAT", 96000, 6),  # unusual, but sound
    ("opus", "OGG", "OPUS", 24000, 1),
    ("aiff", "AIFF", "PCM_24", 22050, 1),
)


def write_corpus_with_faults(
    root: Path, num_good: int = 440, num_bad: int = 60, duration_s: float = 1.0
) -> dict[str, str]:
    """A corpus of four labels in many formats, with bad files of every kind among the good.

    Bad is what gives no features: `FAULTS` and `RARE_FAULTS` in turn. Good are also files with the wrong ending, and
    those of six channels at 96 kHz.

    Args:
        duration_s: length of the good ones, seconds.

    Returns:
        The bad ones' paths below `root`, and what their reasons must say.
    """
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(96000 * duration_s)).astype(np.float32)
    wave = tone(440, duration_s, 96000) + noise[: int(96000 * duration_s)]
    for label in range(4):
        (root / f"label-{label}").mkdir(parents=True)
    for number in range(num_good):
        ending, container, subtype, rate_hz, channels = GOOD[number % len(GOOD)]
        samples = np.roll(wave, number)[: int(rate_hz * duration_s), None].repeat(channels, axis=1)
        path = root / f"label-{number % 4}" / f"good-{number:03d}.{ending}"
        soundfile.write(path, samples, rate_hz, format=container, subtype=subtype)
    faults, reasons = list((FAULTS | RARE_FAULTS).items()), {}
    for number in range(num_bad):
        name, (reason, spoil) = faults[number % len(faults)]
        path = root / f"label-{number % 4}" / f"bad-{number:03d}-{name}"
        spoil(path)
        reasons[path.relative_to(root).as_posix()] = reason
    return reasons


def corpus_of(workshop: Path) -> list[str]:
    """The words for the corpus of a workshop and its shards."""
    folders = (f"data.root={workshop}/logs/synth/corpus", f"data.shards={workshop}/logs/preprocess/corpus")
    return ["data=synthetic", *folders]


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics.jsonl but for what no two runs have alike."""
    return {name: value for name, value in row.items() if name not in ("samples_per_s", "seconds", "eval_s")}


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
    done = subprocess.run(
        command, cwd=cwd, env=environment | variables, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """Start the door in a process of its own, the first of a group, as a terminal does; what it says is one pipe."""
    command, environment = launch(*words)
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_until(
    holds: Callable[[], object], timeout_s: float = PATIENCE_S, what: str = "", pause_s: float = 0.02
) -> None:
    """Look again and again until something holds."""
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(pause_s)


def suspend(process: psutil.Process) -> None:
    """Stop a process, and wait until it is stopped: until then it may read what comes."""
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)


def num_unread(pid: int) -> int:
    """Bytes on the standard input of a process, a pipe, that it has not read."""
    with Path(f"/proc/{pid}/fd/0").open("rb") as pipe:
        (num,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(num)


def assert_same_on_threads(act: Callable[[], Mapping[str, torch.Tensor]]) -> None:
    """The same bits on any number of torch's threads."""
    before, found = torch.get_num_threads(), []
    try:
        for num in (1, 2, 5):
            torch.set_num_threads(num)
            found.append(act())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in found[0].items())


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
            words,
            cwd=cwd,
            env={**self.environment, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
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

    def wait(self, job: str, state: str = "COMPLETED") -> None:
        """Until a job is in a state; fails at once where it has ended in another."""
        final = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        # each look starts a process
        wait_until(lambda: self.state(job) in final | {state}, what=f"{state}: {self.facts(job)}", pause_s=0.3)
        assert self.state(job) == state, self.facts(job)
