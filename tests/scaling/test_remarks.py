from __future__ import annotations

import pytest
from studies import broken, cell, said, study

from parallel_tunes.scaling.advice import advise


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


@pytest.mark.parametrize(
    ("batch", "end"),
    [
        (64, "batches above it bring little (McCandlish et al. 2018)."),
        (256, "bring little (McCandlish et al. 2018), and the fastest, 256, lies within its interval."),
        (512, "bring little (McCandlish et al. 2018), and the fastest, 512, lies above it."),
    ],
)
def test_the_noise_scale(batch: int, end: str) -> None:
    noise = {"median": 210.0, "low": 120.0, "high": 400.0, "n": 10}
    says = said(study(cell(1, 100, batch=batch), noise_scale_of_all=noise), "A hint")
    assert "is 210 (95 % interval 120 to 400) samples, and grows later;" in says
    assert says.endswith(end)


def test_preprocessing_is_told_of_its_best_engines() -> None:
    def made(engines: int, rate: float, over: float) -> dict[str, object]:
        intervals = {
            key: {"median": value, "low": 0.9 * value, "high": 1.1 * value}
            for key, value in (("tracks_per_s", rate), ("speedup", rate / 100), ("speedup_over_one", over))
        }
        return {"name": f"engines{engines}", "engines": engines, "status": "ok", **intervals}

    broken = {"name": "engines8", "engines": 8, "status": "failed", "tracks_per_s": None}
    cells = [made(1, 300, 1.0), made(4, 900, 3.0), broken]
    says = said(study(cell(1, 100), preprocess={"cells": cells, "serial": None}), "Preprocessing")
    assert "quickest on 4 engines: 900 tracks/s (95 % interval 810 to 990 tracks/s), 9.0 (95 % interval" in says
    assert "times those of librosa in one process" in says
    assert says.endswith("and 3.00 (95 % interval 2.70 to 3.30) times those of the fewest engines.")
    assert not any("reprocessing" in sentence for sentence in advise(study(cell(1, 100))))
