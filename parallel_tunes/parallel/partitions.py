"""What a cluster offers: partitions, their limits and their nodes, and whether a job's wishes fit."""

from __future__ import annotations

import getpass
import math
import re
from dataclasses import dataclass

from parallel_tunes.config_run import ResourcesConfig
from parallel_tunes.parallel import slurm
from parallel_tunes.schema import UserError, suggest

UNITS_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Partition:
    """A partition as scontrol describes it."""

    name: str
    is_default: bool
    max_time_s: float
    max_nodes: float
    preempt_mode: str
    accounts: tuple[str, ...]  # that may use it; empty: all


@dataclass(frozen=True)
class Node:
    """A node as scontrol describes it."""

    name: str
    partitions: tuple[str, ...]
    cpus: int
    gpus: int


def read_partitions() -> list[Partition]:
    """All partitions of the cluster."""
    cluster = dict(re.findall(r"^(\w+)\s*= (.*)$", slurm.ask("scontrol", "show", "config"), re.MULTILINE))
    found = []
    for facts in slurm.describe("partition"):
        allowed = facts.get("AllowAccounts", "ALL")
        mode = facts.get("PreemptMode", "OFF")
        preempts = cluster.get("PreemptType", "preempt/none") != "preempt/none"
        found.append(
            Partition(
                name=facts["PartitionName"],
                is_default=facts.get("Default") == "YES",
                max_time_s=slurm.parse_seconds(facts.get("MaxTime", "")) or math.inf,
                max_nodes=float(limit) if (limit := facts.get("MaxNodes", "")).isdigit() else math.inf,
                preempt_mode=mode if preempts else "OFF",
                accounts=() if allowed == "ALL" else tuple(allowed.split(",")),
            )
        )
    return found


def read_nodes() -> list[Node]:
    """All nodes of the cluster."""
    return [
        Node(
            name=facts["NodeName"],
            partitions=tuple(facts.get("Partitions", "").split(",")),
            cpus=int(facts.get("CPUTot", 0)),
            gpus=sum(int(num) for num in re.findall(r"gpu:(?:[^:,(]+:)?(\d+)", facts.get("Gres", ""))),
        )
        for facts in slurm.describe("node")
    ]


def parse_time(text: str) -> int:
    """`2h`, `1d12h`, `90m`, or as Slurm writes it, `02:00:00`, `1-12`, `90` (minutes): whole seconds.

    Raises:
        UserError: it is no time.
    """
    units = re.fullmatch(r"(?:\d+[dhms])+", text)
    if units:
        return sum(int(number) * UNITS_S[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))
    seconds = slurm.parse_seconds(text)
    if seconds is None:
        raise UserError(f"resources.time={text}: expected a time such as 2h, 90m, 1d12h or 02:00:00")
    if "-" not in text and text.count(":") < 2:
        seconds *= 60 if ":" not in text else 1  # Slurm reads one number as minutes, two as minutes:seconds
    return int(seconds)


def say_time(seconds: float) -> str:
    """Seconds as Slurm writes them, days-hours:minutes:seconds."""
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def check(wanted: ResourcesConfig) -> list[str]:
    """Hold what a job asks for against what the cluster has; lines of warning.

    Raises:
        UserError: the partition or account is unknown, or it asks for more than there is.
    """
    partition = choose(wanted, read_partitions())
    seconds = parse_time(wanted.time)
    if seconds > partition.max_time_s:
        limit = say_time(partition.max_time_s)
        raise UserError(f"resources.time={wanted.time}: partition {partition.name} allows at most {limit}")
    nodes = [node for node in read_nodes() if partition.name in node.partitions]
    if wanted.nodes > min(partition.max_nodes, len(nodes)):
        most = min(partition.max_nodes, len(nodes))
        raise UserError(f"resources.nodes={wanted.nodes}: partition {partition.name} gives a job at most {most:.0f}")
    cpus = wanted.cpus_per_task * wanted.tasks_per_node
    for name, number, has in (
        (f"resources.gpus_per_node={wanted.gpus_per_node}", wanted.gpus_per_node, [node.gpus for node in nodes]),
        (f"resources.cpus_per_task={wanted.cpus_per_task} × {wanted.tasks_per_node} tasks", cpus, [node.cpus for node in nodes]),
    ):  # fmt: skip
        if sum(there >= number for there in has) < wanted.nodes:
            raise UserError(f"{name}: the nodes of partition {partition.name} have at most {max(has, default=0)} each")
    _check_account(wanted.account, partition)
    if partition.preempt_mode == "CANCEL":
        return [f"partition {partition.name} cancels the jobs it preempts: requeueing will not help there"]
    return []


def choose(wanted: ResourcesConfig, partitions: list[Partition]) -> Partition:
    """The partition a job would go to.

    Raises:
        UserError: it is unknown, or none is named and none is the default.
    """
    names = [partition.name for partition in partitions]
    if wanted.partition is None:
        default = next((partition for partition in partitions if partition.is_default), None)
        if default is None:
            raise UserError(f"resources.partition: this cluster has no default, choose one of {', '.join(names)}")
        return default
    for partition in partitions:
        if partition.name == wanted.partition:
            return partition
    raise UserError(
        f"resources.partition={wanted.partition}: unknown{suggest(wanted.partition, names)}; there are {', '.join(names)}"
    )


def _check_account(account: str | None, partition: Partition) -> None:
    if account is None:
        return
    if partition.accounts and account not in partition.accounts:
        raise UserError(
            f"resources.account={account}: partition {partition.name} is for {', '.join(partition.accounts)}"
        )
    try:
        mine = slurm.ask("sacctmgr", "-nP", "show", "assoc", f"user={getpass.getuser()}", "format=account").split()
    except UserError:
        return  # a cluster without accounting takes any
    if mine and account not in mine:
        raise UserError(f"resources.account={account}: you may use {', '.join(sorted(set(mine)))}")
