from __future__ import annotations

import numpy as np

from parallel_tunes.scaling.critical_batch import estimate_noise


def draw_steps(square: float, trace: float, num: int, seed: int) -> list[list[float]]:
    """Squared norms of mean gradients over 16 and over 64 samples; the large one is the mean of four small ones."""
    rng, dimension = np.random.default_rng(seed), 200
    truth = np.full(dimension, np.sqrt(square / dimension))
    steps = []
    for _ in range(num):
        parts = truth + np.sqrt(trace / dimension / 16) * rng.standard_normal((4, dimension))
        small, big = float((parts**2).sum(1).mean()), float((parts.mean(0) ** 2).sum())
        steps.append([small, big, 1 / 16, 1 / 64])
    return steps


def test_the_noise_scale_is_recovered() -> None:
    """tr Σ / |G|² = 100: the interval holds it in nearly all of 60 draws."""
    found = [estimate_noise(draw_steps(2.0, 200.0, 24, seed), seed) for seed in range(60)]
    assert all(scale is not None for scale in found)
    assert sum(scale.low <= 100 <= scale.high for scale in found if scale) >= 52


def test_pure_noise_has_no_scale() -> None:
    assert estimate_noise(draw_steps(0.0, 200.0, 24, 1), 0) is None
