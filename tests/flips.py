"""Files with a bit that flipped."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path


def flipped(path: Path, times: int) -> Iterator[int]:
    """Flip one bit of a file at a random place, each time another one; the place. The file is whole again at the end.

    The first and the last byte are among the places.
    """
    whole, draws = path.read_bytes(), random.Random(0)
    places = [0, len(whole) - 1, *(draws.randrange(len(whole)) for _ in range(times - 2))]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << draws.randrange(8)
        path.write_bytes(changed)
        yield place
    path.write_bytes(whole)
