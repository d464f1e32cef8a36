"""Loops over so few pieces that the bundled model decodes them in a second."""

from __future__ import annotations

from dataclasses import replace

from marche_fx.evaluate.text import LOOPS, Loop
from marche_fx.models.bundled import load_text_model

MODEL = load_text_model().requires_grad_(False)


def short(name: str) -> Loop:
    """Blocks of eight pieces, or all of them, in eight steps."""
    loop = LOOPS[name]
    block = 32 if loop.remasking is None else 8
    return replace(loop, prompts=2, prompt=32, answer=32, block=block, steps=8)
