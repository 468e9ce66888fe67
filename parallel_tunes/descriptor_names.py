"""What the 57 descriptors of a clip are called: as the columns of GTZAN's table of features are, and in their order."""

from __future__ import annotations

NUM_MFCC = 20
SERIES = (
    "chroma_stft", "rms", "spectral_centroid", "spectral_bandwidth", "rolloff", "zero_crossing_rate", "harmony", "perceptr",
)  # fmt: skip
MFCC = tuple(f"mfcc{number}" for number in range(1, NUM_MFCC + 1))
# perceptr is what is percussive
NAMES = (
    *(f"{name}_{part}" for name in SERIES for part in ("mean", "var")),
    "tempo",
    *(f"{name}_{part}" for name in MFCC for part in ("mean", "var")),
)
