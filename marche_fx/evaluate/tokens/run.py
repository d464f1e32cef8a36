"""Decode garments, judge them, tell: JSON, tables and pictures in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from ...models import load_judge
from ...models.tokens import TokenGarments
from ...saving.locks import alone
from ..run import wide_console
from ..study import StudySettings, Variant
from ..study.plots import save_same_by_rows
from ..study.run import decode_loops, open_lines, tell
from .figures import TokenRow, token_rows
from .loops import GarmentLoop
from .plots import save_frechet_by_flops, save_garments
from .tables import token_table


@alone("studying tokens")
def study_tokens(
    garments: TokenGarments,
    out: Path,
    loops: Sequence[GarmentLoop],
    variants: Mapping[str, Variant[GarmentLoop]],
    settings: StudySettings,
    *,
    console: Console | None = None,
) -> list[TokenRow]:
    """Decode garments in all loops under all variants; goes on where an interrupted study in ``out`` stopped.

    ``out`` gets ``lines.jsonl``, and for each loop its figures as JSON and pictures.

    Raises:
        ArgumentError: ``out`` holds results of other settings, weights or another version; the original is not among
            the variants.
    """
    console = console or wide_console()
    judge, tokenizer = load_judge(), garments.tokenizer
    lines = open_lines(out, settings, garments=garments, judge=judge)
    labels = {loop: loop.labels for loop in loops}
    rows: list[TokenRow] = []
    found = decode_loops(lines, garments.maskgit, labels, variants, settings, console)
    for given, own in zip(labels.values(), found, strict=True):
        of_loop = token_rows(own, given, tokenizer, judge)
        pictures = {
            "": partial(save_frechet_by_flops, of_loop),
            "-same": partial(save_same_by_rows, of_loop),
            "-garments": partial(save_garments, own, tokenizer),
        }
        tell(of_loop, token_table(of_loop), pictures, out, console)
        rows += of_loop
    return rows
