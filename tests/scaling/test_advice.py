from __future__ import annotations

from typing import Any

import pytest

from parallel_tunes.scaling.advice import advise

Plain = dict[str, Any]


def around(median: float, spread: float = 0.01) -> dict[str, float]:
    return {"median": median, "low": median * (1 - spread), "high": median * (1 + spread)}


def cell(
    gpus: int,
    rate: float,
    *,
    batch: int = 64,
    precision: str = "bf16",
    one: float | None = 100.0,
    spread: float = 0.01,
    **other: Any,
) -> Plain:
    """A cell of `rate` samples/s whose training is of 360,000 samples; `one` is the rate of its baseline."""
    gain = rate / one if one else 0.0
    seconds = 360_000 / rate
    return {
        "name": f"gpus{gpus}-batch{batch}-{precision}",
        "gpus": gpus,
        "batch": batch,
        "global_batch": batch,
        "precision": precision,
        "ddp": gpus > 1,
        "status": "ok",
        "reason": None,
        "n": 5,
        "is_stable": True,
        "samples_per_s": around(rate, spread),
        "baseline": f"gpus1-batch{batch}-{precision}" if one and gpus > 1 else None,
        "speedup": around(gain, spread) if one and gpus > 1 else None,
        "efficiency": around(gain / gpus, spread) if one and gpus > 1 else None,
        "split": {
            "data": 2.0,
            "compute": 80.0,
            "communication": 10.0 * (gpus > 1),
            "evaluation": 8.0,
            "checkpoint": 0.0,
        },
        "epoch_s": around(seconds / 40, spread),
        "train_s": around(seconds, spread),
        "gpu_hours": around(seconds * gpus / 3600, spread),
        "peak_memory_mib": [512.0],
        **other,
    }


def broken(gpus: int, status: str, **other: Any) -> Plain:
    nothing = dict.fromkeys(
        ["samples_per_s", "speedup", "efficiency", "epoch_s", "train_s", "gpu_hours", "split", "baseline"]
    )
    return cell(gpus, 1.0) | nothing | {"status": status, "n": 0, "peak_memory_mib": []} | other


def study(*cells: Plain, **other: Any) -> Plain:
    return {
        "mode": "strong", "unit": "GPU", "quick": False, "num_launches": 5, "num_epochs": 40, "target": None,
        "missing": [], "cells": list(cells), "noise_scale": [],
    } | other  # fmt: skip


def said(metrics: Plain, *starts: str) -> str:
    """The one sentence that starts like this, in any case but that of its first letter."""
    (found,) = [sentence for sentence in advise(metrics) if sentence.startswith(starts)]
    return found


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


def test_bottlenecks() -> None:
    metrics = study(cell(1, 100), cell(2, 180))
    fast, alone = [sentence for sentence in advise(metrics) if "an epoch is" in sentence]
    assert fast == (
        "On 2 GPUs at a global batch of 64 in bf16, the fastest, an epoch is 80 % compute, 10 % communication, 8 % evaluation"
        " and 2 % data: besides compute, communication takes most."
    )
    assert alone.startswith("On 1 GPU")
    assert alone.endswith("besides compute, evaluation takes most.")


def test_no_bottleneck_but_compute() -> None:
    advice = advise(study(cell(1, 100, split={"data": 0.0, "compute": 3.0}), cell(2, 50, split=None)))
    assert [each for each in advice if "an epoch" in each] == [
        "On 1 GPU at a global batch of 64 in bf16, the fastest, an epoch is 100 % compute."
    ]


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (
            60.0,
            "The precision bf16 pays: 1.67 times the samples/s of fp32; on 1 GPU at a global batch of 64 in bf16 100.0",
        ),
        (130.0, "The precision bf16 does not pay: 0.769 times the samples/s of fp32"),
        (100.5, "The precision bf16 cannot be told to pay: 0.995 times"),
    ],
)
def test_a_precision_that_pays(rate: float, says: str) -> None:
    assert said(study(cell(1, 100), cell(1, rate, precision="fp32")), "The precision").startswith(says)


