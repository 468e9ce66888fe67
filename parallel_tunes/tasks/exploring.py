"""What is found in tracks without being told: components, correlations, outliers, twins, labels to doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from parallel_tunes.config_explore import ExploreConfig
from parallel_tunes.data.material import Components, Findings, Floats, Ids, Material, list_labels, to_records
from parallel_tunes.data.splits import find_duplicates
from parallel_tunes.tasks.doubting import doubt_labels

KEPT = 0.99  # of the variance, behind outliers, doubts and the second map
FEWEST = {"pca": 3, "outliers": 20, "embedding": 10}  # tracks
UNUSUAL = 3.5  # robust z of a distance, above which a track is an outlier
MOST_EMBEDDED = 5000
CORRELATED = 0.9
NUM_REASONS = 3
NUM_LOADINGS = 5
METHODS = {
    "outliers": "How far a track lies from the middle of all, by robust Mahalanobis distance over the principal components that hold "
    "99 % of the variance, at most a tenth as many as tracks: scores by their median and median absolute deviation (as in PCOut: "
    "Filzmoser, Maronna & Werner 2008, doi:10.1016/j.csda.2007.05.018). The score is that distance's own robust z, and above 3.5 a track "
    "is called an outlier (Iglewicz & Hoaglin 1993)",
    "embedding": "t-SNE (van der Maaten & Hinton 2008) of the principal components that hold 99 % of the variance",
}  # fmt: skip


@dataclass
class _Lists:
    """The facts of the report, and why some are missing."""

    facts: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def explore(material: Material, cfg: ExploreConfig, say: Callable[[str], None]) -> Findings:
    """Look for all that can be found in so many tracks; `say` hears of what takes long."""
    frame, made = material.frame.iloc[material.rows].reset_index(drop=True), _Lists()
    components = find_components(material.features.values, material.features.names)
    outliers = doubts = None
    embedding, embedded = None, np.empty(0, np.int64)
    if components is None:
        why = f"{len(frame)} tracks and {len(material.features.names)} features: too few of them vary"
        made.left_out |= dict.fromkeys(("pca", "outliers", "label_noise", "embedding"), why)
    else:
        made.facts["pca"] = _tell_components(components)
        outliers = _list_outliers(frame, components, cfg, made)
        if frame["label"].nunique() > 1:
            say(f"labels are doubted by cross-validation, {cfg.folds} folds")
        doubts = _doubt(frame, components, material, cfg, made)
        if len(frame) < FEWEST["embedding"]:
            made.left_out["embedding"] = f"{len(frame)} tracks are too few for a map"
        elif cfg.embedding == "tsne":
            embedded = np.sort(
                np.random.Generator(np.random.Philox(key=cfg.seed)).permutation(len(frame))[:MOST_EMBEDDED]
            )
            say(f"t-SNE of {len(embedded)} tracks")
            embedding = embed(components.scores[embedded, : count_components(components.explained)], cfg.seed)
            made.facts["embedding"] = {"method": METHODS["embedding"], "n": len(embedded)}
    correlations, names = correlate(material.related.values, material.related.names)
    made.facts["correlations"] = _list_pairs(correlations, names)
    twins = list_twins(material)
    made.facts["duplicates"] = _tell_twins(twins, cfg.num_shown)
    return Findings(
        made.facts, made.left_out, components, correlations if len(names) > 1 else None, names, embedding, embedded, outliers,
        doubts, twins,
    )  # fmt: skip


def find_components(values: Floats, names: list[str]) -> Components | None:
    """PCA of the correlation matrix; None of fewer than three tracks or two features that vary."""
    deviations = values.std(0) if len(values) else np.zeros(values.shape[1])
    varies = deviations > 1e-9 * np.maximum(np.abs(values).max(0, initial=0), 1e-300)
    if len(values) < FEWEST["pca"] or varies.sum() < 2:
        return None
    from sklearn.decomposition import PCA

    standardised = (values[:, varies] - values[:, varies].mean(0)) / deviations[varies]
    pca = PCA(svd_solver="full").fit(standardised)
    num = max(int((pca.explained_variance_ratio_ > 1e-12).sum()), 2)  # the others are rounding
    kept = [name for name, is_kept in zip(names, varies, strict=True) if is_kept]
    loadings = np.asarray(pca.components_[:num], np.float64)
    return Components(standardised @ loadings.T, pca.explained_variance_ratio_[:num], loadings, kept, standardised)


def count_components(explained: Floats, share: float = KEPT) -> int:
    """How many components hold this share of the variance."""
    return min(int(np.searchsorted(np.cumsum(explained), share)) + 1, len(explained))


def _tell_components(found: Components) -> dict[str, Any]:
    loadings = [
        [
            {"feature": found.names[at], "loading": round(float(row[at]), 4)}
            for at in np.argsort(-np.abs(row), kind="stable")[:NUM_LOADINGS]
        ]
        for row in found.loadings[:2]
    ]
    shares = [round(float(share), 6) for share in found.explained]
    num = {f"num_for_{round(100 * share)}": count_components(found.explained, share) for share in (0.8, 0.9, 0.99)}
    return {
        "n": len(found.scores),
        "num_features": len(found.names),
        "explained_variance": shares,
        "loadings": loadings,
        **num,
    }


def score_outliers(components: Components) -> Floats:
    """How far out each track lies, shape (num_rows,): the robust z of its robust distance; METHODS says how."""
    num = min(count_components(components.explained), max(len(components.scores) // 10, 2))
    return to_robust_z(np.linalg.norm(to_robust_z(components.scores[:, :num]), axis=1))


def to_robust_z(values: Floats) -> Floats:
    """Distances from the median of each column, in units that are standard deviations where a column is normal."""
    centred = values - np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(centred), axis=0)
    deviations = values.std(0)
    # where more than half agree, what the others spread stands in
    spread = np.where(spread > 1e-9 * deviations, spread, deviations)
    return np.asarray(centred / np.where(spread > 0, spread, 1))


def _list_outliers(
    frame: pd.DataFrame, components: Components, cfg: ExploreConfig, made: _Lists
) -> pd.DataFrame | None:
    if len(frame) < FEWEST["outliers"]:
        made.left_out["outliers"] = f"{len(frame)} tracks are too few to say which are unusual"
        return None
    scores = score_outliers(components)
    order = np.argsort(-scores, kind="stable")
    num = int((scores > UNUSUAL).sum())
    table = pd.DataFrame({"path": frame["path"].to_numpy()[order]})
    if "name" in frame:
        table["name"] = frame["name"].to_numpy()[order]
    table["label"], table["score"] = frame["label"].to_numpy(object)[order], scores[order].round(3)
    table["is_outlier"] = scores[order] > UNUSUAL
    shown = order[: max(num, cfg.num_shown)]
    table["unusual"] = [_reasons(components, row) for row in shown] + [""] * (len(order) - len(shown))
    facts = {"method": METHODS["outliers"], "n": len(frame), "above": UNUSUAL, "num": num}
    made.facts["outliers"] = facts | {"tracks": to_records(table.head(cfg.num_shown))}
    return table


def _reasons(components: Components, row: int) -> str:
    """The features of a track that lie furthest from the mean, in standard deviations."""
    values = components.standardised[row]
    furthest = np.argsort(-np.abs(values), kind="stable")[:NUM_REASONS]
    return "; ".join(f"{components.names[at]} {values[at]:+.1f} sd" for at in furthest).replace("-", "−")


def _doubt(
    frame: pd.DataFrame, components: Components, material: Material, cfg: ExploreConfig, made: _Lists
) -> pd.DataFrame | None:
    scores = components.scores[:, : count_components(components.explained)]
    found = doubt_labels(frame, scores, *find_blocks(material), cfg)
    if isinstance(found, str):
        made.left_out["label_noise"] = found
        return None
    made.facts["label_noise"], table = found
    return table


def find_blocks(material: Material) -> tuple[Ids, str]:
    """What no fold divides, of the rows that are looked at: artists where they are known, else twins; and what it is."""
    frame = material.frame.iloc[material.rows]
    if frame["group"].notna().any():
        keys, unit = frame["group"].where(frame["group"].notna(), "\0" + frame["path"]), "groups"
    else:
        twins = next(iter(material.twins.values()), None)
        keys = frame["path"] if twins is None else pd.Series(np.array(twins, object)[material.rows])
        unit = "tracks"
    return np.asarray(pd.factorize(keys)[0], np.int64), unit


def embed(scores: Floats, seed: int) -> Floats:
    """t-SNE in two dimensions, from the first two components on; the same map for the same seed."""
    from sklearn.manifold import TSNE

    return np.asarray(
        TSNE(perplexity=min(30, (len(scores) - 1) / 3), init="pca", random_state=seed).fit_transform(scores), np.float64
    )


def correlate(values: Floats, names: list[str]) -> tuple[Floats, list[str]]:
    """Pearson's r of each pair of columns that vary, over the rows that have both; columns that go together stand together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    frame = pd.DataFrame(values, columns=pd.RangeIndex(len(names)))
    varies = [at for at in range(len(names)) if frame[at].nunique() > 1]
    found = frame[varies].corr(min_periods=2).fillna(0).to_numpy(np.float64).copy()
    if len(varies) > 2:
        apart = 1 - np.abs((found + found.T) / 2).clip(0, 1)
        np.fill_diagonal(apart, 0)
        order = leaves_list(linkage(squareform(apart, checks=False), "average", optimal_ordering=True))
        found, varies = found[np.ix_(order, order)], [varies[at] for at in order]
    return found, [names[at] for at in varies]


