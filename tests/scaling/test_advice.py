from __future__ import annotations

import pytest
from studies import Plain, around, broken, cell, said, study

from parallel_tunes.scaling.advice import advise


def test_cheapest_and_fastest() -> None:
    metrics = study(cell(1, 100), cell(2, 180), cell(4, 300))
    first, second, *_ = advise(metrics)
    assert first == (
        "Cheapest for 40 epochs: 1 GPU at a global batch of 64 in bf16, 1.000 GPU-hours (95 % interval 0.990 to 1.010 GPU-hours)."
    )
    assert second.startswith(
        "Fastest for 40 epochs: 4 GPUs at a global batch of 64 in bf16, 20.00 min (95 % interval 19.80 to 20.20 min); it takes 1.33"
    )
    assert "1.33 times the cheapest's, which lasts 60.0" in second
    assert "told apart" not in " ".join(advise(metrics))


def test_one_cell_may_be_both() -> None:
    """A super-linear series."""
    metrics = study(cell(1, 100), cell(2, 230))
    assert advise(metrics)[0].startswith("Cheapest for 40 epochs: 2 GPUs")
    assert advise(metrics)[1].startswith("It is the fastest too: 26.09 min")
    assert not [sentence for sentence in advise(metrics) if sentence.startswith("Fastest")]


@pytest.mark.parametrize(
    ("rate", "spread", "says"),
    [
        (199.0, 0.01, "In GPU-hours cheapest and fastest cannot be told apart: the fastest is the one to take."),
        (101.0, 0.02, "In time cheapest and fastest cannot be told apart: the cheapest is the one to take."),
        (150.0, 0.4, "Cheapest and fastest cannot be told apart, neither in GPU-hours nor in time."),
        (150.0, 0.01, None),
    ],
)
def test_what_cannot_be_told_apart_is_said(rate: float, spread: float, says: str | None) -> None:
    advice = advise(study(cell(1, 100, spread=spread), cell(2, rate, spread=spread)))
    assert [sentence for sentence in advice if "heapest and fastest cannot" in sentence] == ([says] if says else [])
    assert ("not told apart from it in cost: 2 GPUs" in advice[0]) is (says is not None and "GPU-hours" in says)


def test_rivals_in_cost_are_few() -> None:
    cells = [cell(1, 100 - batch / 1000, batch=batch) for batch in (16, 32, 64, 128, 256)]
    assert (
        "(1.00), 1 GPU at a global batch of 64 in bf16 (1.00), 1 GPU at a global batch of 128 in bf16 (1.00) and 1 more."
        in advise(study(*cells))[0]
    )


def test_ddp_with_one_rank_is_no_choice() -> None:
    slow, ddp = cell(1, 100), cell(1, 130, ddp=True) | {"name": "gpus1-batch64-bf16-ddp"}
    assert "1.000 GPU-hours" in advise(study(slow, ddp))[0]
    assert "told apart" not in " ".join(advise(study(slow, ddp)))


def test_words_for_ranks_and_weak_scaling() -> None:
    metrics = study(cell(1, 100), cell(2, 180), unit="rank", mode="weak")
    assert "1 rank at a batch of 64 per rank in bf16, 1.000 rank-hours" in advise(metrics)[0]
    assert "2 ranks at" in advise(metrics)[1]
    assert "GPU" not in " ".join(advise(metrics))


def test_the_knee() -> None:
    """Efficiency times speed-up: 1, 1.62, 2.25, 2.0."""
    metrics = study(cell(1, 100), cell(2, 180), cell(4, 300), cell(8, 400))
    assert said(metrics, "The knee") == (
        "The knee is at 4 GPUs at a global batch of 64 in bf16: beyond that each further GPU buys less than it costs;"
        " there the rate is 3.000 (95 % interval 2.970 to 3.030) times that of 1 GPU,"
        " at an efficiency of 75.0 % (95 % interval 74.2 to 75.8 %)."
    )
    assert "each further GPU still buys more than it costs" in said(study(*metrics["cells"][:3]), "Up to 4 GPUs")
    assert "not told apart from 8 GPUs" in said(study(*metrics["cells"][:3], cell(8, 420)), "The knee")
    none = study(cell(1, 100), cell(2, 110), cell(4, 120))
    assert said(none, "The knee") == (
        "The knee is at 1 GPU at a global batch of 64 in bf16: beyond that each further GPU buys less than it costs."
    )


def test_the_knee_is_of_the_fastest_series() -> None:
    slow = [cell(1, 50, batch=32, one=50.0), cell(2, 55, batch=32, one=50.0)]
    assert "batch of 64" in said(study(*slow, cell(1, 100), cell(2, 180)), "The knee", "Up to")


