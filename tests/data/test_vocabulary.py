from __future__ import annotations

import numpy as np

from parallel_tunes.data.vocabulary import FIRST, MISSING, UNSEEN, fit_lookup, hash_codes

CODES = np.array([0, 0, 5, 5, 5, 2, 2, 2, 2, 7, 9], np.int32)  # of 12; 1, 3, 4, 6, 8, 10 and 11 are unseen


def test_what_is_known_has_a_code_of_its_own_the_most_frequent_first() -> None:
    lookup = fit_lookup(CODES, 12)
    assert lookup.dtype == np.int32
    assert lookup[0] == MISSING
    assert (lookup[[1, 3, 4, 6, 8, 10, 11]] == UNSEEN).all()
    assert lookup[[2, 5, 7, 9]].tolist() == [FIRST, FIRST + 1, FIRST + 2, FIRST + 3]


def test_what_is_rare_is_unseen_or_shares_buckets() -> None:
    assert fit_lookup(CODES, 12, min_count=2)[[2, 5, 7, 9]].tolist() == [FIRST, FIRST + 1, UNSEEN, UNSEEN]
    lookup = fit_lookup(CODES, 12, min_count=2, num_buckets=3)
    assert lookup[[2, 5]].tolist() == [FIRST + 3, FIRST + 4]
    assert ((lookup[[7, 9]] >= FIRST) & (lookup[[7, 9]] < FIRST + 3)).all()
    assert (lookup[[1, 3, 11]] == UNSEEN).all()


def test_buckets_are_filled_evenly_and_everywhere_alike() -> None:
    many = np.arange(1, 100_001)
    lookup = fit_lookup(many, 100_001, min_count=2, num_buckets=100)
    counts = np.bincount(lookup[1:] - FIRST, minlength=100)
    assert counts.sum() == 100_000
    assert counts.min() > 850
    assert counts.max() < 1150
    assert hash_codes(np.array([1]))[0] == 0x910A2DEC89025CC1  # SplitMix64's first from the seed 1


def test_of_no_rows_nothing_is_known() -> None:
    lookup = fit_lookup(np.array([], np.int32), 4, num_buckets=2)
    assert lookup.tolist() == [MISSING, UNSEEN, UNSEEN, UNSEEN]
