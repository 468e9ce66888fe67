"""The numbers of a scaling study as tables, whatever they are written as."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

Facts = dict[str, Any]  # a cell, a fit, metrics: as in report.json
STATUS = {"ok": "ok", "oom": "out of memory", "failed": "failed", "missing": "missing"}
LAWS = {"amdahl": "Amdahl", "gustafson": "Gustafson", "usl": "USL"}
DASH = "–"  # there is no such number


class Value(NamedTuple):
    """What stands in one box: a number or words, and the interval of a number."""

    text: str
    spread: str = ""


class Table(NamedTuple):
    """A table; `num_words` first columns hold words, the others numbers."""

    title: str
    heads: list[str]
    rows: list[list[Value]]
    num_words: int = 1


class Column(NamedTuple):
    """A figure of a cell, and what it is multiplied by to be read."""

    key: str
    head: str
    times: float = 1.0


def three_figures(value: float) -> str:
    """A number with three significant figures, more where they stand before the point."""
    if value == 0:
        return "0"
    magnitude = int(f"{abs(value):.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - magnitude)}f}" if magnitude > -5 else f"{value:.2e}"


def time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """The unit that reads best for such times, and its seconds."""
    longest = max(seconds, default=0.0)
    return ("s", 1.0) if longest < 180 else ("min", 60.0) if longest < 3 * 3600 else ("h", 3600.0)


def count(number: int, noun: str, ending: str = "s") -> str:
    """`1 GPU`, `2 GPUs`; `2 launches` with another ending."""
    return f"{number} {noun}{'' if number == 1 else ending}"


def told(found: Facts, unit: str, times: float = 1.0) -> str:
    """`4.12 min (95 % interval 4.05 to 4.20)`."""
    median, low, high = (three_figures(times * found[end]) for end in ("median", "low", "high"))
    return f"{median} {unit} (95 % interval {low} to {high})"


def purpose(metrics: Facts) -> str:
    """What costs and times are of: `40 epochs`, or the accuracy to be reached."""
    if metrics["mode"] == "target":
        return f"a validation accuracy of {metrics['target']:g}"
    return count(metrics["num_epochs"], "epoch")


def medians(cells: Iterable[Facts], key: str) -> list[float]:
    """The medians of a figure, of the cells that have it."""
    return [cell[key]["median"] for cell in cells if cell.get(key)]


def show(figure: Any, times: float = 1.0) -> Value:
    """A number, an interval, or the largest of a list, as text."""
    if figure is None or figure == []:
        return Value(DASH)
    if isinstance(figure, list):
        figure = max(figure)
    if isinstance(figure, int):
        return Value(str(figure))
    if isinstance(figure, float):
        return Value(three_figures(times * figure))
    low, high = (three_figures(times * figure[end]) for end in ("low", "high"))
    return Value(three_figures(times * figure["median"]), f"{low} to {high}")


def cell_tables(metrics: Facts) -> list[Table]:
    """The tables of the cells of training: speed, cost, and time to the target where there is one."""
    cells, unit = metrics["cells"], metrics["unit"]
    if not cells:
        return []
    spell, spell_s = time_unit(medians(cells, "train_s"))
    wait, wait_s = time_unit(medians(cells, "time_to_target_s"))
    columns = {
        "Speed": [
            Column("samples_per_s", "samples/s"), Column("step_ms", "step (ms)"), Column("speedup", "speed-up (×)"),
            Column("efficiency", "efficiency (%)", 100), Column("comm_ms", "communication (ms a step)"),
            Column("speedup_over_ddp", f"speed-up over DDP on one {unit} (×)"),
        ],
        "Cost": [
            Column("peak_memory_mib", "peak memory, largest rank (MiB)"), Column("epoch_s", "epoch (s)"),
            Column("train_s", f"{metrics['num_epochs']} epochs ({spell})", 1 / spell_s),
            Column("gpu_hours", f"{unit}-hours"), Column("joules_per_sample", "energy (J a sample)"),
            Column("setup_s", "start to first step (s)"), Column("first_steps_s", "first steps (s)"),
            Column("compile_s", "compilation (s)"),
        ],
        "Time to the target": [
            Column("num_reached", "reached it"), Column("time_to_target_s", f"time to target ({wait})", 1 / wait_s),
            Column("gpu_hours_to_target", f"{unit}-hours to target"), Column("epochs_to_target", "epochs to target"),
        ],
    }  # fmt: skip
    if metrics["mode"] != "target":
        del columns["Time to the target"]
    return [tabulate(title, cells, _places(metrics), chosen) for title, chosen in columns.items()]


def _places(metrics: Facts) -> list[tuple[str, Callable[[Facts], str]]]:
    """The columns that say which cell a row is of."""
    batch = f"batch per {metrics['unit']}" if metrics["mode"] == "weak" else "global batch"
    return [
        ("cell", lambda cell: cell["name"]),
        ("precision", lambda cell: cell["precision"]),
        ("status", _status),
        (f"{metrics['unit']}s", lambda cell: str(cell["gpus"])),
        (batch, lambda cell: str(cell["batch"])),
        ("n", lambda cell: str(cell["n"])),
    ]


def _status(cell: Facts) -> str:
    settled = cell["status"] != "ok" or cell.get("is_stable", True)
    return STATUS[cell["status"]] + ("" if settled else ", not settled")


def tabulate(
    title: str, cells: list[Facts], places: list[tuple[str, Callable[[Facts], str]]], columns: list[Column]
) -> Table:
    """A row a cell; a column that no cell fills is left out, and so are a status and a precision that never change."""
    columns = [column for column in columns if any(cell.get(column.key) not in (None, []) for cell in cells)]
    alike = {"status"} if all(_status(cell) == "ok" for cell in cells) else set()
    if len({cell.get("precision") for cell in cells}) == 1:
        alike.add("precision")  # the name has it
    places = [place for place in places if place[0] not in alike]
    heads = [head for head, _ in places] + [column.head for column in columns]
    rows = [
        [Value(tell(cell)) for _, tell in places] + [show(cell.get(column.key), column.times) for column in columns]
        for cell in cells
    ]
    return Table(title, heads, rows, sum(head in ("cell", "precision", "status") for head, _ in places))


def preprocess_table(metrics: Facts) -> Table | None:
    """The cells of preprocessing, and librosa in one process beside them."""
    found = metrics["preprocess"]
    if not found:
        return None
    cells = list(found["cells"])
    if serial := found["serial"]:
        cells.insert(0, {**serial, "name": f"{serial['name']}, serial", "engines": None})
    places: list[tuple[str, Callable[[Facts], str]]] = [
        ("cell", lambda cell: cell["name"]),
        ("status", _status),
        ("n", lambda cell: str(cell["n"])),
    ]
    columns = [
        Column("engines", "engines"), Column("shard_mib", "shard (MiB)"), Column("num_shards", "shards"),
        Column("tracks_per_s", "tracks/s"), Column("seconds", "a launch (s)"),
        Column("speedup", "speed-up over serial librosa (×)"),
        Column("speedup_over_one", "speed-up over the fewest engines (×)"),
    ]  # fmt: skip
    return tabulate("Preprocessing", cells, places, columns)


def all_tables(metrics: Facts) -> list[Table]:
    """Every table of cells."""
    preprocessing = preprocess_table(metrics)
    return cell_tables(metrics) + ([preprocessing] if preprocessing else [])


def fit_table(metrics: Facts) -> Table | None:
    """The parameters of the laws, a row each; a law that was refused says why."""
    rows = []
    for fit in metrics["fits"]:
        law = LAWS.get(fit["law"], fit["law"]) + (", does not fit" if fit.get("is_off") else "")
        place = [Value(law), Value(fit["precision"])]
        batch = Value(str(fit["batch"]))
        if "refused" in fit:
            rows.append([*place, Value(f"refused: {fit['refused']}"), batch, Value(DASH)])
            continue
        found = fit["parameters"] | {f"samples/s of one {metrics['unit']}": fit["rate_of_one"]}
        rows += [[*place, Value(name.replace("_", " ")), batch, show(interval)] for name, interval in found.items()]
    heads = ["law", "precision", "parameter", "batch", "value"]
    return Table("Parameters of the laws", heads, rows, 3) if rows else None


def comparison_table(metrics: Facts) -> Table:
    """The cells that two studies have in common."""
    rows = [
        [
            *(
                Value(DASH if cell[key] is None else str(cell[key]))
                for key in ("name", "precision", "words", "gpus", "batch")
            ),
            Value(", ".join(map(str, cell["n"]))),
            *(show(cell[key]) for key in ("a", "b", "ratio")),
        ]
        for cell in metrics["cells"]
    ]
    unit = "tracks/s" if all(cell["batch"] is None for cell in metrics["cells"]) else "samples/s"
    if len({cell["batch"] is None for cell in metrics["cells"]}) > 1:
        unit = "samples/s; preprocessing: tracks/s"
    heads = ["cell", "precision", "B is", "N", "batch", "launches (A, B)", f"A ({unit})", f"B ({unit})", "B / A"]
    return Table("Cells of both", heads, rows, 3)
