from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import needs_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.audio.logmel import log_mel
from parallel_tunes.audio.logmel_torch import LogMelTransform

ULPS_DB = 3.1e-5  # four steps of a float32 near 100 dB
ODD = LogMel(n_fft=1023, hop_length=300, num_mels=40)
TINY = LogMel(sample_rate_hz=8000, n_fft=64, hop_length=24, num_mels=6)


def batch(num_clips: int = 3, num_samples: int = 4000, seed: int = 0) -> Tensor:
    """Clips of noise, each a hundred times as quiet as the one before."""
    samples = np.random.default_rng(seed).uniform(-1, 1, (num_clips, num_samples))
    return torch.from_numpy((samples * 10.0 ** -(2 * np.arange(num_clips)[:, None])).astype(np.float32))


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 900), st.integers(16, 65), st.integers(1, 90))
def test_equals_the_plain_one_at_any_length(num_samples: int, n_fft: int, hop_length: int) -> None:
    """An n_fft odd or even, clips shorter than a frame, hops longer than one: the same frames."""
    definition = LogMel(sample_rate_hz=8000, n_fft=n_fft, hop_length=hop_length, num_mels=2)
    samples = batch(1, num_samples)
    ours = LogMelTransform(definition)(samples)[0].numpy()
    plain = log_mel(samples[0].numpy(), sample_rate_hz=8000, n_fft=n_fft, hop_length=hop_length, num_mels=2)
    assert ours.shape == plain.shape
    near = plain >= plain.max(axis=0) - 60  # the plain one is in float32
    np.testing.assert_allclose(ours[near], plain[near], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("definition", "dtype"), [(LogMel(), torch.float32), (ODD, torch.float64)], ids=["even", "odd"]
)
def test_a_clip_has_the_same_bits_in_any_batch(definition: LogMel, dtype: torch.dtype) -> None:
    transform, clips = LogMelTransform(definition, dtype), batch(11, 140_000)  # more than one block of frames
    together = transform(clips)
    assert together.is_contiguous()
    for parts in ([1] * 11, [4, 7], [10, 1]):
        assert torch.equal(torch.cat([transform(part) for part in torch.split(clips, parts)]), together)
    assert torch.equal(transform(clips.flip(0)), together.flip(0))


