"""What is known of a listen before it happens: counts, rates and beliefs of who, what and whence, from earlier rows alone.

Row order is time. A row's counts are of all rows before it; what is made of labels is of those at least 1 + delay rows before it.
A rate of few labels is drawn towards its parent as by `smoothing` more labels that were the parent's (Micci-Barreca 2001, "A
preprocessing scheme for high-cardinality categorical attributes"; from earlier rows only, as in CatBoost's ordered statistics):
user, song, artist and source towards the rate of all rows, user×artist and user×source towards the sum of what both are above it.

A rate mixes who one is with what one hears. Beliefs do not: the logit of a label is taken to be a sum of weights, one for each of a
row's codes, of which mean and variance are kept, and moved by each label as it comes (Graepel et al. 2010, "Web-scale Bayesian
click-through rate prediction", here with a logistic link, as in an extended Kalman filter).

Code 0 of a user, song or artist is nobody: it is never counted, and its rates are its parent's. Code 0 of a source is a source.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parallel_tunes.compiled import compile_with

KEYS = ("user", "song", "artist", "source", "user_artist", "user_source")
NAMES = (
    *(f"{key}_count" for key in KEYS),  # log1p of earlier rows
    *(f"{key}_rate" for key in KEYS),
    *(f"{key}_weight" for key in KEYS),  # means of beliefs
    "score",  # their sum and that of all rows, a logit
    "user_recent_rate",  # of the last labels, each worth DECAY of the next
    "song_recent_rate",
    "user_last_labels",  # how many alike the last is the last of: log1p, negative for zeros, 0 where there is none
    "user_gap",  # log1p of rows since the user's last listen, or since before the first row
    "song_gap",
    "user_artist_gap",
    "is_artist_again",  # that of the user's last listen
    "is_source_again",
    "run_listens",  # log1p of the user's listens without a gap above RUN_ROWS up to now, and of rows since the first
    "run_rows",
)
DECAY = np.float32(0.9)
RUN_ROWS = 100
AHEAD = 16  # rows
NOBODY, ALL = 0, 1  # entries; those of KEYS follow, one after the other
ROWS, LABELS, ONES, LAST = range(4)  # columns of counts; LAST is 1 + the last row, 0 for none
MEAN, VARIANCE, RECENT_LABELS, RECENT_ONES = range(4)  # columns of beliefs
LAST_ARTIST, LAST_SOURCE, RUN_START, RUN_LISTENS, NUM_ALIKE = range(5)  # columns of past
ALL_PRIOR, PRIORS = 1.0, (1.0, 0.5, 0.25, 1.0, 0.15, 0.25)  # variances of weights of which nothing is known, as in KEYS
FLOOR = np.float32(0.002)  # of variances, so that beliefs go on moving with the times


compile_kernel = compile_with()


@compile_kernel
def slot_of(slots: Any, keys: Any, key: Any) -> Any:
    """Where in `slots`, a power of two of them, `key` is or would be: Fibonacci hashing with linear probing."""
    mask = np.uint64(len(slots) - 1)
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & mask
    while slots[slot] and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compile_kernel
def number_pairs(first: Any, second: Any, num_seconds: Any, codes: Any) -> Any:
    """Fill `codes` (num_rows,) with numbers of the pairs of `first` and `second`, from 1 as they come, 0 where one is 0.

    Returns:
        Keys, (num_pairs + 1,): first · num_seconds + second, of each number; 0 of 0.
    """
    slots, keys, num = np.zeros(1024, np.int32), np.zeros(512, np.int64), 0
    for row in range(len(codes)):
        one, other = np.int64(first[row]), np.int64(second[row])
        if one == 0 or other == 0:
            codes[row] = 0
            continue
        key = one * num_seconds + other
        slot = slot_of(slots, keys, key)
        if slots[slot] == 0:
            if num + 1 == len(keys):
                keys, slots = np.concatenate((keys, np.zeros_like(keys))), np.zeros(2 * len(slots), np.int32)
                for code in range(1, num + 1):
                    slots[slot_of(slots, keys, keys[code])] = code
                slot = slot_of(slots, keys, key)
            num += 1
            keys[num], slots[slot] = key, num
        codes[row] = slots[slot]
    return keys[: num + 1]


@compile_kernel
def log1p(count: Any) -> Any:
    return math.log(np.float32(count + 1))  # a third of what log1p takes


@compile_kernel
def shrink(counts: Any, entry: Any, parent: Any, smoothing: Any) -> Any:
    return (counts[entry, ONES] + smoothing * parent) / (counts[entry, LABELS] + smoothing)


@compile_kernel
def find_entries(starts: Any, codes: Any, row: Any, entries: Any) -> None:
    """Fill `entries` (6,) with where the tables have what row `row` of `codes` (6, num_rows) is of."""
    for key in range(6):
        code = codes[key, row]
        entries[key] = starts[key] + code if code else NOBODY


@compile_kernel
def describe_row(counts: Any, beliefs: Any, past: Any, entries: Any, codes: Any, smoothing: Any, out: Any) -> None:
    """Fill `out` (num_names,) with what the tables tell of the row to come; `codes` (6,) are its own."""
    rate, now = shrink(counts, ALL, 0.5, smoothing), counts[ALL, ROWS]
    score = beliefs[ALL, MEAN]
    for key in range(6):
        entry = entries[key]
        out[key] = log1p(counts[entry, ROWS])
        out[12 + key] = beliefs[entry, MEAN]
        score += beliefs[entry, MEAN]
    for key in range(4):
        out[6 + key] = shrink(counts, entries[key], rate, smoothing)
    for key, other in ((4, 8), (5, 9)):
        out[6 + key] = shrink(counts, entries[key], min(max(out[6] + out[other] - rate, 0.0), 1.0), smoothing)
    out[18] = score
    for key in range(2):  # one label that was the rate's
        entry = entries[key]
        out[19 + key] = (beliefs[entry, RECENT_ONES] + out[6 + key]) / (beliefs[entry, RECENT_LABELS] + 1)
    user, last = codes[0], counts[entries[0], LAST]
    alike, gap = past[user, NUM_ALIKE], now + 1 - last
    out[21] = log1p(alike) if alike > 0 else -log1p(-alike)
    out[22], out[23] = log1p(gap), log1p(now + 1 - counts[entries[1], LAST])
    out[24] = log1p(now + 1 - counts[entries[4], LAST])
    out[25] = 1.0 if last and codes[2] and codes[2] == past[user, LAST_ARTIST] else 0.0
    out[26] = 1.0 if last and codes[3] == past[user, LAST_SOURCE] else 0.0
    goes_on = last > 0 and gap <= RUN_ROWS
    out[27] = log1p(past[user, RUN_LISTENS]) if goes_on else 0.0
    out[28] = log1p(now - past[user, RUN_START]) if goes_on else 0.0


@compile_kernel
def add_listen(counts: Any, past: Any, entries: Any, codes: Any, row: Any) -> None:
    """That row `row` was heard, whatever its label."""
    user = codes[0]
    if user:
        last = counts[entries[0], LAST]
        if last == 0 or row + 1 - last > RUN_ROWS:
            past[user, RUN_START], past[user, RUN_LISTENS] = row, 0
        past[user, RUN_LISTENS] += 1
        past[user, LAST_ARTIST], past[user, LAST_SOURCE] = codes[2], codes[3]
    counts[ALL, ROWS] += 1
    for key in range(6):
        entry = entries[key]
        if entry != NOBODY:
            counts[entry, ROWS] += 1
            counts[entry, LAST] = row + 1


@compile_kernel
def learn(counts: Any, beliefs: Any, entry: Any, label: Any, pull: Any, bend: Any) -> None:
    """Count a label, and move a weight by `pull` a unit of its variance, which shrinks by `bend` a unit of its square."""
    counts[entry, LABELS] += 1
    counts[entry, ONES] += label
    variance = beliefs[entry, VARIANCE]
    beliefs[entry, MEAN] += variance * pull
    beliefs[entry, VARIANCE] = max(variance - variance * variance * bend, FLOOR)
    beliefs[entry, RECENT_LABELS] = DECAY * beliefs[entry, RECENT_LABELS] + np.float32(1)
    beliefs[entry, RECENT_ONES] = DECAY * beliefs[entry, RECENT_ONES] + np.float32(label)


@compile_kernel
def add_label(counts: Any, beliefs: Any, past: Any, entries: Any, user: Any, label: Any) -> None:
    """What was heard in a row of these entries turned out as `label`."""
    score, variance = beliefs[ALL, MEAN], beliefs[ALL, VARIANCE]
    for key in range(6):
        score += beliefs[entries[key], MEAN]  # nobody's is 0, and so is its variance
        variance += beliefs[entries[key], VARIANCE]
    chance = np.float32(1) / (np.float32(1) + math.exp(-score))
    slope = chance * (np.float32(1) - chance)
    share = np.float32(1) / (np.float32(1) + slope * variance)
    pull, bend = (np.float32(label) - chance) * share, slope * share
    learn(counts, beliefs, ALL, label, pull, bend)
    for key in range(6):
        if entries[key] != NOBODY:
            learn(counts, beliefs, entries[key], label, pull, bend)
    if user:
        side, alike = 1 if label else -1, past[user, NUM_ALIKE]
        past[user, NUM_ALIKE] = alike + side if alike * side > 0 else side


@compile_kernel
def pass_over(
    counts: Any, beliefs: Any, past: Any, starts: Any, codes: Any, target: Any, smoothing: Any, delay: Any, out: Any
) -> Any:
    """Row after row: say what is known, then learn of the row, and of the label that arrives with it. No `out`, nothing said.

    Args:
        counts, beliefs: (num_entries, 4) each.
        past: (num_users, 5).
        starts: (6,): the entry of each key's code 0, were it not nobody's.
        codes: (6, num_rows), 0 for nobody.
        target: (num_rows,), -1 where a label never arrives.
        out: (num_rows, num_names) or (0, num_names).
    """
    touched, num_rows = np.float32(0), len(target)
    entries, own = np.empty(6, np.int64), np.empty(6, np.int32)
    for row in range(num_rows):
        find_entries(starts, codes, min(row + AHEAD, num_rows - 1), entries)
        for key in range(6):  # so that it is on its way from memory while earlier rows are worked on
            touched += counts[entries[key], ROWS] + beliefs[entries[key], MEAN]
            own[key] = codes[key, row]
        touched += past[codes[0, min(row + AHEAD, num_rows - 1)], 0]
        find_entries(starts, codes, row, entries)
        if len(out):
            describe_row(counts, beliefs, past, entries, own, smoothing, out[row])
        add_listen(counts, past, entries, own, row)
        told = row - delay
        if told >= 0 and target[told] >= 0:
            find_entries(starts, codes, told, entries)
            add_label(counts, beliefs, past, entries, codes[0, told], target[told])
    return touched  # else touching would be optimised away


@compile_kernel
def describe_rows(counts: Any, beliefs: Any, past: Any, starts: Any, codes: Any, smoothing: Any, out: Any) -> None:
    """Fill `out` (num_rows, num_names), each row as though it were the next."""
    entries, own = np.empty(6, np.int64), np.empty(6, np.int32)
    for row in range(len(out)):
        find_entries(starts, codes, row, entries)
        for key in range(6):
            own[key] = codes[key, row]
        describe_row(counts, beliefs, past, entries, own, smoothing, out[row])
