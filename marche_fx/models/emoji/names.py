"""Which emoji a picture shows, from its file's name and the catalogue of emoji-datasource."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ...errors import DatasetError

Sequence = tuple[int, ...]

KINDS_FILE = "kinds.json"

SIDE = 64
"""Height and width of every picture."""

JOINER, COLOURFUL = 0x200D, 0xFE0F
TONES = range(0x1F3FB, 0x1F400)
MAN, WOMAN, PERSON = 0x1F468, 0x1F469, 0x1F9D1
GENDERS = (0x2640, 0x2642)
RIGHTWARDS = 0x27A1

HELD_OUT = 1 / 8
"""Share of the families that no model is trained on."""


@dataclass(frozen=True)
class Kind:
    """Unicode's group and subgroup of an emoji."""

    group: str
    subgroup: str


def sequence_of(name: str) -> Sequence:
    """The code points in a name such as ``1f469-1f3fd-200d-1f680``.

    Joiners and selectors are left out: vendors differ in writing them.
    """
    try:
        points = [int(part, 16) for part in name.split("-")]
    except ValueError:
        raise DatasetError(f"the picture {name!r} is not named by code points, such as 1f469-200d-1f680") from None
    return tuple(point for point in points if point not in (JOINER, COLOURFUL))


def without_tones(sequence: Sequence) -> Sequence:
    return tuple(point for point in sequence if point not in TONES)


def is_a_repeat(sequence: Sequence) -> bool:
    """Whether it is a mere recombination: people of two skin tones (25 of each pair), or a runner turned round."""
    turned = len(sequence) > 1 and RIGHTWARDS in sequence
    return turned or len({point for point in sequence if point in TONES}) > 1


def family_of(sequence: Sequence) -> Sequence:
    """What men, women and persons of every skin tone have in common: they look too much alike to be told apart."""
    toneless = without_tones(sequence)
    if len(toneless) == 1:
        return (PERSON,) if toneless[0] in (MAN, WOMAN) else toneless
    return tuple(PERSON if point in (MAN, WOMAN) else point for point in toneless if point not in GENDERS)


def is_held_out(sequence: Sequence) -> bool:
    """Drawn by the family's digest, so that one emoji is held out for all vendors, whichever others there are."""
    digest = hashlib.sha256(repr(family_of(sequence)).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT * 2**32


def read_catalogue(path: Path) -> dict[Sequence, Kind]:
    """Group and subgroup of every emoji without skin tones, from emoji-datasource's ``emoji.json``."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {sequence_of(entry["unified"]): Kind(entry["category"], entry["subcategory"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not the emoji.json of an emoji-datasource package: {error}") from error
