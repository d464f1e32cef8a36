"""``marche-fx study-text`` and ``study-tokens``: caches compared on the bundled models of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Seed, Study, Variants


def study_text(
    out: Study,
    loop: Annotated[
        list[str] | None,
        typer.Option("--loop", help="low-confidence, random, maskgit or long; may be repeated; all when omitted"),
    ] = None,
    variant: Variants = None,
    prompts: Annotated[
        int | None, typer.Option(min=1, help="how many to decode; 4 to 16, by the loop, when omitted")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="prompts decoded at once")] = 4,
    choosing: Annotated[
        bool, typer.Option("--choosing", help="take the prompts that policies are chosen by, not those reported")
    ] = False,
    text: Annotated[
        Path | None, typer.Option(help="text that the model has read, for bits per byte under an n-gram model of it")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Compare caches on the bundled text model; resumable after a kill at any moment.

    Pieces that are the original's with the same noise, rows and logits computed, FLOPs, time, perplexity.
    """
    from ..evaluate.text.command import run_study
    from ..evaluate.text.run import TextSettings

    run_study(out, loop or [], variant or [], prompts, TextSettings(batch, seed, choosing), text)


def study_tokens(
    out: Study,
    loop: Annotated[
        list[str] | None, typer.Option("--loop", help="32-steps or 16-steps; may be repeated; all when omitted")
    ] = None,
    variant: Variants = None,
    images: Annotated[int | None, typer.Option(min=1, help="how many to generate; 100 when omitted")] = None,
    batch: Annotated[int, typer.Option(min=1, help="images generated at once")] = 20,
    seed: Seed = 0,
) -> None:
    """Compare caches on the bundled MaskGIT of garments; resumable after a kill at any moment.

    Codes that are the original's with the same noise, rows and logits computed, FLOPs, time, labels, Frechet distance.
    """
    from ..evaluate.study import StudySettings
    from ..evaluate.tokens.command import run_study

    run_study(out, loop or [], variant or [], images, StudySettings(batch, seed))