def test_without_a_baseline_there_is_no_knee() -> None:
    advice = advise(study(broken(1, "oom"), cell(2, 180, one=None), cell(4, 300, one=None)))
    assert advice[0].startswith("Cheapest for 40 epochs: 2 GPUs")
    assert "buys" not in " ".join(advice)


def test_more_gpus_lose() -> None:
    rates = [cell(1, 100), cell(2, 180), cell(4, 150)]
    says = said(study(*rates), "More GPUs lose")
    assert "at a global batch of 64 in bf16: 4 GPUs process 150" in says
    assert "2 GPUs 180" in says
    assert "to 151" in says
    unsure = said(study(*rates[:2], cell(4, 179)), "Whether 4 GPUs are slower than 2")
    assert "cannot be told: 179.0" in unsure
    assert not [each for each in advise(study(*rates[:2], cell(4, 185))) if "slower" in each or "lose" in each]


def test_a_certain_loss_goes_before_a_seeming_one() -> None:
    advice = advise(study(cell(1, 100), cell(2, 80), cell(4, 99.5)))
    assert [each for each in advice if each.startswith(("More GPUs", "Whether"))] == [
        said(study(*[cell(1, 100), cell(2, 80)]), "More")
    ]


def test_the_target() -> None:
    def reaching(gpus: int, seconds: float, num: int) -> Plain:
        reached = {"time_to_target_s": around(seconds), "gpu_hours_to_target": around(seconds * gpus / 3600)}
        return cell(gpus, 100.0 * gpus, num_reached=num) | (reached if num else dict.fromkeys(reached))

    target = {"mode": "target", "target": 0.8}
    metrics = study(reaching(1, 3600, 5), reaching(2, 2400, 5), reaching(4, 60, 3), reaching(8, 0, 0), **target)
    assert advise(metrics)[0].startswith(
        "Cheapest to a validation accuracy of 0.8: 1 GPU at a global batch of 64 in bf16, 1.000 GPU-h"
    )
    # 4 GPUs are quicker where they reach it, which they do not always
    assert advise(metrics)[1].startswith("Fastest to a validation accuracy of 0.8: 2 GPUs")
    assert said(metrics, "Not every launch").endswith(
        "4 GPUs at a global batch of 64 in bf16 (3 of 5 launches) and 8 GPUs at a global batch of 64 in bf16 (0 of 5 launches)."
    )
    assert "reached in 3 of 5 launches only" in advise(study(*metrics["cells"][2:], **target))[0]
    none = advise(study(reaching(8, 0, 0), **target))
    assert none[0] == "No configuration came to a validation accuracy of 0.8."
    assert not [each for each in none if each.startswith(("Cheapest", "Fastest", "It is"))]
    assert any(each.startswith("On 8 GPUs") for each in none)
    assert "whether a larger one" not in " ".join(advise(metrics))


def test_nothing_to_say() -> None:
    assert advise(study()) == []
    assert advise({"cells": []}) == []
    assert advise(study(broken(1, "oom"), broken(2, "missing")))[0] == "No configuration has a cost that could be told."


def test_a_quick_look_is_called_one() -> None:
    cells = [cell(1, 100), cell(2, 180)]
    quick = said(study(*cells, quick=True, num_launches=1), "A quick look")
    assert quick == (
        "A quick look: one launch a cell, so that intervals do not hold what differs from launch to launch."
    )
    assert "2 launches a cell hold the truth in about 50 % of cases" in said(
        study(*cells, quick=True, num_launches=2), "A quick look"
    )
    assert "quick look" not in " ".join(advise(study(*cells)))


def test_what_had_not_settled_is_named() -> None:
    metrics = study(cell(1, 100, is_stable=False), cell(2, 180), cell(4, 170, is_stable=False))
    says = said(metrics, "Not in every launch")
    assert says.endswith("measured: 1 GPU at a global batch of 64 in bf16.")  # 4 GPUs are not recommended
    assert not [each for each in advise(study(cell(1, 100))) if "settled" in each]


def test_batches_are_compared_with_a_warning() -> None:
    metrics = study(cell(1, 100), cell(1, 200, batch=128))
    assert "whatever the batch" in said(metrics, "Costs are of as many epochs")
    assert "whatever the batch" not in " ".join(advise(study(cell(1, 100), cell(2, 180))))


def test_sentences_are_sentences() -> None:
    noise = {"median": 210.0, "low": 120.0, "high": 400.0, "n": 10}
    metrics = study(
        cell(1, 100),
        cell(2, 180),
        cell(4, 150),
        cell(1, 60, precision="fp32"),
        broken(1, "oom"),
        quick=True,
        noise_scale_of_all=noise,
    )
    advice = advise(metrics)
    assert len(advice) >= 10
    for sentence in advice:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert not any(word in sentence for word in ("  ", "None", "1 GPUs", "nan", "..", " ,"))
