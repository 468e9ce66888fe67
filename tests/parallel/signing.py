"""python signing.py RANK: a rank that gives signs of life, and does what it is told on standard input."""

from __future__ import annotations

import dataclasses
import json
import sys

from parallel_tunes.parallel.signs import LOST, Address, Place, Signs


def read_world(text: str) -> list[tuple[Address, Place]]:
    """Addresses and places that went through JSON."""
    return [((host, port), Place(**place)) for (host, port), place in json.loads(text)]


if __name__ == "__main__":
    own = Signs(int(sys.argv[1]), "127.0.0.1", 60, print)
    print(json.dumps([[own.address, dataclasses.asdict(own.place)]]), flush=True)
    own.begin(read_world(sys.stdin.readline()))
    for line in map(str.strip, sys.stdin):
        if line == "lost":
            own._tell(LOST)
        elif line == "find":
            missing, is_to_say = own.find_missing()
            print(json.dumps([[text.partition(" (")[0] for text in missing], is_to_say]), flush=True)
        elif line == "end":
            own.end()
            sys.exit()
