"""The gradient noise scale of McCandlish et al. 2018, "An Empirical Model of Large-Batch Training", appendix A.1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parallel_tunes.scaling.intervals import Interval

DRAWS = 2000


def estimate_noise(steps: Sequence[Sequence[float]], seed: int) -> Interval | None:
    """B = tr Σ / |G|², about the batch at which the noise of a gradient is as large as the gradient itself; in samples.

    Over b samples E|G_b|² = |G|² + tr Σ / b; two sizes of b give both unknowns. Their means over the steps are divided,
    since the ratio of a single step is biased; the interval is a percentile bootstrap over steps.

    Args:
        steps: of each the squared norms over few samples and over many, and one over the numbers of both.

    Returns:
        None where the gradient cannot be told from noise: |G|² is not above zero in nearly all draws.
    """
    small, big, per_small, per_big = np.asarray(steps, np.float64).T
    trace = (small - big) / (per_small - per_big)
    square = big - trace * per_big
    draws = np.random.default_rng(seed).integers(len(square), size=(DRAWS, len(square)))
    traces, squares = trace[draws].mean(1), square[draws].mean(1)
    if np.quantile(squares, 0.025) <= 0 or trace.mean() <= 0:
        return None
    low, high = np.quantile(traces / squares, [0.025, 0.975])
    middle = float(trace.mean() / square.mean())
    return Interval(middle, float(min(max(low, 0.0), middle)), float(max(high, middle)))
