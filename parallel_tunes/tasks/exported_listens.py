"""What an exported re-listen model is worth on the rows of a split, beside the model that it was exported from."""

from __future__ import annotations

from typing import Any

import numpy as np

from parallel_tunes.config_export import ExportListensConfig
from parallel_tunes.data.batches import Ids
from parallel_tunes.data.listens import Listens
from parallel_tunes.tasks import listen_judging, relisten
from parallel_tunes.tasks.exported_genre import Answer
from parallel_tunes.tasks.listen_plan import ListenPlan
from parallel_tunes.train.judging import Resamples, with_interval
from parallel_tunes.train.multi_label import Ranking
from parallel_tunes.train.relisten_model import RelistenFolder
from parallel_tunes.train.windows import Feed

SHOWN = ("accuracy", "auc", "loss")
AT_ONCE = 1 << 14  # rows


def judge(folder: RelistenFolder, listens: Listens, answer: Answer, cfg: ExportListensConfig) -> dict[str, Any]:
    """As `exported_genre.judge`; every row of the split and of the validation split is compared.

    Raises:
        UserError: other tables than the model was trained on, or no rows.
    """
    made, rows = relisten.plan_again(folder, listens, cfg.split)
    found = _answer_rows(made, rows, answer)
    others = made.rows["valid"] if cfg.split != "valid" else np.empty(0, np.int64)
    if len(others):
        _answer_rows(made, others, answer)
    figures = {name: listen_judging.judge(made, rows, chances, cfg.resamples) for name, chances in found.items()}
    shown = {f"{name}{end}" for name in SHOWN for end in ("", "_ci95")} | {"ci95_method"}
    targets = made.targets[rows].astype(np.int64)
    lost: dict[str, Any] = {"accuracy": figures["float32"]["accuracy"] - figures["int8"]["accuracy"]}
    if figures["float32"]["auc"] is not None:
        resamples = Resamples(len(rows), made.codes[rows, 0].astype(np.int64), cfg.resamples, units="users")
        rankings = [Ranking(found[name], targets, resamples.members) for name in ("float32", "int8")]
        before, after = (ranking.judge_drawn(resamples)[1] for ranking in rankings)
        lost["auc"], lost["auc_ci95"] = with_interval(
            figures["float32"]["auc"] - figures["int8"]["auc"], before - after
        )
    return {
        "split": {"name": cfg.split, "kind": made.kind, "warnings": []},
        "parity_of": f"the {cfg.split}{' and valid' if len(others) else ''} rows",
        "n": len(rows),
        "unit": "rows",
        **{name: {key: value for key, value in each.items() if key in shown} for name, each in figures.items()},
        "lost": lost,
    }


def _answer_rows(made: ListenPlan, rows: Ids, answer: Answer) -> dict[str, Any]:
    parts = []
    for at in range(0, len(rows), AT_ONCE):
        some = rows[at : at + AT_ONCE]
        feed: Feed = {"codes": made.codes[some].astype(np.int64)}
        if made.numbers.shape[1]:
            feed["numbers"] = made.numbers[some]
        parts.append(answer(feed))
    return {name: np.concatenate([part[name] for part in parts]).astype(np.float64) for name in parts[0]}
