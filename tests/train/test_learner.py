from __future__ import annotations

import pytest
import torch

from parallel_tunes.schema import UserError
from parallel_tunes.train.learner import Sums


def test_sums_do_not_depend_on_order_or_parts() -> None:
    losses = torch.randn(1000).abs() * torch.logspace(-6, 3, 1000)
    right, weights = torch.rand(1000) < 0.3, torch.ones(1000)
    marks = torch.randint(-(2**63), 2**63 - 1, (1000,))
    whole = Sums.of(losses, right, weights, marks)
    for seed in range(5):
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
        parts = Sums()
        for part in torch.split(order, 37):
            parts += Sums.of(losses[part], right[part], weights[part], marks[part])
        assert torch.equal(parts.values, whole.values)
    assert whole.means()["loss"] == pytest.approx(float(losses.double().mean()), abs=1e-7)


def test_a_stand_in_weighs_nothing() -> None:
    sums = Sums.of(
        torch.tensor([1.0, float("nan")]), torch.tensor([True, True]), torch.tensor([1.0, 0.0]), torch.tensor([7, 9])
    )
    assert sums.means() == {"loss": 1.0, "accuracy": 1.0, "n": 1}
    assert sums.fingerprint() == f"{7:016x}"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told(bad: float) -> None:
    sums = Sums.of(
        torch.tensor([1.0, bad]), torch.tensor([True, False]), torch.ones(2), torch.zeros(2, dtype=torch.int64)
    )
    with pytest.raises(UserError, match="not finite for 1 of 2 samples"):
        sums.means()
