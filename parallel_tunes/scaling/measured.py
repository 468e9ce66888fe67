"""What a study measured, as sentences ask for it: cells that may be chosen, their costs, and how each is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parallel_tunes.scaling.intervals import Interval
from parallel_tunes.scaling.words import counted

Cell = Mapping[str, Any]


def interval(cell: Cell, key: str) -> Interval | None:
    """An interval of a cell, where there is one."""
    plain = cell.get(key)
    return Interval(plain["median"], plain["low"], plain["high"]) if plain else None


@dataclass(frozen=True, eq=False)
class Choice:
    """A cell that may be recommended.

    Args:
        cell: of the report.
        name: in words.
        cost: GPU-hours of the whole training, or to the target.
        time: seconds of the same.
    """

    cell: Cell
    name: str
    cost: Interval
    time: Interval


class Measured:
    """The `metrics` of a study's report.

    Attributes:
        metrics: as the report has them.
        unit: what is counted: GPU, or rank on a machine without.
        cells: those that were measured, but for DDP with one rank, which tells what DDP costs and is no choice.
    """

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        self.metrics = metrics
        self.unit: str = metrics.get("unit") or "GPU"
        self.cells: list[Cell] = [
            cell for cell in self.of_status("ok") if cell["gpus"] > 1 or not cell.get("ddp", False)
        ]
        self.to_target = metrics.get("mode") == "target"

    def of_status(self, status: str) -> list[Cell]:
        return [cell for cell in self.metrics.get("cells") or () if cell["status"] == status]

    def name(self, cell: Cell) -> str:
        """`2 GPUs at a global batch of 64 in bf16`."""
        return f"{counted(cell['gpus'], self.unit)} {self.series_name(cell)}"

    def series_name(self, cell: Cell) -> str:
        """The same without the number of GPUs."""
        if self.metrics.get("mode") == "weak":
            return f"at a batch of {cell['batch']} per {self.unit} in {cell['precision']}"
        return f"at a global batch of {cell['batch']} in {cell['precision']}"

    def purpose(self) -> str:
        """What costs and times are told of."""
        if self.to_target:
            return f"to a validation accuracy of {self.metrics['target']:g}"
        return f"for {counted(self.metrics['num_epochs'], 'epoch')}"

    def choices(self) -> list[Choice]:
        """Cells whose cost and time are known; of a target, those that reached it in all launches, if there are any."""
        keys = ("gpu_hours_to_target", "time_to_target_s") if self.to_target else ("gpu_hours", "train_s")
        known = []
        for cell in self.cells:
            cost, time = (interval(cell, key) for key in keys)
            if cost and time:
                known.append(Choice(cell, self.name(cell), cost, time))
        if not self.to_target:
            return known
        reached = [choice for choice in known if choice.cell["num_reached"]]
        return [choice for choice in reached if choice.cell["num_reached"] >= choice.cell["n"]] or reached

    def cheapest(self) -> Choice | None:
        return min(self.choices(), key=lambda choice: choice.cost.median, default=None)

    def fastest(self) -> Choice | None:
        return min(self.choices(), key=lambda choice: choice.time.median, default=None)

    def shown(self) -> Cell | None:
        """The cell to look into: the fastest, or, if none reached the target, that of the shortest epoch."""
        fastest = self.fastest()
        epochs = [
            (found.median, place) for place, cell in enumerate(self.cells) if (found := interval(cell, "epoch_s"))
        ]
        if fastest:
            return fastest.cell
        return self.cells[min(epochs)[1]] if epochs else None

    def series(self) -> list[list[Cell]]:
        """Cells of one batch and precision, the fewest GPUs first."""
        found: dict[tuple[int, str], list[Cell]] = {}
        for cell in sorted(self.cells, key=lambda cell: int(cell["gpus"])):
            found.setdefault((cell["batch"], cell["precision"]), []).append(cell)
        return list(found.values())