def _list_pairs(found: Floats, names: list[str], most: int = 10) -> list[dict[str, Any]]:
    """The pairs that go together most."""
    above = [
        (row, column) for row in range(len(names)) for column in range(row) if abs(found[row, column]) >= CORRELATED
    ]
    above.sort(key=lambda pair: -abs(found[pair]))
    return [
        {"a": names[column], "b": names[row], "r": round(float(found[row, column]), 4)} for row, column in above[:most]
    ]


def list_twins(material: Material) -> pd.DataFrame:
    """Sets of tracks that are alike: columns how, set, path, label; a row a track."""
    frame, rows, number = material.frame, [], 0
    for how, hashes in material.twins.items():
        known = pd.DataFrame({"path": frame["path"], "label": frame["label"], "hash": list(hashes)})
        for twins in find_duplicates(known, pd.Series("", index=known.index, dtype=object)):
            number += 1
            rows.append({"how": how, "set": number, "paths": twins["paths"], "labels_differ": twins["labels_differ"]})
    return pd.DataFrame(rows, columns=["how", "set", "paths", "labels_differ"])


def _tell_twins(twins: pd.DataFrame, most: int) -> list[dict[str, Any]]:
    """By how they are alike: how many sets of how many tracks, and the first of them; those whose labels differ come first."""
    found = []
    for how, mine in twins.groupby("how", sort=False):
        first = mine.sort_values("labels_differ", ascending=False, kind="stable")[["paths", "labels_differ"]].head(most)
        facts = {
            "num_sets": len(mine),
            "num_tracks": int(mine["paths"].map(len).sum()),
            "num_labels_differ": int(mine["labels_differ"].sum()),
        }
        found.append(
            {"how": how, **facts, "sets": to_records(first.assign(paths=[paths[:most] for paths in first["paths"]]))}
        )
    return found


def describe(material: Material) -> dict[str, Any]:
    """How many tracks, labels and groups there are, and what is known of all of them."""
    frame = material.frame
    counts = frame["label"].value_counts()
    groups = frame["group"].dropna()
    facts: dict[str, Any] = {
        "num_tracks": len(frame), "num_looked_at": len(material.rows), "num_labels": len(counts),
        "num_unlabelled": int(frame["label"].isna().sum()),
        "per_label": {label: int(counts[label]) for label in list_labels(frame["label"], len(counts))},
        "num_groups": int(groups.nunique()), "largest_group": int(groups.value_counts().max()) if len(groups) else 0,
    }  # fmt: skip
    for name in ("duration_s", "level_db", "tempo_bpm"):
        values = frame[name].to_numpy(np.float64)
        values = values[np.isfinite(values)]
        ends = (
            dict(zip(("min", "median", "max"), np.quantile(values, [0, 0.5, 1]).round(6).tolist(), strict=True))
            if len(values)
            else None
        )
        facts[name] = ends and {"n": len(values), **ends, "sum": round(float(values.sum()), 3)}
    return facts
