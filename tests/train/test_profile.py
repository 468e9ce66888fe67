"""Profiling."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import TINY, Worlds, corpus_of, door, ptunes, without_times
from hypothesis import given
from hypothesis import strategies as st
from torch._C._autograd import _profiler_enabled

from parallel_tunes import session
from parallel_tunes.config import TrainJob
from parallel_tunes.config_train import TrainConfig
from parallel_tunes.jobs import JOBS
from parallel_tunes.parallel.mesh import Mesh
from parallel_tunes.run import Run
from parallel_tunes.schema import build, defaults
from parallel_tunes.train.phases import PHASES, ROWS, Spans, measure, measure_length, split, subtract, unite
from parallel_tunes.train.profile import SKIPPED, Profile
from parallel_tunes.train.stopwatch import Stopwatch

INNER = ("all_reduce", "computing", *PHASES)
PARTS = tuple(name for name in ROWS if name not in ("step", "all_reduce_hidden"))  # what a step consists of


def span(name: str, start: float, end: float, category: str = "user_annotation", **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": end - start, "args": args}


def marked(**marks: Spans) -> dict[str, Spans]:
    return {name: marks.get(name, []) for name in INNER}


def test_a_step_is_split_into_its_phases() -> None:
    """Batches are waited for, batch norms within both passes, and DDP's last bucket after what backward computes."""
    marks = marked(
        data=[(0, 10)], forward=[(10, 30)], host_to_device=[(12, 15)], backward=[(30, 60)], optimizer=[(62, 65)],
        all_reduce=[(20, 22), (35, 40), (45, 50), (48, 58), (66, 69)], computing=[(30, 35), (40, 54)],
    )  # fmt: skip
    assert split((0, 70), marks) == {
        "data": 10, "host_to_device": 3, "forward": 15, "backward": 21, "all_reduce_exposed": 14, "optimizer": 3,
        "other": 4, "step": 70, "all_reduce_hidden": 9,
    }  # fmt: skip


def test_what_is_outside_of_a_step_is_not_its_own() -> None:
    marks = marked(data=[(0, 10), (20, 30)], all_reduce=[(5, 12), (18, 40)], computing=[(19, 50)])
    found = split((10, 20), marks)
    assert {name: value for name, value in found.items() if value} == {
        "all_reduce_exposed": 3, "all_reduce_hidden": 1, "other": 7, "step": 10,
    }  # fmt: skip


moments = st.integers(0, 60).map(float)
some_spans = st.lists(st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair))), max_size=8)


def ticks(spans: Spans) -> set[int]:
    """The whole numbers from which a span goes on to the next."""
    return {tick for first, last in spans for tick in range(int(first), int(last))}


@given(some_spans, some_spans)
def test_spans_are_sets_of_moments(one: Spans, other: Spans) -> None:
    assert ticks(unite(one)) == ticks(one)
    assert ticks(subtract(one, other)) == ticks(one) - ticks(other)
    assert measure_length(one) == len(ticks(one))
    for found in (unite(one), subtract(one, other)):
        assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


@given(st.fixed_dictionaries(dict.fromkeys(INNER, some_spans)), moments, moments)
def test_parts_add_up_to_the_step(marks: dict[str, Spans], one: float, other: float) -> None:
    first, last = min(one, other), max(one, other)
    found = split((first, last), marks)
    reduces = ticks(marks["all_reduce"]) & set(range(int(first), int(last)))
    assert tuple(found) == ROWS
    assert all(value >= 0 for value in found.values())
    assert found["all_reduce_hidden"] + found["all_reduce_exposed"] == len(reduces)
    assert found["all_reduce_hidden"] == len(reduces & ticks(marks["computing"]))
    assert sum(found[name] for name in PARTS) == found["step"] == last - first


def test_ddp_waits_after_its_last_node_and_batch_norms_within_theirs() -> None:
    """A CPU's trace: a batch norm's sum in a node; a bucket, hidden but for its handing over and its end; a stop agreed on.

    gloo is late to tell of the ends of the first two.
    """
    node = "autograd::engine::evaluate_function: Backward0"
    events = [
        span("step", 0, 10_000), span("data", 0, 1000), span("forward", 1000, 3000), span("backward", 3000, 8000),
        span("optimizer", 8000, 8500), span(node, 3100, 4900, "cpu_op"), span(node, 5000, 7000, "cpu_op"),
        span("all_reduce", 4000, 4500), span("gloo:all_reduce", 4100, 4800), span("c10d::allreduce_", 5900, 6300, "cpu_op"),
        span("gloo:all_reduce", 6000, 8200), span("gloo:all_reduce", 9000, 9400), {"ph": "M", "name": "process_name"},
    ]  # fmt: skip
    assert measure(events) == [
        {
            "data": 1, "host_to_device": 0, "forward": 2, "backward": 3.2, "all_reduce_exposed": 2.2, "optimizer": 0.5,
            "other": 1.1, "step": 10, "all_reduce_hidden": 0.7,
        }
    ]  # fmt: skip


