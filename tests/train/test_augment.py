from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from parallel_tunes.config_train import AugmentConfig
from parallel_tunes.models.dropout import KeyedDropout, draw_uniform
from parallel_tunes.schema import build, defaults
from parallel_tunes.train.augment import mask, mix

KEYS = torch.randint(-(2**63), 2**63 - 1, (500,), generator=torch.Generator().manual_seed(0))


def augmentation(**settings: float) -> AugmentConfig:
    config: AugmentConfig = build(AugmentConfig, defaults("augment", "none") | settings)
    return config


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
    masked = mask(levels, KEYS, augmentation(time_masks=1, time_mask_share=0.2, mel_masks=1, mel_mask_share=0.1))
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


def test_nothing_is_hidden_by_default() -> None:
    levels = torch.randn(20, 1, 8, 9)
    assert mask(levels, KEYS[:20], augmentation()) is levels


def test_a_mix_is_between_both() -> None:
    one, other = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    mixed = mix(one, other, torch.tensor([1.0, 0.75, 0.5]))
    assert mixed[:, 0, 0, 0].tolist() == [0, 0.25, 0.5]
