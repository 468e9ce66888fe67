from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel_tunes.audio.definition import LogMel
from parallel_tunes.config_train import AugmentConfig, TrainConfig
from parallel_tunes.models.residual_cnn import EPSILON, Beside, ResidualCNN
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.schema import build, defaults
from parallel_tunes.train.augment import Augmentation
from parallel_tunes.train.gradient import GradientLearner
from parallel_tunes.train.learner import Batch, Mixed, Sums


def make_learner(*, multi_label: bool = False, norm: str = "sync", **settings: Any) -> GradientLearner:
    torch.manual_seed(3)
    cfg: TrainConfig = build(TrainConfig, defaults("train", "default") | {"precision": "fp32"} | settings, "train.")
    model = ResidualCNN(3, [16, 6], norm=norm)
    mesh = Mesh()
    mesh.start("cpu", 60)
    return GradientLearner(
        model, cfg, mesh, mean_db=0.0, deviation_db=1.0, total_steps=9, lr=1e-2, multi_label=multi_label
    )


def make_batch(seed: int) -> Batch:
    inputs = torch.randn(7, 12, 9, generator=torch.Generator().manual_seed(seed))
    ids = torch.arange(7)
    return Batch(inputs, ids % 3, torch.ones(7), ids, 7, ids)


def test_a_moving_average_answers() -> None:
    """It follows its definition; a checkpoint brings it back; what it says is what a model with its weights says."""
    learner = make_learner(ema=0.5)
    wanted = {name: each.clone() for name, each in learner.model.state_dict().items() if each.is_floating_point()}
    for step in range(4):
        learner.step(make_batch(step), step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, each in learner.model.state_dict().items():
            if name in wanted:
                wanted[name] = decay * wanted[name] + (1 - decay) * each
    kept = learner.weights()
    for name, each in wanted.items():
        torch.testing.assert_close(kept[name], each, rtol=1e-5, atol=1e-6)
        assert not torch.equal(kept[name], learner.model.state_dict()[name])
    inputs = make_batch(9).inputs
    answers = learner.predict(inputs)
    frozen = make_learner()
    frozen.load_weights(kept)
    torch.testing.assert_close(frozen.predict(inputs), answers, rtol=1e-5, atol=1e-6)
    other = make_learner(ema=0.5)
    other.load(copy.deepcopy(learner.state()))
    for each in (learner, other):
        each.step(make_batch(4), 4)
    assert torch.equal(other.predict(inputs), learner.predict(inputs))
    other.load_weights(kept)
    assert torch.equal(other.predict(inputs), answers)


def make_sets(num: int = 7) -> Batch:
    """Samples of several labels, each mixed with another."""
    batch, draws = make_batch(0), torch.Generator().manual_seed(1)
    sets, others = torch.randint(0, 2, (2, num, 3), dtype=torch.int8, generator=draws)
    mixed = Mixed(make_batch(1).inputs, others, torch.rand(num, generator=draws), batch.keys + 100)
    return Batch(batch.inputs, sets, batch.weights, batch.marks, num, batch.keys, mixed)


def test_labels_of_a_set_are_learnt_each_by_itself() -> None:
    """The mean over labels of -log p of what is true, smoothed towards one half; right is a sample all of whose labels are."""
    learner, logits = make_learner(multi_label=True, label_smoothing=0.2), torch.randn(5, 3)
    targets = torch.randint(0, 2, (5, 3), dtype=torch.int8)
    chances, spread = logits.sigmoid(), 0.8 * targets + 0.1
    wanted = -(spread * chances.log() + (1 - spread) * (1 - chances).log()).mean(1)
    torch.testing.assert_close(learner.judge_logits(logits, targets), wanted)
    assert learner.find_right(logits, (logits > 0).to(torch.int8)).all()
    wrong = (logits > 0).to(torch.int8)
    wrong[2, 1] = 1 - wrong[2, 1]
    assert learner.find_right(logits, wrong).tolist() == [True, True, False, True, True]
    answers = learner.predict(make_batch(0).inputs)
    levels = learner.standardise(make_batch(0).inputs)
    torch.testing.assert_close(answers, learner.model(levels).detach().sigmoid())


def test_mixed_sets_are_as_sets_of_mixed_labels() -> None:
    learner, batch = make_learner(multi_label=True, label_smoothing=0.0), make_sets()
    assert batch.mixed is not None
    logits, shares = torch.randn(7, 3), batch.mixed.shares
    own, others = (learner.judge_logits(logits, each) for each in (batch.targets, batch.mixed.targets))
    apart = torch.lerp(others, own, shares)
    both = torch.lerp(batch.mixed.targets.float(), batch.targets.float(), shares[:, None])
    torch.testing.assert_close(apart, F.binary_cross_entropy_with_logits(logits, both, reduction="none").mean(1))


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_parts_of_a_batch_of_sets_add_up_to_the_whole(world_size: int) -> None:
    """What ranks, or parts in turn, learn from: sums and gradients, with a norm that knows a sample alone."""
    learner, batch = make_learner(multi_label=True, norm="group", precision="fp64"), make_sets()

    def take_gradient() -> torch.Tensor:
        grads = [parameter.grad for parameter in learner.model.parameters() if parameter.grad is not None]
        learner.optimizer.zero_grad(set_to_none=True)
        return torch.cat([grad.flatten() for grad in grads])

    whole = Sums()
    whole += learner._backward(batch)
    wanted = take_gradient()
    parts, total = Sums(), torch.zeros_like(wanted)
    for part in batch.split(world_size, 1):
        assert part.targets.ndim == 2
        parts += learner._backward(part)
        total += take_gradient()
    assert int(whole.values[2]) == 7
    assert torch.equal(parts.values, whole.values)
    torch.testing.assert_close(total, wanted, rtol=1e-9, atol=1e-12)


def test_labels_are_smoothed() -> None:
    learner, logits, targets = make_learner(label_smoothing=0.3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    spread = 0.7 * F.one_hot(targets, 3) + 0.1
    wanted = -(spread * logits.log_softmax(1)).sum(1)
    torch.testing.assert_close(learner.judge_logits(logits, targets), wanted)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_state_holds_what_the_next_step_needs(ema: float) -> None:
    learner = make_learner(ema=ema)
    learner.step(make_batch(0), 0)
    assert ("averaged" in learner.state()) is bool(ema)


def test_branches_learn_alone_and_textures_see_samples_as_they_are() -> None:
    """The network learns of altered crops and shared labels, the texture of the whole sample and its own label; the loss is
    the mean of both. AdamW takes the texture's gradients as they are.
    """
    learner = make_learner(label_smoothing=0.1)
    ids, generator = torch.arange(7), torch.Generator().manual_seed(1)
    samples, others = torch.randn(2, 7, 12, 14, generator=generator).unbind()
    mixed = Mixed(others, (ids + 1) % 3, torch.full((7,), 0.75), ids)
    batch = Batch(samples, ids % 3, torch.ones(7), ids, 7, ids, mixed)
    plain = ResidualCNN(3, [16, 6], texture=True)
    cfg = build(AugmentConfig, defaults("augment", "masks") | {"mel_mask_share": 0.5}, "augment.")
    seen: dict[str, Tensor] = {}
    masks = Augmentation(cfg, LogMel(num_mels=12), deviation_db=1.0, window=9)
    learner = GradientLearner(
        plain, learner.cfg, learner.mesh, mean_db=0.0, deviation_db=1.0, total_steps=9, lr=1e-2, augmentation=masks
    )
    texture = plain.texture
    assert isinstance(texture, Beside)
    hooks: tuple[tuple[str, nn.Module], ...] = (("network", plain.stages), ("texture", texture), ("answer", plain))
    for name, part in hooks:
        part.register_forward_hook(
            lambda _, given, found, name=name: seen.update({name: given[0], f"{name} out": found})
        )
    sums = learner.step(batch, 0)
    assert torch.equal(seen["texture"].squeeze(1), samples)
    assert seen["network"].shape == (7, 1, 12, 9)
    assert (seen["network"] == 0).any()
    branches = seen["answer out"].detach().float()
    assert branches.shape == (7, 2, 3)
    first, second = (
        F.cross_entropy(branches[:, 0], targets, label_smoothing=0.1) for targets in (batch.targets, mixed.targets)
    )
    own = F.cross_entropy(branches[:, 1], batch.targets)
    assert sums.means()["loss"] == pytest.approx(float(0.75 * first + 0.25 * second + own) / 2, rel=1e-5)
    own_group = learner.optimizer.param_groups[-1]
    assert [id(each) for each in own_group["params"]] == [id(texture.classify.weight), id(texture.classify.bias)]
    assert own_group["eps"] == EPSILON