def test_on_a_gpu_its_own_time_counts() -> None:
    """Kernels run long after their launch; a step goes from its first work to the next one's, what the GPU waits for included."""
    work = [  # when launched and when run
        (1200, 2000, 2100, "gpu_memcpy", "Memcpy HtoD"),
        (1400, 2200, 3000, "kernel", "gemm"),
        (1600, 3000, 5000, "kernel", "gemm"),
        (1700, 4000, 5500, "kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL"),
        (1900, 5500, 5600, "kernel", "adamw"),
    ]
    events = []
    for at in (0, 6000):
        events += [span("step", at, at + 5900), span("data", at, at + 1000), span("forward", at + 1100, at + 1500)]
        events += [span("host_to_device", at + 1150, at + 1250), span("backward", at + 1550, at + 1750)]
        events += [span("optimizer", at + 1850, at + 1950), span("gloo:all_reduce", at + 5000, at + 5800)]
        for number, (launched, start, end, category, name) in enumerate(work, at):
            events.append(
                span("cudaLaunchKernel", at + launched, at + launched + 5, "cuda_runtime", correlation=number)
            )
            events.append(span(name, at + start, at + end, category, correlation=number))
    events.append(span("gemm", 100, 200, "kernel", correlation=-1))  # launched before the recording
    events.append(span("cudaLaunchKernel", 5850, 5855, "cuda_runtime", correlation=-2))
    events.append(span("fill", 6100, 6200, "kernel", correlation=-2))  # of no phase, while the next batch is waited for
    first, last = measure(events)
    assert first == pytest.approx(
        {
            "data": 0.9, "host_to_device": 0.1, "forward": 0.8, "backward": 2, "all_reduce_exposed": 0.5 + 0.2,
            "optimizer": 0.1, "other": 1.4, "step": 6, "all_reduce_hidden": 1,
        }
    )  # fmt: skip
    assert last["step"] == pytest.approx(3.9)
    assert last["data"] == 0


def words(workshop: Path, *more: str) -> list[str]:
    return ["train", *corpus_of(workshop), *TINY, "run.page=true", "train.batch=4", "train.num_epochs=1", *more]


