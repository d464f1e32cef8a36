"""A MAR that generates images of the judge's size in milliseconds."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from marche_fx.models import MAR
from tests.models.tiny import tiny_mar


def tiny_garments(**options: int) -> MAR:
    """28x28 images of 10 classes as 16 tokens."""
    depth = {"encoder_depth": 1, "decoder_depth": 1}
    return tiny_mar(**{"img_size": 28, "patch_size": 7, "class_num": 10, **depth, **options}).float()


def silent() -> Console:
    return Console(file=StringIO(), width=120)


def written(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()
