"""Findings about a data set: counts and ranges, duplicates, principal components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from parallel_tunes.data.material import Components, Findings, Floats, Material, list_labels
from parallel_tunes.data.splits import find_duplicates

FEWEST = 3  # tracks that PCA needs
NUM_LOADINGS = 5
MEASURES = {"duration_s": "durations", "level_db": "loudness", "tempo_bpm": "tempo"}


def explore(material: Material, num_shown: int) -> Findings:
    """Describe a data set, list its duplicates and find the principal components of its features.

    Args:
        num_shown: sets of duplicates of each kind in the metrics.
    """
    metrics = describe(material)
    left_out = {
        title: material.unknown.get(name, "known of no track") for name, title in MEASURES.items() if not metrics[name]
    }
    if not metrics["per_label"]:
        left_out["class balance"] = "no labels"
    components = find_components(material.features.values, material.features.names)
    if components is None:
        num_rows, num_features = material.features.values.shape
        left_out["principal components"] = f"too few features vary: {num_features} features of {num_rows} tracks"
    else:
        metrics["pca"] = _describe_components(components)
    metrics["duplicates"], duplicates = _list_duplicates(material, num_shown)
    return Findings(metrics, left_out, components, duplicates)


def describe(material: Material) -> dict[str, Any]:
    """Numbers of tracks, labels and groups, and the range of each measure."""
    frame = material.frame
    counts = frame["label"].value_counts()
    groups = frame["group"].dropna()
    facts: dict[str, Any] = {
        "num_tracks": len(frame), "num_sampled": len(material.rows), "num_labels": len(counts),
        "num_unlabelled": int(frame["label"].isna().sum()),
        "per_label": {label: int(counts[label]) for label in list_labels(frame["label"], len(counts))},
        "num_groups": int(groups.nunique()), "largest_group": int(groups.value_counts().max()) if len(groups) else 0,
    }  # fmt: skip
    for name in MEASURES:
        values = frame[name].to_numpy(np.float64)
        values = values[np.isfinite(values)]
        ends = (
            dict(zip(("min", "median", "max"), np.quantile(values, [0, 0.5, 1]).round(6).tolist(), strict=True))
            if len(values)
            else None
        )
        facts[name] = ends and {"n": len(values), **ends, "sum": round(float(values.sum()), 3)}
    return facts


def summarise(metrics: dict[str, Any], num_failed: int) -> str:
    """The numbers of tracks, labels, groups, sets of duplicates and unreadable files as one line."""
    counts = [_count(metrics["num_tracks"], "track"), _count(metrics["num_labels"], "label")]
    counts += [_count(metrics["num_groups"], "group")] * bool(metrics["num_groups"])
    counts += [f"{_count(found['num_sets'], 'set')} of {found['kind']}" for found in metrics["duplicates"]]
    counts += ["no duplicates"] * (not metrics["duplicates"])
    counts += [_count(num_failed, "unreadable file")] * bool(num_failed)
    return ", ".join(counts)


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def find_components(values: Floats, names: list[str]) -> Components | None:
    """PCA of the correlation matrix; None for fewer than three tracks or two features that vary."""
    deviations = values.std(0) if len(values) else np.zeros(values.shape[1])
    varies = deviations > 1e-9 * np.maximum(np.abs(values).max(0, initial=0), 1e-300)
    if len(values) < FEWEST or varies.sum() < 2:
        return None
    from sklearn.decomposition import PCA

    standardised = (values[:, varies] - values[:, varies].mean(0)) / deviations[varies]
    pca = PCA(svd_solver="full").fit(standardised)
    num = max(int((pca.explained_variance_ratio_ > 1e-12).sum()), 2)  # the others are rounding
    kept = [name for name, is_kept in zip(names, varies, strict=True) if is_kept]
    loadings = np.asarray(pca.components_[:num], np.float64)
    return Components(standardised @ loadings.T, pca.explained_variance_ratio_[:num], loadings, kept)


def count_components(explained: Floats, share: float) -> int:
    """The number of components that hold this share of the variance."""
    return min(int(np.searchsorted(np.cumsum(explained), share)) + 1, len(explained))


def _describe_components(found: Components) -> dict[str, Any]:
    loadings = [
        [
            {"feature": found.names[at], "loading": round(float(row[at]), 4)}
            for at in np.argsort(-np.abs(row), kind="stable")[:NUM_LOADINGS]
        ]
        for row in found.loadings[:2]
    ]
    return {
        "n": len(found.scores),
        "num_features": len(found.names),
        "explained_variance": [round(float(share), 6) for share in found.explained],
        "loadings": loadings,
        **{f"num_for_{round(100 * share)}": count_components(found.explained, share) for share in (0.8, 0.9, 0.99)},
    }


def _list_duplicates(material: Material, num_shown: int) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """By kind, the number of sets and the first of them, those of differing labels first; and a row per duplicate track."""
    frame, found, rows = material.frame, [], []
    for kind, keys in material.duplicates.items():
        tracks = pd.DataFrame({"path": frame["path"], "label": frame["label"], "hash": list(keys)})
        sets: list[dict[str, Any]] = find_duplicates(tracks, pd.Series("", index=tracks.index, dtype=object))
        for number, one in enumerate(sets, 1):
            rows += [(kind, number, path, one["labels_differ"]) for path in one["paths"]]
        if sets:
            first = sorted(sets, key=lambda one: not one["labels_differ"])[:num_shown]
            found.append({
                "kind": kind, "num_sets": len(sets), "num_tracks": sum(len(one["paths"]) for one in sets),
                "num_labels_differ": sum(one["labels_differ"] for one in sets),
                "sets": [{"paths": one["paths"][:num_shown], "labels_differ": one["labels_differ"]} for one in first],
            })  # fmt: skip
    return found, pd.DataFrame(rows, columns=["kind", "set", "path", "labels_differ"])