@pytest.mark.parametrize("settings", [LogMel(), ODD], ids=["even", "odd"])
def test_frames_that_lie_within_the_samples(settings: LogMel) -> None:
    """Of a clip with its zeros they are the centred ones; of a crop with what its frames reach, the clip's."""
    definition = replace(settings, top_db=None)
    transform, clips = LogMelTransform(definition), batch(2, 33001)
    n_fft, hop_length = definition.n_fft, definition.hop_length
    whole = transform(clips)
    padded = torch.nn.functional.pad(clips, (n_fft // 2, n_fft - n_fft // 2))
    assert torch.equal(transform(padded, centred=False), whole)
    crop = padded[:, 9 * hop_length : 19 * hop_length + n_fft]
    torch.testing.assert_close(transform(crop, centred=False), whole[..., 9:20], rtol=0, atol=ULPS_DB)


def test_a_given_floor_takes_the_place_of_the_clips_own() -> None:
    transform, clips = LogMelTransform(LogMel(top_db=10)), batch()
    levels = LogMelTransform(LogMel(top_db=None))(clips)
    floor_db = torch.tensor([-30.0, -torch.inf, 5.0])
    assert torch.equal(transform(clips, floor_db=floor_db), torch.maximum(levels, floor_db[:, None, None]))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    transform, clips = LogMelTransform(TINY), batch()
    whole = transform(clips)
    monkeypatch.setattr("parallel_tunes.audio.logmel_torch._FRAMES", {"cpu": 7})
    torch.testing.assert_close(transform(clips), whole, rtol=0, atol=ULPS_DB)


def test_int16_equals_float() -> None:
    transform = LogMelTransform(LogMel())
    pcm = (batch() * 32767).to(torch.int16)
    pcm[0, :2] = torch.tensor([-32768, 32767])
    torch.testing.assert_close(transform(pcm), transform(pcm.float() / 32768), rtol=0, atol=0)


def test_float16_is_taken_for_what_it_holds() -> None:
    transform, halves = LogMelTransform(LogMel()), batch().half()
    decibels = transform(halves)
    assert decibels.dtype == torch.float32
    torch.testing.assert_close(decibels, transform(halves.float()), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.float32, torch.int16])
def test_gain_equals_scaling_the_waveform(kind: torch.dtype) -> None:
    transform = LogMelTransform(LogMel())
    clips = batch() if kind == torch.float32 else (batch() * 32767).to(kind)
    floats = clips if kind == torch.float32 else clips / 32768
    gain = torch.tensor([0.5, 3.7, 0.0])
    torch.testing.assert_close(transform(clips, gain), transform(floats * gain[:, None]), rtol=0, atol=1e-4)
    without = LogMelTransform(LogMel(top_db=None))
    louder = without(clips[:1], torch.tensor([10.0])) - without(clips[:1])
    torch.testing.assert_close(louder, torch.full_like(louder, 20), rtol=0, atol=1e-4)


@pytest.mark.parametrize("top_db", [None, 10.0])
def test_gradient_is_the_slope(top_db: float | None) -> None:
    """Of the waveform and of the gain, along random directions; the floor passes on the loudest value's."""
    transform = LogMelTransform(replace(TINY, top_db=top_db))
    waveform, gain = batch(2, 150).requires_grad_(), torch.tensor([0.8, 1.5], requires_grad=True)
    rng = np.random.default_rng(1)
    weights = torch.from_numpy(rng.uniform(0.5, 1, (2, 6, TINY.num_frames(150))))

    def loss(factor: Tensor, of_gain: Tensor) -> float:
        with torch.no_grad():
            return float((transform(waveform * factor, gain * of_gain).double() * weights).sum())

    (transform(waveform, gain).double() * weights).sum().backward()
    assert waveform.grad is not None
    assert gain.grad is not None
    for _ in range(5):
        along, of_gain = (torch.from_numpy(rng.standard_normal(tensor.shape)) for tensor in (waveform, gain))
        rise = loss(1 + 1e-3 * along, 1 + 1e-3 * of_gain) - loss(1 - 1e-3 * along, 1 - 1e-3 * of_gain)
        with torch.no_grad():
            slope = float((waveform.grad * waveform * along).sum() + (gain.grad * gain * of_gain).sum())
        assert rise / 2e-3 == pytest.approx(slope, rel=1e-2)


def test_gradient_of_silence_is_zero() -> None:
    waveform = torch.zeros(1, 300, requires_grad=True)
    torch.autograd.backward(LogMelTransform(TINY)(waveform).sum())
    assert waveform.grad is not None
    assert not waveform.grad.any()


def test_a_model_that_is_cast_keeps_its_exact_transform() -> None:
    model = torch.nn.Sequential(LogMelTransform(LogMel()), torch.nn.Linear(8, 2))
    clips = batch()
    before = model[0](clips)
    model.half()
    assert next(model.parameters()).dtype == torch.float16
    torch.testing.assert_close(copy.deepcopy(model)[0](clips), before, rtol=0, atol=0)
    assert model.to("meta")[0].window.is_meta


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_autocast_and_coarse_products_change_nothing(dtype: torch.dtype) -> None:
    transform, clips = LogMelTransform(LogMel(), dtype), batch()
    expected = transform(clips)
    set_to = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            decibels = transform(clips)
    finally:
        torch.set_float32_matmul_precision(set_to)
    assert decibels.dtype == torch.float32
    torch.testing.assert_close(decibels, expected, rtol=0, atol=0)


def test_nothing_to_learn_and_nothing_to_save() -> None:
    transform = LogMelTransform(LogMel())
    assert not transform.state_dict()
    assert not list(transform.parameters())
    np.testing.assert_array_equal(transform.filters.numpy(), LogMel().filters)


def test_refuses() -> None:
    transform, clips = LogMelTransform(TINY), torch.zeros(2, 100)
    for error, says, waveform, options in (
        (ValueError, r"shape \(100,\), not \(batch, num_samples\)", clips[0], {}),
        (ValueError, r"shape \(0, 100\)", clips[:0], {}),
        (ValueError, r"gain has shape \(1,\), not \(2,\)", clips, {"gain": torch.ones(1)}),
        (ValueError, r"floor_db has shape \(2, 1\), not \(2,\)", clips, {"floor_db": torch.zeros(2, 1)}),
        (ValueError, "63 samples, fewer than n_fft=64", clips[:, :63], {"centred": False}),
        (TypeError, r"torch\.int32: give floating samples or int16", clips.int(), {}),
        (TypeError, r"torch\.complex64", clips.to(torch.complex64), {}),
    ):
        with pytest.raises(error, match=says):
            transform(waveform, **options)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, ULPS_DB), (torch.float32, 1e-2)])
def test_the_same_on_a_gpu(dtype: torch.dtype, tolerance: float) -> None:
    clips = batch(8, 33001)
    on_cpu, on_gpu = LogMelTransform(LogMel()), LogMelTransform(LogMel(), dtype).to("cuda")
    decibels = on_gpu(clips)
    assert decibels.is_cuda
    torch.testing.assert_close(decibels.cpu(), on_cpu(clips), rtol=0, atol=tolerance)
