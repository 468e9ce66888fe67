"""What explore found, in sentences: on the page, and at the end of a run."""

from __future__ import annotations

from typing import Any

from parallel_tunes.reports.numbers import percent

Facts = dict[str, Any]
SURE = 0.5  # share of given labels that a model should name before its doubts count
UNEVEN = 3  # times as many tracks in the commonest label as in the rarest


def plural(num: int, noun: str) -> str:
    """`1 track`, `2,000 tracks`."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"


def list_findings(report: Facts) -> list[str]:
    """What stands out, a sentence each."""
    metrics = report["metrics"]
    words = [*_tell_labels(metrics), *_tell_faults(report["read"]), *_tell_twins(metrics)]
    if noise := metrics.get("label_noise"):
        naive = percent(noise["majority_share"])
        skill = f"names {percent(noise['accuracy'])} of the given labels, where always the commonest would be {naive}"
        if noise["accuracy"] < SURE:
            words.append(f"labels cannot well be doubted: the model that would do it {skill}")
        else:
            candidates = f"{plural(noise['num_candidates'], 'label')} of {noise['n']:,} may be wrong: candidates, to be listened to"
            words.append(f"{candidates}; the model that doubts them {skill}")
    if outliers := metrics.get("outliers"):
        words.append(f"{plural(outliers['num'], 'outlier')} among {outliers['n']:,} tracks")
    if pca := metrics.get("pca"):
        first = sum(pca["explained_variance"][:2])
        words.append(
            f"two principal components show {percent(first)} of the variance of {pca['num_features']} features, "
            f"{pca['num_for_80']} hold 80 %"
        )
    return [sentence[0].upper() + sentence[1:] for sentence in words]


def _tell_labels(metrics: Facts) -> list[str]:
    counts = metrics["per_label"]
    words = [f"{plural(metrics['num_tracks'], 'track')}, {plural(metrics['num_labels'], 'label')}"]
    if metrics["num_groups"]:
        words[0] += f", {plural(metrics['num_groups'], 'group')}"
    if metrics["num_unlabelled"] and counts:
        words[0] += f"; {metrics['num_unlabelled']:,} have no label"
    if len(counts) > 1:
        common, rare = next(iter(counts)), next(reversed(counts))
        if counts[common] == counts[rare]:
            words.append(f"labels are even: {plural(counts[rare], 'track')} each")
        else:
            how = "uneven" if counts[common] >= UNEVEN * counts[rare] else "about even"
            words.append(f"labels are {how}: {common} has {plural(counts[common], 'track')}, {rare} {counts[rare]:,}")
    return words


def _tell_faults(read: Facts) -> list[str]:
    words = []
    if read.get("num_failed"):
        words.append(f"{plural(read['num_failed'], 'file')} could not be read")
    if read.get("num_dropped"):
        words.append(f"{plural(read['num_dropped'], 'row')} of {read['num_read']:,} left out, each with a bad cell")
    lacking = [column for column in read.get("columns", []) if column["num_missing"] + column.get("num_bad", 0)]
    if lacking:
        num = sum(column["num_missing"] + column.get("num_bad", 0) for column in lacking)
        words.append(f"{plural(num, 'cell')} of {plural(len(lacking), 'column')} missing or no number")
    if read.get("impossible"):
        words.append(f"{plural(sum(row['num'] for row in read['impossible']), 'value')} cannot be true")
    constant = [name for name, why in read.get("left_out", {}).items() if why.startswith("constant")]
    if constant:
        words.append(f"{plural(len(constant), 'column')} without any difference: {', '.join(constant[:5])}")
    return words


def _tell_twins(metrics: Facts) -> list[str]:
    words = []
    for found in metrics["duplicates"]:
        differ = (
            f", {found['num_labels_differ']:,} of them under labels that differ" if found["num_labels_differ"] else ""
        )
        words.append(f"{plural(found['num_sets'], 'set')} of {found['how']}{differ}")
    return words


def show_probability(value: float) -> str:
    """A probability, none of them zero."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def show_duration(seconds: float) -> str:
    """A length of music in the unit that reads best."""
    if seconds < 180:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
