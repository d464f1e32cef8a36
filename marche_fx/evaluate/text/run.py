"""Decode prompts, judge the answers, tell: JSON, tables and a picture in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from torch import Tensor

from ...models.text import TextDiffusion
from ...saving.locks import alone
from ..run import wide_console
from ..study import ORIGINAL, StudySettings, Variant
from ..study.plots import save_same_by_rows
from ..study.run import decode_loops, open_lines, tell
from .figures import TextRow, text_row
from .judges import OtherJudge, nats_of_answers
from .loops import Loop
from .prompts import load_prompts
from .tables import text_table


@dataclass(frozen=True)
class TextSettings(StudySettings):
    """The same; with ``choosing``, of the prompts that policies are chosen by, not those that are reported."""

    choosing: bool = False


@alone("studying text")
def study_text(
    model: TextDiffusion,
    out: Path,
    loops: Sequence[Loop],
    variants: Mapping[str, Variant[Loop]],
    settings: TextSettings,
    *,
    text: Path | None = None,
    console: Console | None = None,
) -> list[TextRow]:
    """Decode prompts in all loops under all variants; goes on where an interrupted study in ``out`` stopped.

    ``out`` gets ``lines.jsonl``, and for each loop its figures as JSON and a picture.

    Args:
        text: that the bundled model has read, for the judge that is not itself.

    Raises:
        ArgumentError: ``out`` holds results of other settings, weights or another version; there are too few prompts;
            the original is not among the variants.
        DatasetError: ``text`` cannot be read.
    """
    console = console or wide_console()
    judge = None if text is None else OtherJudge(text)
    lines = open_lines(out, settings, model=model)
    prompts = {loop: load_prompts(loop.prompts, loop.prompt, choosing=settings.choosing) for loop in loops}

    def judging(given: Tensor, answers: Tensor) -> list[float]:
        means: list[float] = nats_of_answers(model, given, answers, mask_id=model.mask_id).mean(1).tolist()
        return means

    rows: list[TextRow] = []
    found = decode_loops(lines, model, prompts, variants, settings, console, judging)
    for given, own in zip(prompts.values(), found, strict=True):
        of_loop = [text_row(each, own[ORIGINAL], given, judge) for each in own.values()]
        tell(of_loop, text_table(of_loop), {"": partial(save_same_by_rows, of_loop)}, out, console)
        rows += of_loop
    return rows
