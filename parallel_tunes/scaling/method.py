"""How a study was measured, on what, and what to keep in mind: the sentences of its report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from parallel_tunes.config import ScalingJob
from parallel_tunes.scaling.results import Row


def describe_method(cfg: ScalingJob) -> list[str]:
    """How it was measured."""
    settings = cfg.scaling
    order = (
        "one after the other, in rounds: each round has every cell once, in a random order of its own"
        if settings.launcher == "local"
        else "tasks of job arrays, in a random order"
    )
    paired = (
        "a ratio compares launches of the same round, so that a drift of the machine leaves it as it is"
        if settings.launcher == "local"
        else "in a ratio launches of the two cells are drawn apart"
    )
    about = {
        "strong": "Strong scaling: the batch is that of all ranks together, whatever their number.",
        "weak": "Weak scaling: the batch is that of each rank, so that all together take more at a step.",
        "target": f"Time to target: each launch trains with a seed of its own until its validation accuracy has reached"
        f" {settings.target}; its time counts steps, evaluations and checkpoints, and not the start.",
    }
    return [
        about[settings.mode],
        f"Each cell was launched {settings.launches} times, {order}; a launch is an ordinary `ptunes train` in a folder of its own,"
        " under hpc/torchrun.sh.",
        "Before it trains, a launch goes through steps of its own training whose learning is thrown away: first two passes, told"
        " apart with what they compile; then steps until the median time of three stretches is within 5 % of the three before;"
        f" then {settings.windows} windows of about {settings.window_s:g} s. A window begins and ends with all ranks together and"
        " their devices idle; the slowest rank's time counts, with waiting for data and for the other ranks.",
        "Communication is what a step takes longer than the same step without sharing gradients, measured in windows between"
        " the others, plus the time that ranks wait for each other's parts of batch norms and for the agreement at the end of a"
        " step. On GPUs the batch norms' part is within compute.",
        "A figure is the median over launches of the median over windows. Intervals are 95 % percentile intervals of 2 000"
        f" bootstrap draws of launches and of windows within them; {paired}, and the error of the baseline is in it.",
        "Speed-up and efficiency are against the fewest GPUs of the same batch and precision, without DistributedDataParallel"
        " where that is one; beside it against one rank with it.",
        "Laws are fitted by least squares to the logarithms of the launches' rates, with Student's intervals, and are drawn to at"
        " most twice the most GPUs measured.",
        f"Costs are for {cfg.train.num_epochs} epochs: steps, an evaluation and a checkpoint each, without the start.",
    ]


def list_machines(rows: list[Row]) -> list[dict[str, Any]]:
    """The machines that launches ran on, each once."""
    every = [machine for row in rows if row.get("machines") for machine in json.loads(row["machines"])]
    return list({machine["host"]: machine for machine in every}.values())


def list_notes(cfg: ScalingJob, rows: list[Row], metrics: dict[str, Any], unit: str) -> Iterator[str]:
    """What to keep in mind while reading the figures."""
    machines = list_machines(rows)
    if unit == "rank" and machines:
        cores = sorted({count(machine["cores_a_rank"], "core") for machine in machines})
        own = "on cores of its own" if cfg.scaling.launcher == "local" else "on the cores that Slurm gave"
        yield (
            f"No GPUs: ranks stand for them, each with {count(metrics['threads'], 'thread')} {own}"
            f" ({', '.join(cores)} a rank). Speed-up is that of processor cores."
        )
    if unit == "rank" and (crowded := sorted(filter(None, map(shares_cores, rows)))):
        yield f"Ranks shared cores: {crowded[-1][0]} threads ran on {crowded[-1][1]} cores of a machine. Their speed-up is too low."
    models = {machine["cpu"] + "".join(gpu["name"] for gpu in machine["gpus"]) for machine in machines}
    if len(models) > 1:
        yield f"The launches ran on machines of {len(models)} kinds: their differences are in the intervals."
    revisions = {row["git"] for row in rows if row.get("git")}
    if len(revisions) > 1:
        yield f"The launches ran with {len(revisions)} revisions of the code: {', '.join(sorted(revisions))}."
    unsettled = [cell["name"] for cell in metrics["cells"] if cell["status"] == "ok" and not cell["is_stable"]]
    if unsettled:
        yield f"The time of a step had not settled when its windows began: {', '.join(unsettled)}."
    for cell in metrics["cells"]:
        if cell["status"] == "ok" and cell["num_failed"]:
            yield f"{cell['name']}: {count(cell['num_failed'], 'launch', 'es')} of {cfg.scaling.launches} failed and are left out."
        if cell["baseline"] and cell["gpus"] == min(each["gpus"] for each in metrics["cells"]) > 1:
            yield f"{cell['name']} is the baseline of its batch, for want of one {unit}: it counts as {cell['gpus']} times one."


def shares_cores(row: Row) -> tuple[int, int] | None:
    """Threads and cores of a machine on which a launch had more of the former."""
    machines = json.loads(row.get("machines") or "[]")
    if not machines or row["kind"] != "train":
        return None
    threads, cores = row["gpus"] * machines[0]["threads"] // len(machines), min(each["cores"] for each in machines)
    return (threads, cores) if threads > cores else None


def count(num: int, noun: str, ending: str = "s") -> str:
    """`1 launch`, `2 launches`."""
    return f"{num} {noun}{'' if num == 1 else ending}"
