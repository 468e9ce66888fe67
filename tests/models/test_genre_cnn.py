from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from parallel_tunes.config_train import ModelConfig
from parallel_tunes.models.dropout import KeyedDropout
from parallel_tunes.models.heads import make_head
from parallel_tunes.schema import UserError, build, defaults
from parallel_tunes.train.model_folder import build_model, count_multiply_adds

NAMES = ["attention_cnn", "crnn", "genre_cnn", "light_cnn", "residual_cnn", "seed_four", "seed_three"]
SIZE = (64, 86)


def configure(name: str, **settings: Any) -> ModelConfig:
    config: ModelConfig = build(ModelConfig, defaults("model", name) | settings, "model.")
    return config


def count(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_one_step_learns(name: str) -> None:
    """Logits for each label, from any batch; a step along the gradient lowers the loss, in eval mode too it answers."""
    model = build_model(configure(name, dropout=0.1), 7, 0, SIZE)
    inputs, targets = torch.randn(4, 1, *SIZE), torch.arange(4)
    for layer in model.modules():
        if isinstance(layer, KeyedDropout):
            layer.keys = torch.arange(4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        logits = model(inputs)
        if logits.ndim == 3:  # of branches, each of which learns by itself
            logits = logits.mean(1)
        assert logits.shape == (4, 7)
        loss = F.cross_entropy(logits, targets)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        assert all(each.grad is not None and bool(each.grad.any()) for each in model.parameters() if each.ndim > 1)
        optimizer.step()
    assert losses[1] < losses[0]
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(model(inputs[:1]), model(inputs)[:1], rtol=1e-4, atol=1e-5)


def test_sizes() -> None:
    sizes = {name: count(build_model(configure(name), 10, 0, (128, 128))) for name in NAMES}
    assert sizes["light_cnn"] <= 100_000
    assert sizes["residual_cnn"] <= 1_000_000
    # three blocks of 32, 64 and 128 maps, which leave 128 x 16 x 16 values for dense layers of 512 and 256
    maps, norms = 9 * (32 + 32 * 64 + 64 * 128), 2 * (32 + 64 + 128)
    dense = 128 * 16 * 16 * 512 + 512 * 256 + 2 * (512 + 256) + 256 * 10 + 10
    assert sizes["seed_three"] == maps + norms + dense


def test_multiply_adds() -> None:
    plain = configure("genre_cnn", widths=[4, 8])
    first, second = 16 * 24 * 4 * 9, 8 * 12 * 8 * 4 * 9
    assert count_multiply_adds(plain, 10, (16, 24)) == first + second + 16 * 10
    recurrent = count_multiply_adds(configure("crnn", widths=[4, 8]), 10, (16, 24))
    assert recurrent > count_multiply_adds(configure("residual_cnn", widths=[4, 8], texture=False), 10, (16, 24))


def test_a_recurrent_head_hears_the_order_of_things() -> None:
    """Reversed in time, the mean and maximum of maps without padding stay; a recurrent layer's states do not."""
    maps = torch.randn(2, 8, 3, 20)

    for kind, is_deaf in (("mean_max", True), ("attention", True), ("recurrent", False)):
        torch.manual_seed(0)
        head = make_head(kind, 8)
        summary = head(maps)
        assert summary.shape == (2, head.num_values)
        assert torch.allclose(summary, head(maps.flip(3)), atol=1e-5) is is_deaf


@pytest.mark.parametrize(
    ("name", "settings", "what"),
    [
        ("genre_cnn", {"pools": [2]}, "model.pools="),
        ("genre_cnn", {"texture": True}, "model.texture=true"),
        ("seed_three", {"pools": [2, 2]}, "model.pools="),
        ("seed_three", {"norm": "group"}, "model.norm=group"),
        ("seed_four", {"pools": [16, 16, 16, 16]}, "leave nothing of 64 x 86"),
    ],
)
def test_keys_that_do_not_go_together(name: str, settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        build_model(configure(name, **settings), 10, 0, SIZE)
