"""A model so small, and loops so short, that garments are decoded in a moment."""

from __future__ import annotations

from dataclasses import replace

from marche_fx.evaluate.tokens import LOOPS, GarmentLoop
from marche_fx.models.tokens import Decoding
from tests.models.tokens.tiny import tiny_garments

GARMENTS = tiny_garments().requires_grad_(False)


def short(guidance: float = 0.0) -> GarmentLoop:
    """Four images in eight steps."""
    return replace(LOOPS["32-steps"], name="short", decoding=Decoding(steps=8, guidance=guidance), images=4)
