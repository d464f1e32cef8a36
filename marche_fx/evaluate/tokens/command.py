"""``marche-fx study-tokens``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...models import load_garment_tokens
from ..study import ORIGINAL, StudySettings
from ..study.names import named
from .loops import LOOPS
from .run import study_tokens
from .variants import VARIANTS


def run_study(
    out: Path, loops: Sequence[str], variants: Sequence[str], images: int | None, settings: StudySettings
) -> None:
    """Study loops and variants by name, all of them where none are named; the original is always among them.

    Raises:
        ArgumentError: there is none of a name. Others as `study_tokens`.
    """
    own = [loop if images is None else replace(loop, images=images) for loop in named(LOOPS, loops).values()]
    compared = named(VARIANTS, [ORIGINAL, *variants] if variants else [])
    study_tokens(load_garment_tokens().requires_grad_(False), out, own, compared, settings)
