from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from parallel_tunes.models import texture
from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.models.residual_cnn import ResidualCNN, cut
from parallel_tunes.models.texture import LAGS, LEVELS, NUM_BANDS, RIDGE, ROOT, Texture, average

SIZE = NUM_BANDS * (1 + len(LAGS))
NUM_PAIRS = SIZE * (SIZE + 1) // 2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("find_root", "most_apart"), [("find_fourth_root", 1e-4), ("iterate_fourth_root", 8e-3)])
def test_it_is_the_fourth_root_of_the_covariance(
    find_root: str, most_apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By numpy's eigenvalues, in float64, of a crop shorter than its covariance is wide."""
    monkeypatch.setattr(texture, "find_fourth_root", getattr(texture, find_root))
    crops = noise(3, 1, 128, 40).cumsum(3) / 6
    found = Texture()(crops)
    for crop, values in zip(crops[:, 0].double().numpy(), found.numpy(), strict=True):
        bands = crop.reshape(NUM_BANDS, -1, 40).mean(1)
        moves = [np.pad(bands[:, lag:] - bands[:, :-lag], ((0, 0), (lag, 0))) for lag in LAGS]
        both = np.concatenate([bands, *moves])
        spread = np.cov(both, bias=True) + RIDGE * np.eye(len(both))
        sizes, directions = np.linalg.eigh(spread)
        root = ROOT * directions * sizes**0.25 @ directions.T
        wanted = (root * (np.sqrt(2) + (1 - np.sqrt(2)) * np.eye(len(root))))[np.triu_indices(len(root))]
        np.testing.assert_allclose(values[:NUM_PAIRS], wanted, atol=most_apart)
        np.testing.assert_allclose(
            values[NUM_PAIRS:], LEVELS * np.concatenate([bands.mean(1), bands.max(1), bands.min(1)]), atol=1e-5
        )
        # the distance of two matrices is that of their rows of values
        assert np.linalg.norm(values[:NUM_PAIRS]) == pytest.approx(np.linalg.norm(root), rel=1e-3)


def test_an_equaliser_changes_means_alone() -> None:
    crops = noise(2, 1, 64, 80)
    plain, equalised = Texture()(crops), Texture()(crops + noise(1, 1, 64, 1, seed=1))
    assert torch.allclose(plain[:, :NUM_PAIRS], equalised[:, :NUM_PAIRS], atol=1e-4)
    assert not torch.allclose(plain[:, NUM_PAIRS:], equalised[:, NUM_PAIRS:], atol=0.01)


@pytest.mark.parametrize(("num_mels", "num_frames"), [(128, 1), (40, 2), (20, 9), (229, 3)])
def test_any_size_has_as_many_values(num_mels: int, num_frames: int) -> None:
    found = Texture()(noise(2, 1, num_mels, num_frames))
    assert found.shape == (2, Texture().num_values)
    assert found.isfinite().all()
    shares = average(num_mels, torch.empty(0, dtype=torch.float64))
    assert torch.allclose(shares.sum(1), torch.ones(NUM_BANDS, dtype=torch.float64))
    if num_mels >= NUM_BANDS:  # no band is left out, or counts more than others
        assert torch.allclose(shares.sum(0), torch.full((num_mels,), NUM_BANDS / num_mels, dtype=torch.float64))


def test_silence_has_values() -> None:
    assert Texture()(torch.full((1, 1, 64, 30), -2.0)).isfinite().all()


def test_the_network_answers_with_both() -> None:
    """Each branch learns by itself, the texture's of another input; the answer is their mean, by shares."""
    torch.manual_seed(0)
    model = ResidualCNN(5, [8, 16], texture=True)
    crops, masked = noise(3, 1, 64, 40), noise(3, 1, 64, 40, seed=1)
    assert model.texture is not None
    torch.nn.init.normal_(model.texture.classify.weight, std=0.01)
    for layer in model.modules():
        if isinstance(layer, KeyedDropout):
            layer.share = 0
    branches = model(masked, crops)
    assert branches.shape == (3, 2, 5)
    beside = model.eval().texture
    assert beside is not None
    together, own = model(crops), beside(crops)
    assert torch.allclose(branches[:, 1], own, atol=1e-5)
    model.texture = None
    assert torch.allclose(together, torch.lerp(model(crops), own, 2 / 3), atol=1e-5)


@pytest.mark.parametrize("num_frames", [20, 21, 30, 31, 95])
def test_a_network_is_given_pieces_of_a_window(num_frames: int) -> None:
    """They hold every frame, overlap by half at least, and their answers are averaged; a texture is of the whole."""
    torch.manual_seed(0)
    model = ResidualCNN(5, [8, 16], texture=True, piece=20).eval()
    assert model.texture is not None
    torch.nn.init.normal_(model.texture.classify.weight, std=0.01)
    windows = noise(3, 1, 64, num_frames)
    numbered = torch.arange(num_frames).expand(1, 1, 1, -1)
    places = [(int(piece.min()), int(piece.max())) for piece in cut(numbered, 20)]
    assert places[0][0] == 0
    assert places[-1][1] == num_frames - 1
    assert all(last - first == 19 for first, last in places)
    assert all(0 < later - first <= 10 for (first, _), (later, _) in itertools.pairwise(places))
    network = torch.stack([model.hear(windows[..., first : first + 20]) for first, _ in places]).mean(0)
    assert torch.allclose(model(windows), torch.lerp(network, model.texture(windows), 2 / 3), atol=1e-5)
