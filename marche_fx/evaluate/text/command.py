"""``marche-fx study-text``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...models.bundled import load_text_model
from ..study import ORIGINAL
from ..study.names import named
from .loops import LOOPS
from .run import TextSettings, study_text
from .variants import VARIANTS


def run_study(
    out: Path,
    loops: Sequence[str],
    variants: Sequence[str],
    prompts: int | None,
    settings: TextSettings,
    text: Path | None,
) -> None:
    """Study loops and variants by name, all of them where none are named; the original is always among them.

    Raises:
        ArgumentError: there is none of a name. Others as `study_text`.
    """
    own = [loop if prompts is None else replace(loop, prompts=prompts) for loop in named(LOOPS, loops).values()]
    compared = named(VARIANTS, [ORIGINAL, *variants] if variants else [])
    study_text(load_text_model().requires_grad_(False), out, own, compared, settings, text=text)