def test_a_precision_over_several_cells() -> None:
    narrow = [cell(1, 100), cell(2, 180), cell(4, 200)]
    wide = [cell(1, 60, precision="fp32"), cell(2, 179, precision="fp32"), cell(4, 250, precision="fp32")]
    assert said(study(*wide, *narrow), "The precision").startswith(
        "The precision bf16 pays in 1 of 3 configurations, loses in 1, and in 1 it cannot be told: 0.800 to 1.67 times"
    )
    assert not [each for each in advise(study(*narrow)) if each.startswith("The precision")]


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


def test_what_did_not_work_is_said() -> None:
    metrics = study(
        cell(1, 100),
        broken(1, "oom", batch=512, peak_memory_mib=[81000.0, 80000.5]),
        broken(2, "oom", batch=512),
        broken(2, "failed", reason="NCCL error"),
        broken(4, "missing"),
        missing=["gpus4-batch64-bf16: launch 1"],
    )
    assert said(metrics, "Out of memory") == (
        "Out of memory: 1 GPU at a global batch of 512 in bf16 (81,000 MiB on a GPU) and 2 GPUs at a global batch of 512 in bf16."
    )
    assert said(metrics, "Failed") == "Failed: 2 GPUs at a global batch of 64 in bf16 (NCCL error)."
    assert (
        said(metrics, "Not there yet") == "Not there yet: gpus4-batch64-bf16: launch 1; what is said here may change."
    )
    assert advise(metrics)[0].startswith("Cheapest for 40 epochs: 1 GPU")


def test_long_lists_are_cut() -> None:
    says = said(study(cell(1, 100), missing=[f"launch {num}" for num in range(20)]), "Not there yet")
    assert "launch 5 and 14 more" in says
    assert "launch 6" not in says


def test_nothing_to_say() -> None:
    assert advise(study()) == []
    assert advise({"cells": []}) == []
    assert advise(study(broken(1, "oom"), broken(2, "missing")))[0] == "No configuration has a cost that could be told."


@pytest.mark.parametrize(
    ("batch", "end"),
    [
        (64, "batches above it bring little (McCandlish et al. 2018)."),
        (256, "bring little (McCandlish et al. 2018), and the fastest, 256, lies within its interval."),
        (512, "bring little (McCandlish et al. 2018), and the fastest, 512, lies above it."),
    ],
)
def test_the_noise_scale(batch: int, end: str) -> None:
    noise = [
        {"batch": 8, "median": 1.0, "low": 0.5, "high": 2.0, "n": 10},
        {"batch": batch, "median": 210.0, "low": 120.0, "high": 400.0, "n": 10},
        {"batch": 1024, "median": None, "low": None, "high": None, "n": 0},
    ]
    says = said(study(cell(1, 100, batch=batch), noise_scale=noise), "A hint")
    assert f"is 210 (95 % interval 120 to 400) samples at a global batch of {batch};" in says
    assert says.endswith(end)


def test_a_quick_look_is_called_one() -> None:
    cells = [cell(1, 100), cell(2, 180)]
    quick = said(study(*cells, quick=True, num_launches=1), "A quick look")
    assert quick == (
        "A quick look: one launch a cell, so that intervals do not hold what differs from launch to launch."
    )
    assert "2 launches a cell" in said(study(*cells, quick=True, num_launches=2), "A quick look")
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
    noise = [{"batch": 64, "median": 210.0, "low": 120.0, "high": 400.0, "n": 10}]
    metrics = study(
        cell(1, 100),
        cell(2, 180),
        cell(4, 150),
        cell(1, 60, precision="fp32"),
        broken(1, "oom"),
        quick=True,
        noise_scale=noise,
    )
    advice = advise(metrics)
    assert len(advice) >= 10
    for sentence in advice:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert not any(word in sentence for word in ("  ", "None", "1 GPUs", "nan", "..", " ,"))
