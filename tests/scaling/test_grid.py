from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from parallel_tunes.__main__ import compose, to_overrides
from parallel_tunes.config import ScalingJob
from parallel_tunes.scaling.grid import Launch, TrainCell, find_resources, list_cells, list_launches
from parallel_tunes.schema import UserError


def config(*words: str) -> ScalingJob:
    cfg: ScalingJob = compose("scaling", to_overrides("scaling", words))
    return cfg


def test_cells_of_a_strong_study() -> None:
    cells = list_cells(config("scaling.gpus=[1,2]", "scaling.batch=[8,16]"))
    assert [cell.name for cell in cells] == [
        "gpus1-batch8", "gpus1-batch8-ddp", "gpus2-batch8", "gpus1-batch16", "gpus1-batch16-ddp", "gpus2-batch16",
    ]  # fmt: skip
    assert all(cell.batch == cell.global_batch for cell in cells if isinstance(cell, TrainCell))


def test_cells_of_a_weak_study_take_their_batch_each() -> None:
    cells = list_cells(
        config("scaling.gpus=[1,4]", "scaling.mode=weak", "scaling.batch=[8]", "scaling.ddp_baseline=false")
    )
    assert [(cell.gpus, cell.batch, cell.global_batch, cell.ddp) for cell in cells if isinstance(cell, TrainCell)] == [
        (1, 8, 8, False), (4, 8, 32, True),
    ]  # fmt: skip


def test_more_axes() -> None:
    words = [
        "scaling.gpus=[2]",
        "scaling.batch=[8]",
        "scaling.axes.precision=[fp32,bf16]",
        "scaling.axes.engines=[1,2]",
    ]
    names = [cell.name for cell in list_cells(config(*words, "scaling.axes.shard_mib=[1,16]"))]
    assert names[:2] == ["gpus2-batch8-fp32", "gpus2-batch8-bf16"]
    assert names[2:] == ["librosa", "engines1-shard1", "engines1-shard16", "engines2-shard1", "engines2-shard16"]
    only = list_cells(config("scaling.gpus=[]", "scaling.axes.engines=[1]"))
    assert [cell.name for cell in only] == ["librosa", "engines1"]


def test_bad_grids() -> None:
    for words, says in (
        (["scaling.gpus=[0]"], "scaling.gpus=0: expected a whole number of at least 1"),
        (["scaling.gpus=[]"], "the grid is empty"),
        (["scaling.gpus=[2,2]"], "a number is listed twice"),
        (["scaling.gpus=[4]", "scaling.batch=[2]"], "4 ranks want one sample each"),
        (["scaling.mode=target"], "give scaling.target"),
    ):
        with pytest.raises(UserError) as error:
            list_cells(config(*words))
        assert says in str(error.value)


def test_launches_come_in_rounds_of_random_orders() -> None:
    cells = list_cells(config("scaling.gpus=[1,2,4]", "scaling.batch=[8,16]", "scaling.ddp_baseline=false"))
    launches = list_launches(cells, 5, seed=3)
    rounds = [launches[first : first + 6] for first in range(0, 30, 6)]
    assert all({launch.cell for launch in each} == set(cells) for each in rounds)
    assert all({launch.number for launch in each} == {number} for number, each in enumerate(rounds))
    orders = {tuple(launch.cell.name for launch in each) for each in rounds}
    assert len(orders) > 1
    assert launches == list_launches(cells, 5, seed=3)
    assert launches != list_launches(cells, 5, seed=4)
    assert list_launches(cells, 3, seed=3) == launches[:18]
    assert Launch(cells[0], 2).name == "gpus1-batch8, launch 2"


def resources(words: list[str], **axes: Any) -> Any:
    cfg = config("scaling.gpus=[1,2,4,8]", *words)
    (cell,) = [
        cell for cell in list_cells(cfg) if isinstance(cell, TrainCell) and cell.gpus == axes["gpus"] and cell.ddp
    ]
    return find_resources(cell, cfg)


def test_what_a_cell_asks_slurm_for() -> None:
    gpus, ranks = (
        ("resources.gpus_per_node=4", "resources.cpus_per_task=8"),
        ("resources.tasks_per_node=2", "resources.cpus_per_task=3"),
    )
    for words, num, wanted in (
        (gpus, 1, (1, 1, 1, 8)),
        (gpus, 8, (2, 4, 1, 32)),
        (ranks, 1, (1, 0, 1, 3)),
        (ranks, 8, (4, 0, 2, 3)),
    ):
        found = resources([*words], gpus=num)
        assert (found.nodes, found.gpus_per_node, found.tasks_per_node, found.cpus_per_task) == wanted


def test_whole_nodes_and_uneven_ones() -> None:
    assert resources(["scaling.exclusive=true", "resources.options=--mem=1G"], gpus=2).options == "--mem=1G --exclusive"
    with pytest.raises(UserError, match="fill no whole number of nodes of 3"):
        resources(["resources.gpus_per_node=3"], gpus=4)


def test_preprocessing_asks_for_a_core_an_engine() -> None:
    cfg = config("scaling.gpus=[]", "scaling.axes.engines=[6]")
    librosa, engines = list_cells(cfg)
    assert find_resources(librosa, cfg).cpus_per_task == 2
    assert find_resources(engines, replace(cfg, scaling=cfg.scaling)).cpus_per_task == 6
