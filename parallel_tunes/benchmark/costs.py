"""What preprocessing costs at the rates that were measured: tracks → core-hours, bytes, shards, and how to ask for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parallel_tunes.audio.front_end import definition
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.data import partition

# how many tracks, what is asked of Slurm, and what of preprocess
SIZES = (
    (1_000, "", ""),
    (100_000, "--cpus-per-task=16", ""),
    (1_000_000, "--array=0-63 --cpus-per-task=4", " preprocess.shard_mib=256"),
)


def estimate_costs(medians_ms: Mapping[str, float], features: FeaturesConfig) -> Iterator[dict[str, Any]]:
    """A row for each kind of file that was measured and each number of tracks.

    Args:
        medians_ms: of the suite's cells, milliseconds a clip.
        features: of the clips, which are features.clip_s long.
    """
    if "ours_wav22" not in medians_ms:
        return
    frames = definition(features).num_frames(round((features.clip_s or 0) * features.sample_rate_hz))
    bytes_a_clip = 2 * frames * features.num_mels
    # what a clip costs beside its spectrogram: its share of shards, checksums and index
    keeping_ms = max(medians_ms["ours_serial"] - medians_ms["ours_wav22"], 0.0)
    for kind, what in (("wav22", "WAV, mono, 22 050 Hz"), ("mp3", "MP3, stereo, 44 100 Hz")):
        if f"ours_{kind}" not in medians_ms:
            continue
        for num_tracks, asked, words in SIZES:
            num_bytes = num_tracks * bytes_a_clip
            yield {
                "files": what,
                "num_tracks": num_tracks,
                "core_hours": round(num_tracks * (medians_ms[f"ours_{kind}"] + keeping_ms) / 3.6e6, 4),
                "num_bytes": num_bytes,
                "num_shards": round(num_bytes / partition.choose_size(num_bytes)),
                "command": " ".join(
                    f"sbatch {asked} slurm/preprocess.sbatch data.root=music run.name=music{words}".split()
                ),
            }
