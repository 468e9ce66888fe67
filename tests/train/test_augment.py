from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.config_train import AugmentConfig
from parallel_tunes.models.dropout import KeyedDropout, draw_uniform
from parallel_tunes.schema import build, defaults
from parallel_tunes.train.augment import OFF, Augmentation, list_on, mix, reach, settle

KEYS = torch.randint(-(2**63), 2**63 - 1, (500,), generator=torch.Generator().manual_seed(0))


def configure(name: str = "none", **settings: float | str) -> AugmentConfig:
    config: AugmentConfig = build(AugmentConfig, defaults("augment", name) | settings)
    return config


def augmentation(*, window: int = 50, num_mels: int = 30, **settings: float) -> Augmentation:
    cfg = configure("none", **settings)
    return Augmentation(cfg, LogMel(num_mels=num_mels), deviation_db=10, window=window)


def test_draws_are_uniform_and_those_of_a_sample_alone() -> None:
    drawn = draw_uniform(KEYS, "this", 40)
    assert kstest(drawn.flatten().numpy(), "uniform").pvalue > 1e-3
    for at in (0, 3):
        other = drawn[:, at + 1]
        assert abs(float(torch.corrcoef(torch.stack([drawn[:, at], other]))[0, 1])) < 0.15
    order = torch.randperm(500)
    assert torch.equal(draw_uniform(KEYS[order], "this", 40), drawn[order])
    assert torch.equal(draw_uniform(KEYS[7:8], "this", 3), drawn[7:8, :3])
    assert not torch.equal(draw_uniform(KEYS, "that", 40), drawn)
    neighbours = draw_uniform(torch.arange(500), "this", 1)
    assert kstest(neighbours.flatten().numpy(), "uniform").pvalue > 1e-3


def test_dropout_keeps_the_mean_and_answers_whole() -> None:
    layer = KeyedDropout(0.3)
    values = torch.ones(500, 200)
    with pytest.raises(RuntimeError, match="keys"):
        layer(values)
    layer.keys = KEYS
    dropped = layer(values)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(layer(values), dropped)
    assert layer.eval()(values) is values


def test_masks_are_stretches_no_wider_than_they_may_be() -> None:
    levels = torch.ones(500, 1, 30, 50)
    chosen = augmentation(time_masks=1, time_mask_share=0.2, mel_masks=1, mel_mask_share=0.1)
    masked = chosen.mask(levels, KEYS)
    hidden_times = (masked[:, 0] == 0).all(1)
    hidden_mels = (masked[:, 0] == 0).all(2)
    for hidden, widest in ((hidden_times, 10), (hidden_mels, 3)):
        widths = hidden.sum(1)
        assert set(widths.tolist()) == set(range(widest + 1))
        edges = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1) + hidden[:, 0]
        assert int(edges.max()) == 1
        assert float(hidden.float().mean(0).min()) > 0  # every place is hidden from some
    shown = ~(hidden_times[:, None, :] | hidden_mels[:, :, None])
    assert bool((masked[:, 0][shown] == 1).all())
    assert torch.equal(levels, torch.ones(500, 1, 30, 50))


def test_nothing_happens_by_default() -> None:
    levels = torch.randn(20, 1, 8, 9)
    assert augmentation().mask(levels, KEYS[:20]) is levels
    assert augmentation().alter(levels, KEYS[:20]) is levels


def test_each_has_a_group_and_is_off_by_one_key() -> None:
    for name in list(OFF):
        alone = configure(name)
        full = replace(configure("default"), **{key: getattr(alone, key) for key in OFF[name]})
        assert list_on(alone) == [name]
        assert name in list_on(full)
        assert name not in list_on(replace(full, without=name))
        keys: dict[str, Any] = dict.fromkeys(OFF[name], 0)
        off = replace(full, **keys)
        assert name not in list_on(off)
        assert settle(replace(full, without=name)) == replace(off, without=name)


def test_what_a_sample_becomes_is_its_own_affair() -> None:
    for name in [name for name in OFF if name not in ("mixup", "masks")]:
        cfg = configure(name)
        chosen = Augmentation(cfg, LogMel(num_mels=30), deviation_db=10, window=50)
        levels = torch.randn(40, 1, 30, reach(50, cfg))
        altered = chosen.alter(levels, KEYS[:40])
        assert altered.shape == (40, 1, 30, 50)
        assert not torch.allclose(altered, levels[..., :50], atol=1e-3)
        order = torch.randperm(40)
        torch.testing.assert_close(chosen.alter(levels[order], KEYS[:40][order]), altered[order], rtol=0, atol=1e-5)
        assert torch.equal(chosen.alter(levels[3:4], KEYS[3:4]), altered[3:4])


