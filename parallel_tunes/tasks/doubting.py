"""Which labels a model doubts that has not seen them: confident learning (Northcutt, Jiang & Chuang 2021)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parallel_tunes.config_explore import ExploreConfig
from parallel_tunes.data.material import Floats, Ids, list_labels, to_records

C = 0.1  # of the regularisation, as scikit-learn counts it
MOST_LABELS = 30  # that are told apart
METHOD = (
    f"Probabilities out of fold by multinomial logistic regression (C = {C:g}) on the standardised features, by their principal "
    "components that hold 99 % of the variance; of a candidate the model is surer of another label than it is on average of the "
    "tracks that have that label (confident learning: Northcutt, Jiang & Chuang 2021, doi:10.1613/jair.1.12125)"
)


def doubt_labels(
    frame: pd.DataFrame, scores: Floats, blocks: Ids, unit: str, cfg: ExploreConfig
) -> tuple[dict[str, Any], pd.DataFrame] | str:
    """Every track of the labels that enough tracks have, the least probable label first; or why none can be doubted.

    Args:
        frame: columns path, label, and where there are titles name.
        scores: what is learnt from, shape (num_rows, num_components).
        blocks: what no fold divides, shape (num_rows,); `unit` says what they are.

    Returns:
        Facts for the report, and columns path[, name], label, probability (out of fold, of that label), suggested (another label
        where the track is a candidate, else the most probable), suggested_probability, is_candidate.
    """
    counts = frame["label"].value_counts()
    num_blocks = pd.Series(blocks).groupby(frame["label"].to_numpy(object)).nunique()
    frequent = [label for label in list_labels(frame["label"], MOST_LABELS) if counts[label] >= cfg.folds]
    labels = [label for label in frequent if num_blocks[label] > 1]
    if len(labels) < 2:
        if len(counts) < 2:
            return f"{'one label' if len(counts) else 'no labels'}: there is no other to compare with"
        return f"no two labels have {cfg.folds} tracks" if len(frequent) < 2 else f"no two labels have several {unit}"
    rows = np.flatnonzero(frame["label"].isin(labels).to_numpy())
    if len(np.unique(blocks[rows])) < cfg.folds:
        return f"fewer {unit} than folds, {cfg.folds}"
    code_of = {label: code for code, label in enumerate(labels)}
    codes: Ids = np.array([code_of[label] for label in frame["label"].iloc[rows]], np.int64)
    probabilities, is_judged = cross_validate(scores[rows], codes, blocks[rows], cfg.folds, cfg.seed)
    rows, codes, probabilities = rows[is_judged], codes[is_judged], probabilities[is_judged]
    if not len(rows):
        return f"the labels of no {unit} are known from others"
    is_candidate, suggested = find_candidates(probabilities, codes)
    places, words = np.arange(len(codes)), np.array(labels, object)
    table = pd.DataFrame({"path": frame["path"].to_numpy()[rows]})
    if "name" in frame:
        table["name"] = frame["name"].to_numpy()[rows]
    table["label"], table["probability"] = words[codes], probabilities[places, codes].round(6)
    table["suggested"], table["suggested_probability"] = words[suggested], probabilities[places, suggested].round(6)
    table["is_candidate"] = is_candidate
    table = table.sort_values("probability", kind="stable", ignore_index=True)
    facts = {
        "method": METHOD, "n": len(rows), "folds": cfg.folds, "blocks": unit, "num_labels": len(labels),
        "accuracy": round(float((probabilities.argmax(1) == codes).mean()), 6),
        "majority_share": round(float(np.bincount(codes).max() / len(codes)), 6), "num_left": len(frame) - len(rows),
        "num_candidates": int(is_candidate.sum()),
        "per_label": {label: int(is_candidate[codes == code].sum()) for code, label in enumerate(labels)},
        "tracks": to_records(table[table["suggested"] != table["label"]].head(cfg.num_shown)),
    }  # fmt: skip
    return facts, table


def cross_validate(scores: Floats, codes: Ids, blocks: Ids, folds: int, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Probabilities of the labels, each track's by a model that knows neither it nor its block, shape (num_rows, num_labels).

    Returns:
        The probabilities, and which tracks they are good for: those whose label others have, in another fold.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros((len(codes), int(codes.max()) + 1))
    is_judged = np.zeros(len(codes), np.bool_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # probabilities need not be exact to order tracks by them
        warnings.filterwarnings(
            "ignore", message="The least populated class"
        )  # blocks are few: those not judged are told
        for learn, judge in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(scores, codes, blocks):
            if len(np.unique(codes[learn])) > 1:
                model = LogisticRegression(C=C, max_iter=300).fit(scores[learn], codes[learn])
                found[np.ix_(judge, model.classes_)] = model.predict_proba(scores[judge])
                is_judged[judge] = np.isin(codes[judge], model.classes_)
    return found, is_judged


def find_candidates(probabilities: Floats, codes: Ids) -> tuple[NDArray[np.bool_], Ids]:
    """Which tracks count off the diagonal of the confident joint (Northcutt et al. 2021, equation 1), and what is suggested.

    A label is confident where its probability reaches the mean that it has among the tracks it was given to; of several such the
    most probable counts.

    Returns:
        Both of shape (num_rows,). What is suggested: that label, or of no candidate the most probable one.
    """
    of_label = [probabilities[codes == code, code] for code in range(probabilities.shape[1])]
    thresholds = np.array([found.mean() if len(found) else np.inf for found in of_label])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.argmax(1)
    is_candidate = (confident.max(1) >= 0) & (counted != codes)
    return is_candidate, np.where(is_candidate, counted, probabilities.argmax(1))
