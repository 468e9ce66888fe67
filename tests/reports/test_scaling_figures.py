from __future__ import annotations

from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text
from metrics_of import make_study, texts

from parallel_tunes.reports.scaling.frontier import draw_frontier, label_points, overlap, pareto
from parallel_tunes.reports.scaling.look import LOOK, ink_on
from parallel_tunes.reports.scaling.speed import COLOURS, draw_speedup, draw_throughput


def test_the_speedup_is_drawn_as_measured() -> None:
    metrics = make_study()["metrics"]
    picture = draw_speedup(metrics)
    assert picture is not None
    axes = picture.drawing.axes[0]
    assert axes.get_xticks().tolist() == [1, 2, 4]
    cells = {cell["name"]: cell for cell in metrics["cells"]}
    law = next(line for line in axes.lines if len(np.asarray(line.get_xdata())) > 10)
    at, height = (np.asarray(values, float) for values in law.get_data())
    assert at[-1] == 8  # twice the largest N
    rate = dict(map(tuple, metrics["fits"][0]["curve"]))[4.0]
    expected = rate / cells["gpus1-batch64-bf16"]["samples_per_s"]["median"]
    assert height[np.flatnonzero(at == 4)[0]] == pytest.approx(expected)
    points = next(line for line in axes.lines if line.get_marker() == "o")
    assert np.asarray(points.get_ydata(), float).tolist() == [
        cells[f"gpus{n}-batch64-bf16"]["speedup"]["median"] for n in (1, 2, 4)
    ]
    said = texts(picture)
    assert "Amdahl, descriptive" in said
    assert "not measured" in said
    assert "want of two points or of one GPU to compare with: batch 256" in picture.caption


def test_a_baseline_without_a_speedup_counts_as_one() -> None:
    metrics = make_study(numbers=(1, 2), batches=(64,))["metrics"]
    metrics["cells"][0] |= {"speedup": None, "efficiency": None}
    picture = draw_speedup(metrics)
    assert picture is not None
    assert "1 GPU, batch 64: 1.00 times" in picture.alt
    plt.close(picture.drawing)


def test_boxes_without_a_number_say_why() -> None:
    metrics = make_study()["metrics"]
    metrics["cells"][5] |= {"status": "failed", "samples_per_s": None}
    said = texts(draw_throughput(metrics))
    assert [said.count(words) for words in ("out of\nmemory", "failed", "missing", "1179")] == [1, 1, 1, 1]


def test_numbers_can_be_read_on_any_colour() -> None:
    def luminance(colour: Any) -> float:
        parts = np.array(matplotlib.colors.to_rgb(colour))
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    for share in np.linspace(0, 1, 101):
        one, other = sorted((luminance(COLOURS(share)), luminance(ink_on(COLOURS(share)))))
        assert (other + 0.05) / (one + 0.05) >= 4.5  # what WCAG asks of text


def test_the_frontier() -> None:
    assert pareto([(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.5, 2.5), (3.0, 2.0), (2.0, 2.2)]) == [1, 2, 0]
    picture = draw_frontier(make_study()["metrics"])
    assert picture is not None
    assert "4 GPUs, batch 64: 9.59 min, 0.639 GPU-hours, on the frontier" in picture.alt
    assert "2 GPUs, batch 64: 13.9 min, 0.465 GPU-hours;" in picture.alt + ";"
    assert "cost (GPU-hours)" in texts(picture)


@pytest.mark.parametrize("seed", range(3))
def test_labels_hide_nothing(seed: int) -> None:
    at = np.random.default_rng(seed).normal(0, 1, (14, 2))
    points = [(float(x), float(y)) for x, y in at]
    with matplotlib.rc_context(LOOK):
        drawing, axes = plt.subplots(figsize=(9, 5), layout="constrained")
        axes.plot(*at.T, "o")
        axes.margins(0.04)
        boxes = label_points(axes, points, ["16 GPUs"] * len(points), pareto(points))
        inside, pixels = axes.get_window_extent(), axes.transData.transform(points)
        drawing.draw_without_rendering()
        notes = [Text.get_window_extent(note) for note in axes.texts]
        plt.close(drawing)
    assert len(boxes) == 14
    for place, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in boxes[:place])
        assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in pixels)
        assert box[0] >= inside.x0
        assert box[1] >= inside.y0
        assert box[2] <= inside.x1
        assert box[3] <= inside.y1
    for note, box in zip(notes, boxes, strict=True):  # the words stand where their boxes are
        assert (note.x0, note.y0, note.x1, note.y1) == pytest.approx(box, abs=2)
