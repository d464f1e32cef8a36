"""Decode, judge, tell: JSON, tables and a picture in one folder."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from ... import version
from ...errors import ArgumentError
from ...models.text import TextDiffusion
from ...saving.files import weights_hash, write_json
from ..folder import SETTINGS_FILE, read_json, refuse_others
from ..progress import progress
from ..run import wide_console
from .figures import TextRow, text_row
from .generation import Decoder
from .judges import OtherJudge, nats_of_answers
from .lines import Line, Lines
from .loops import Loop
from .plots import save_same_by_rows
from .prompts import load_prompts
from .tables import text_table
from .variants import ORIGINAL, Variant

LINES_FILE = "lines.jsonl"


@dataclass(frozen=True)
class TextSettings:
    """What all lines of a study share.

    Attributes:
        batch: prompts decoded at once. seed: of the noise. choosing: take the prompts that policies are chosen by, not
            those that are reported.
    """

    batch: int = 4
    seed: int = 0
    choosing: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ArgumentError(f"batch must be at least 1, got {self.batch}")


def study_text(
    model: TextDiffusion,
    out: Path,
    loops: Sequence[Loop],
    variants: Mapping[str, Variant],
    settings: TextSettings,
    *,
    text: Path | None = None,
    console: Console | None = None,
) -> list[TextRow]:
    """Decode prompts in all loops under all variants; goes on where an interrupted study in ``out`` stopped.

    The variants, the original among them, take turns in each batch, so that what else the machine does slows all of
    them alike. ``out`` gets ``lines.jsonl``, and for each loop its figures as JSON and a picture.

    Args:
        text: that the bundled model has read, for the judge that is not itself.

    Raises:
        ArgumentError: ``out`` holds results of other settings, weights or another version; there are too few prompts.
        DatasetError: ``text`` cannot be read.
    """
    console = console or wide_console()
    if ORIGINAL not in variants:
        raise ArgumentError(f"all variants are compared with {ORIGINAL!r}, which is not among {', '.join(variants)}")
    judge = None if text is None else OtherJudge(text)
    lines = open_lines(out, model, settings)
    rows: list[TextRow] = []
    for loop in loops:
        prompts = load_prompts(loop.prompts, loop.prompt, choosing=settings.choosing)
        decoders = {name: Decoder(model, loop, variant) for name, variant in variants.items()}
        keys = decode_missing(lines, loop, decoders, prompts.split(settings.batch), settings, console)
        original = [lines.known[key] for key in keys[ORIGINAL]]
        own = [text_row([lines.known[key] for key in each], original, prompts, judge) for each in keys.values()]
        tell(own, out, console)
        rows += own
    return rows


Keys = dict[str, list[tuple[str, str, int, str]]]


def decode_missing(
    lines: Lines,
    loop: Loop,
    decoders: Mapping[str, Decoder],
    batches: Sequence[torch.Tensor],
    settings: TextSettings,
    console: Console,
) -> Keys:
    """Add what is not there yet; return the keys of each variant's lines, batch by batch."""
    keys = {
        name: [(loop.name, name, batch, repr(decoder.policy)) for batch in range(len(batches))]
        for name, decoder in decoders.items()
    }
    todo = [(batch, name) for batch in range(len(batches)) for name in decoders if keys[name][batch] not in lines.known]
    run, total = uuid.uuid4().hex[:8], len(batches) * len(decoders)
    with progress(console, loop.name, total, total - len(todo)) as steps:
        for batch, name in todo:
            steps.begin(name)
            prompt = batches[batch]
            found = decoders[name].decode(prompt, settings.seed * 10_007 + batch)
            nats = nats_of_answers(decoders[name].model, prompt, found.answers, mask_id=decoders[name].model.mask_id)
            counted = found.rows, found.results, found.flops, found.seconds
            answers, means = found.answers.tolist(), nats.mean(1).tolist()
            lines.add(Line(*keys[name][batch], answers, means, *counted, run))
            steps.end(name, found.seconds)
    return keys


def open_lines(out: Path, model: TextDiffusion, settings: TextSettings) -> Lines:
    """The lines in a folder that belongs to these settings."""
    own = {**asdict(settings), "model": weights_hash(model), "version": version.__version__}
    known = out / SETTINGS_FILE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not known.exists():
            write_json(known, own)
    except OSError as error:
        raise ArgumentError(f"the folder {out} cannot be written: {error}") from error
    refuse_others(read_json(known), own, out)
    return Lines(out / LINES_FILE)


def tell(rows: Sequence[TextRow], out: Path, console: Console) -> None:
    """Write and print the rows of a loop."""
    loop = rows[0].loop
    write_json(
        out / f"{loop}.json", {"settings": read_json(out / SETTINGS_FILE), "rows": [asdict(row) for row in rows]}
    )
    save_same_by_rows(rows, out / f"{loop}.png")
    console.print(text_table(rows))
    console.print(f"{out}: {loop}.json, {loop}.png")