def learnt(folder: Path) -> tuple[bytes, list[Any]]:
    """The weights and the curves of a run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (folder / "model/model.safetensors").read_bytes(), list(map(without_times, rows))


def check_profile(folder: Path, num_ranks: int, num_steps: int) -> list[list[dict[str, float]]]:
    """That all is there and agrees; each rank's steps, as its trace has them."""
    names = {f"trace-rank{rank}.json.gz" for rank in range(num_ranks)} | {"profile.json", "profile.csv"}
    assert {path.name for path in (folder / "profile").iterdir()} == names
    found = json.loads((folder / "profile/profile.json").read_text())
    assert json.loads((folder / "report.json").read_text())["profile"] == found
    with (folder / "profile/profile.csv").open() as lines:
        table = {(row["rank"], row["phase"]): row for row in csv.DictReader(lines)}
    assert len(table) == num_ranks * len(ROWS)
    measured = []
    for rank in range(num_ranks):
        packed = (folder / f"profile/trace-rank{rank}.json.gz").read_bytes()
        assert len(packed) < 1 << 20
        events = json.loads(gzip.decompress(packed))["traceEvents"]
        assert {"step", *PHASES} <= {event["name"] for event in events}
        steps = measure(events)
        assert len(steps) == found["ranks"][rank]["num_steps"] == num_steps
        for step in steps:
            assert sum(step[name] for name in PARTS) == pytest.approx(step["step"])
            assert min(step[name] for name in ("forward", "backward", "optimizer")) > 0
        for name, figures in found["ranks"][rank]["phases"].items():
            values = sorted(step[name] for step in steps)
            assert values[(num_steps - 1) // 2] - 1e-3 <= figures["median_ms"] <= values[num_steps // 2] + 1e-3
            assert figures["p10_ms"] <= figures["median_ms"] <= figures["p90_ms"]
            assert float(table[str(rank), name]["median_ms"]) == figures["median_ms"]
        measured.append(steps)
    return measured


@pytest.fixture(scope="module")
def plain(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training without a profile, of ten steps."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert door(*words(workshop, f"run.dir={folder}"), cwd=workshop) == 0
    return folder


def test_a_profile_changes_no_bit(
    workshop: Path, plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert door(*words(workshop, "train.profile=true", f"run.dir={tmp_path}/run"), cwd=workshop) == 0
    assert learnt(tmp_path / "run") == learnt(plain)
    said = capfd.readouterr()
    assert "profile, medians of 7 steps" in said.out  # three are skipped
    assert not said.err
    (steps,) = check_profile(tmp_path / "run", 1, 7)
    assert not any(step["all_reduce_exposed"] or step["all_reduce_hidden"] for step in steps)
    assert "all reduce hidden" in (tmp_path / "run/report.html").read_text()
    assert json.loads((tmp_path / "run/report.json").read_text())["time_s"]["profile"] > 0
    report = json.loads((plain / "report.json").read_text())
    assert not (plain / "profile").exists()
    assert "profile" not in report
    assert "profile" not in report["time_s"]
    assert "all reduce hidden" not in (plain / "report.html").read_text()


def test_accumulated_batches_are_profiled(workshop: Path, tmp_path: Path) -> None:
    """With a forward and a backward for each part, in another precision."""
    for name in ("true", "false"):
        more = ("train.accumulate=2", "train.precision=fp32", f"train.profile={name}", f"run.dir={tmp_path}/{name}")
        assert door(*words(workshop, *more), cwd=workshop) == 0
    assert learnt(tmp_path / "true") == learnt(tmp_path / "false")
    check_profile(tmp_path / "true", 1, 7)
    events = json.loads(gzip.decompress((tmp_path / "true/profile/trace-rank0.json.gz").read_bytes()))["traceEvents"]
    counts = Counter(event["name"] for event in events)
    assert (counts["step"], counts["forward"], counts["backward"], counts["optimizer"]) == (7, 14, 14, 7)


def test_two_ranks_tell_what_their_all_reduces_take(worlds: Worlds) -> None:
    folder = Path(worlds(2, "train_twice")[0])
    assert learnt(folder / "true") == learnt(folder / "false")
    for rank, steps in enumerate(check_profile(folder / "true", 2, 7)):
        trace = gzip.decompress((folder / f"true/profile/trace-rank{rank}.json.gz").read_bytes())
        events = json.loads(trace)["traceEvents"]
        waits = [event["dur"] / 1000 for event in events if event["name"] == "all_reduce"]
        assert len(waits) == 7 * 2 * 2  # two batch norms, in both passes
        assert sum(step["all_reduce_exposed"] for step in steps) > sum(waits)
        assert all(step["all_reduce_exposed"] > 0 for step in steps)


def test_killed_within_a_profile_it_is_made_anew(
    workshop: Path, plain: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of what the newest checkpoint leaves of the epoch's ten steps; a killed process may have had some in writing."""
    given = words(workshop, "train.profile=true", "train.checkpoint_every=2", f"run.dir={tmp_path}/killed")
    assert ptunes(*given, cwd=workshop, check=False, PT_DISTURB="step:7").returncode == -9
    assert not (tmp_path / "killed/profile").exists()
    assert door(*given, cwd=workshop) == 0
    goes_on = re.search(r"goes on from step (\d)$", capfd.readouterr().out, re.MULTILINE)
    num_left = 10 - int(goes_on[1]) if goes_on else 10
    check_profile(tmp_path / "killed", 1, num_left - min(SKIPPED, num_left // 2))
    assert learnt(tmp_path / "killed") == learnt(plain)


def make_profile(folder: Path, accumulate: int = 1) -> Profile:
    cfg = build(TrainConfig, defaults("train", "default") | {"profile": True, "accumulate": accumulate})
    mesh = Mesh()
    mesh.start("cpu", 10)
    run = Run("train", cfg, folder, is_writer=True, started=0.0)
    run.open()
    return Profile(cfg, mesh, run, Stopwatch("profile"))


def test_a_stop_leaves_no_profiler_behind(tmp_path: Path) -> None:
    ended = []

    def count() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            ended.append(True)

    batches = make_profile(tmp_path).follow((number for number in count()), 10)
    assert [next(batches) for _ in range(5)] == list(range(5))
    assert _profiler_enabled()
    batches.close()
    assert not _profiler_enabled()
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize(
    ("num", "accumulate", "num_recorded"), [(1, 1, 1), (5, 1, 3), (15, 1, 12), (40, 1, 12), (40, 8, 6), (40, 99, 1)]
)
def test_few_steps_are_recorded_once(num: int, accumulate: int, num_recorded: int, tmp_path: Path) -> None:
    profile = make_profile(tmp_path, accumulate)
    recorded = [_profiler_enabled() for _ in profile.follow((number for number in range(num)), num)]
    assert len(recorded) == num
    assert sum(recorded) == num_recorded
    assert json.loads((tmp_path / "profile/profile.json").read_text())["ranks"][0]["num_steps"] == num_recorded
    assert not any(_profiler_enabled() for _ in profile.follow((number for number in range(num)), num))


def train_twice(mesh: Mesh, folder: Path) -> str:
    """The training of the workshop in batches of 4, with and without a profile; the folder of both runs."""
    tree = yaml.safe_load(Path("logs/train/tiny/config.yaml").read_text())
    del tree["job"]
    tree["train"] |= {"batch": 4, "num_epochs": 1}
    for profiled in (True, False):
        tree["train"]["profile"] = profiled
        tree["run"]["dir"] = str(folder / str(profiled).lower())
        assert session.run_job("train", JOBS["train"], build(TrainJob, tree), mesh=mesh) == 0
    return str(folder)
