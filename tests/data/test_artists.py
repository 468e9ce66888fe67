from __future__ import annotations

import numpy as np

from parallel_tunes.data import artists


def test_names() -> None:
    cases: list[tuple[object, tuple[str, ...] | None]] = [
        ("['Ann']", ("Ann",)),
        ("['Ann', 'Bob, Jr.']", ("Ann", "Bob, Jr.")),
        ('["Anita O\'Day", \'Gene "G" Krupa\']', ("Anita O'Day", 'Gene "G" Krupa')),
        (r"['A\\B', 'it\'s \"it\"']", ("A\\B", 'it\'s "it"')),
        ("['Ann','Bob']", ("Ann", "Bob")),
        ("['Ann' ,  'Bob',]", ("Ann", "Bob")),
        (" Ann & Bob, Cy ", ("Ann & Bob", "Cy")),
        ("Ann;Bob", ("Ann", "Bob")),
        ("Ann; Bob;Ann;", ("Ann", "Bob")),
        ("Ann / Bob", ("Ann", "Bob")),
        ("AC/DC", ("AC/DC",)),
        ("Ann | Bob", ("Ann", "Bob")),
        ("Ann, Bob feat. Cy", ("Ann", "Bob", "Cy")),
        ("Ann (ft. Bob & Cy)", ("Ann", "Bob & Cy")),
        ("Ann Featuring Bob [Live]", ("Ann", "Bob [Live]")),
        ("Little Feat", ("Little Feat",)),
        ("Defeatist", ("Defeatist",)),
        ('["Ann", "Zo\\u00eb"]', ("Ann", "Zoë")),
        ("[dunkelbunt]", ("[dunkelbunt]",)),  # an artist
        ("[]", ()),
        ("  ", ()),
        (None, ()),
        (float("nan"), ()),
        (np.array(["Ann", "Bob"], object), ("Ann", "Bob")),
        ("['Ann'", None),
        ("['Ann', 3]", None),
        ("['Ann', '']", None),
        ("['Ann'] + ['Bob']", None),
        ("['Ann', __import__('os')]", None),
    ]
    for cell, names in cases:
        assert artists.parse_names(cell) == names
        assert artists.parse_column([cell, "['Zoë']", cell]) == [names, ("Zoë",), names]


def test_who_shared_a_track_is_linked() -> None:
    credits = [("d",), ("c", "d"), ("b",), ("a", "c"), ("e", "f"), ("f",)]
    assert artists.link(credits).tolist() == ["a", "a", "b", "a", "e", "e"]
    # links seen often are links still
    assert set(artists.link([("b", "a")] * 256 + [("b",)])) == {"a"}


def test_links_do_not_hang_on_the_order() -> None:
    rng = np.random.default_rng(0)
    credits = [tuple(str(n) for n in rng.choice(300, rng.integers(1, 3), replace=False)) for _ in range(250)]
    order = rng.permutation(len(credits))
    assert artists.link([credits[at] for at in order]).tolist() == artists.link(credits)[order].tolist()
    # against sets merged until none is left to merge
    parts: list[set[str]] = []
    for names in credits:
        touched = [part for part in parts if part & set(names)]
        parts = [part for part in parts if part not in touched] + [set(names).union(*touched)]
    assert set(artists.link(credits)) == {min(part) for part in parts}
    assert len(parts) > 20