def test_a_tone_is_shifted_in_pitch_to_where_librosa_hears_it() -> None:
    """A shifted spectrogram is that of the shifted tone."""
    definition = LogMel(num_mels=128)
    bands = definition.place_bands(2 ** (3 / 12))
    assert np.allclose(definition.place_bands(1), np.arange(128))
    for hz in (150.0, 700.0, 3000.0):
        lower, higher = (find_peak(definition, hz * factor) for factor in (1, 2 ** (3 / 12)))
        assert float(np.interp(lower, np.arange(128), bands)) == pytest.approx(higher, abs=0.7)


def find_peak(definition: LogMel, hz: float) -> float:
    """The band, between bands, that a tone is loudest in."""
    power = 10 ** (
        log_mel(np.sin(2 * np.pi * hz * np.arange(22050) / 22050).astype(np.float32), sample_rate_hz=22050)[:, 20] / 10
    )
    near = slice(max(int(power.argmax()) - 3, 0), int(power.argmax()) + 4)
    return float((np.arange(128)[near] * power[near]).sum() / power[near].sum())


def test_pitch_and_speed_cover_their_range_evenly() -> None:
    """A ridge in one band, and a clip whose levels are its time, show what was drawn."""
    chosen = augmentation(window=40, num_mels=128, pitch_semitones=2, time_stretch=0.25)
    times = torch.arange(50.0).expand(500, 1, 128, 50)
    altered = chosen.alter(times, KEYS)
    speeds = (altered[:, 0, 0, -1] - altered[:, 0, 0, 0]) / 39
    assert kstest(np.log(speeds.numpy()) / np.log(1.25) / 2 + 0.5, "uniform").pvalue > 1e-3
    ridge = torch.arange(128.0).view(1, 1, 128, 1).expand(500, 1, 128, 50)
    heard = chosen.alter(ridge, KEYS)[:, 0, 100, 0]
    ends = LogMel().place_bands(2 ** (-2 / 12))[100], LogMel().place_bands(2 ** (2 / 12))[100]
    assert ends[0] - 0.01 <= float(heard.min()) < ends[0] + 0.3
    assert ends[1] - 0.3 < float(heard.max()) <= ends[1] + 0.01


def test_gain_and_filter_are_as_strong_as_they_may_be() -> None:
    levels = torch.zeros(500, 1, 30, 50)
    gains = augmentation(gain_db=6).alter(levels, KEYS)
    assert bool((gains == gains[:, :, :1, :1]).all())
    assert kstest(gains[:, 0, 0, 0].numpy() / 1.2 + 0.5, "uniform").pvalue > 1e-3
    curves = augmentation(eq_db=6).alter(levels, KEYS)
    assert bool((curves == curves[..., :1]).all())
    assert 0.5 < float(curves.abs().max()) <= 0.6
    steps = curves[:, 0, 1:, 0] - curves[:, 0, :-1, 0]
    assert float(steps.abs().max()) <= 1.2 * 7 / 29 + 1e-6


def test_noise_lifts_what_is_quiet_in_a_share_of_the_samples() -> None:
    levels = torch.zeros(500, 1, 30, 50)
    levels[..., 10:20] = -8  # 80 dB below
    noisy = augmentation(noise=0.4).alter(levels, KEYS)
    is_noisy = (noisy != levels).flatten(1).any(1)
    assert float(is_noisy.float().mean()) == pytest.approx(0.4, abs=0.08)
    loud, quiet = noisy[is_noisy][..., :10], noisy[is_noisy][..., 10:20]
    assert float(loud.abs().max()) < 0.7  # an exponential's tail
    means_db = 10 * (10 ** quiet.double()).mean((1, 2, 3)).log10()
    assert -71 < float(means_db.min()) < -60
    assert -40 < float(means_db.max()) < -29


def test_a_shift_turns_a_crop_round() -> None:
    levels = torch.arange(50.0).expand(500, 1, 30, 50)
    shifted = augmentation(time_shift=0.5).alter(levels, KEYS)
    assert torch.equal(shifted.sort(3).values, levels)
    steps = torch.remainder(-shifted[:, 0, 0, 0] + 25, 50)
    assert kstest((steps.numpy() + 0.5) / 50, "uniform").pvalue > 1e-3


def test_a_mix_is_between_both() -> None:
    one, other = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    mixed = mix(one, other, torch.tensor([1.0, 0.75, 0.5]))
    assert mixed[:, 0, 0, 0].tolist() == [0, 0.25, 0.5]
