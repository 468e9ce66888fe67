"""What tracks sound like, in a few hundred numbers each: summaries of the log-mel spectrograms that shards hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parallel_tunes.audio import front_end
from parallel_tunes.audio.definition import LogMel
from parallel_tunes.config import FeaturesConfig
from parallel_tunes.config_explore import ExploreConfig
from parallel_tunes.data.material import ALL, Floats, Material, Matrix, Spectra, draw_sample, list_labels
from parallel_tunes.data.shards import ShardSet
from parallel_tunes.schema import UserError
from parallel_tunes.shard_work import read_levels

NUM_MFCCS = 20
LONGEST_S = 600.0  # of a track that is looked at
COARSEST = 24.0  # frames a second: fewer leave steps of more than 10 beats a minute at a tempo of 120
PICTURED_S = 10.0  # of the mean spectrograms
MOST_PICTURED = 12  # labels
Levels = NDArray[np.float32]


def summarise(shards: ShardSet, cfg: ExploreConfig, progress: Callable[[str, int], Any]) -> Material:
    """Summaries of all tracks, or of a sample of them.

    Of each mel band the mean and the standard deviation over time, and of 20 MFCCs; the level; the tempo.

    Raises:
        UserError: explore.label names a column.
    """
    if cfg.label not in ("auto", "none"):
        raise UserError(
            f"explore.label={cfg.label}: audio and pictures have the labels of their folders or list: auto or none"
        )
    features = front_end.restore(shards.manifest["features"])
    frame = shards.index[["path", "label", "group", "duration_s"]].copy()
    if cfg.label == "none":
        frame["label"] = None
    rows = draw_sample(len(frame), cfg.max_tracks, cfg.seed)
    means = _Means(features, list_labels(frame["label"].iloc[rows], MOST_PICTURED))
    frames_per_s = front_end.frames_per_s(features)
    longest = int(LONGEST_S * frames_per_s)
    found, heard = [], np.empty((len(rows), 2))
    with progress("explore", len(rows)) as bar:
        for place, row in enumerate(rows.tolist()):
            levels = read_levels(shards, row, longest)
            found.append(summarise_levels(levels))
            heard[place] = measure_level(levels, features), measure_tempo(levels, frames_per_s)
            means.add(frame["label"].iloc[row], levels)
            bar.update()
    for column, name in enumerate(("level_db", "tempo_bpm")):
        values = np.full(len(frame), np.nan)
        values[rows] = heard[:, column]
        frame[name] = values
    facts = {
        "num_failed": len(shards.manifest["failed"]),
        "failed": shards.manifest["failed"][: cfg.num_shown],
        "level_unit": level_unit(features),
        "frames_per_s": frames_per_s,
        "num_longer": int((shards.num_frames[rows] > longest).sum()),
    }
    coarse = {"tempo_bpm": f"{frames_per_s:.1f} frames per second are too few to measure tempo"}
    return Material(
        frame=frame, rows=rows, features=Matrix(np.array(found), name_summaries(features)), facts=facts,
        duplicates={"byte-identical files": shards.index["hash"].tolist()},
        unknown=coarse if frames_per_s < COARSEST else {}, spectra=means.finish(),
    )  # fmt: skip


def summarise_levels(levels: Levels) -> Floats:
    """Means of the bands over time, their standard deviations, and both of the MFCCs: as `name_summaries` has them."""
    import scipy.fft

    cepstrum = scipy.fft.dct(levels, norm="ortho", axis=0)[:NUM_MFCCS]  # librosa.feature.mfcc(S=levels)
    parts = [levels.mean(1), levels.std(1), cepstrum.mean(1), cepstrum.std(1)]
    return np.concatenate(parts, dtype=np.float64)


def name_summaries(features: FeaturesConfig) -> list[str]:
    """What the numbers of `summarise_levels` are."""
    centres_hz = find_centres(features)
    bands = (
        [f"band {at}" for at in range(features.num_mels)]
        if centres_hz is None
        else [f"{hz:.0f} Hz" for hz in centres_hz]
    )
    cepstral = [f"MFCC {at}" for at in range(min(NUM_MFCCS, features.num_mels))]
    return [f"{part}, {kind}" for parts in (bands, cepstral) for kind in ("mean", "spread") for part in parts]


def find_centres(features: FeaturesConfig) -> Floats | None:
    """The centres of the mel bands, Hz; of a picture they are not known."""
    return None if features.kind == "picture" else front_end.definition(features).edges_hz[1:-1]


def level_unit(features: FeaturesConfig) -> str:
    """What `measure_level` is measured against."""
    if features.kind == "picture":
        return "mean level, dB below the picture's highest"
    return "RMS level, dB below the clip's peak" if features.normalise == "peak" else "RMS level, dB below full scale"


def measure_level(levels: Levels, features: FeaturesConfig) -> float:
    """The RMS level of a clip, dB, from its log-mel spectrogram; of a picture, how far its mean lies below its highest.

    Mel filters of unit height add up to one between the centres of the lowest and the highest band, so that the power of
    all frames, and by Parseval's theorem that of the samples, is a weighted sum of the bands.
    """
    if features.kind == "picture":
        return float(levels.mean(dtype=np.float64) - levels.max())
    definition: LogMel = front_end.definition(features)
    widths_hz = definition.edges_hz[2:] - definition.edges_hz[:-2]
    power = widths_hz / 2 @ (10 ** (levels / 10)).mean(1, dtype=np.float64)
    return float(10 * np.log10(2 * power / (definition.n_fft * np.square(definition.window).sum())))


def measure_tempo(levels: Levels, frames_per_s: float) -> float:
    """Tempo, beats a minute: the strongest period of the onsets (librosa.feature.tempo); NaN where nothing begins, and of frames
    that are too few a second to tell tempi apart.

    Onsets are rises of the log-mel spectrogram, summed over the bands (spectral flux); of the autocorrelations of 8 s
    windows the mean is taken, weighted towards 120 (Ellis 2007, doi:10.1080/09298210701653344).
    """
    if levels.shape[1] < 3 or frames_per_s < COARSEST:
        return float("nan")
    import librosa

    onsets = librosa.onset.onset_strength(S=levels, sr=frames_per_s, hop_length=1, center=False)
    if not onsets.max() > 0:
        return float("nan")
    return float(librosa.feature.tempo(onset_envelope=onsets, sr=frames_per_s, hop_length=1)[0])


class _Means:
    """Mean spectrograms of labels, track by track."""

    def __init__(self, features: FeaturesConfig, labels: list[str]) -> None:
        self.features = features
        shape = (features.num_mels, int(PICTURED_S * front_end.frames_per_s(features)))
        self.labels = labels or [ALL]
        self.sums = {label: np.zeros(shape) for label in self.labels}
        self.numbers = {label: np.zeros(shape[1]) for label in self.labels}
        self.profiles = {label: np.zeros(shape[0]) for label in self.labels}
        self.num_tracks = dict.fromkeys(self.labels, 0)

    def add(self, label: str | None, levels: Levels) -> None:
        label = ALL if self.labels == [ALL] else label
        if label is None or label not in self.sums:
            return
        num = min(levels.shape[1], len(self.numbers[label]))
        self.sums[label][:, :num] += levels[:, :num]
        self.numbers[label][:num] += 1
        self.profiles[label] += levels.mean(1)
        self.num_tracks[label] += 1

    def finish(self) -> Spectra:
        longest = max(int((numbers > 0).sum()) for numbers in self.numbers.values())
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no track is that long
            levels = {name: (total / self.numbers[name])[:, :longest] for name, total in self.sums.items()}
        profiles = {name: total / self.num_tracks[name] for name, total in self.profiles.items()}
        return Spectra(
            levels, profiles, self.num_tracks, find_centres(self.features), front_end.frames_per_s(self.features)
        )
