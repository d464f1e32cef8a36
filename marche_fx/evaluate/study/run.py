"""Decode all batches of loops under variants; tell what came of it as JSON, a picture and a table."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ... import version
from ...errors import ArgumentError
from ...saving.files import weights_hash, write_json
from ..folder import SettingsFolder
from ..progress import progress
from .figures import StudyRow
from .generation import Decoder
from .lines import Line, Lines
from .loops import AnyLoop
from .variants import ORIGINAL, Variant

LINES_FILE = "lines.jsonl"

Judging = Callable[[Tensor, Tensor], list[float]]
"""What is given, ``[B, ...]``, and the answers ``[B, A]`` to the ``nats`` of a `Line`."""


@dataclass(frozen=True)
class StudySettings:
    """What all lines of a study share: how many are decoded at once, and the seed of the noise."""

    batch: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ArgumentError(f"batch must be at least 1, got {self.batch}")


def decode_loops(
    lines: Lines,
    model: nn.Module,
    loops: Mapping[AnyLoop, Tensor],
    variants: Mapping[str, Variant[AnyLoop]],
    settings: StudySettings,
    console: Console,
    judging: Judging | None = None,
) -> Iterator[dict[str, list[Line]]]:
    """Of each loop the lines of each variant, batch by batch; those that are known are not made again.

    The variants, the original among them, take turns in each batch, so that what else the machine does slows all of
    them alike.

    Args:
        loops: and what each of them is given, ``[P, ...]``.

    Raises:
        ArgumentError: the original is not among the variants.
    """
    if ORIGINAL not in variants:
        raise ArgumentError(f"all variants are compared with {ORIGINAL!r}, which is not among {', '.join(variants)}")
    for loop, given in loops.items():
        decoders = {name: Decoder(model, loop, variant) for name, variant in variants.items()}
        keys = decode_missing(lines, loop, decoders, given.split(settings.batch), settings, console, judging)
        yield {name: [lines.known[key] for key in own] for name, own in keys.items()}


Keys = dict[str, list[tuple[str, str, int, str]]]


def decode_missing(
    lines: Lines,
    loop: AnyLoop,
    decoders: Mapping[str, Decoder[AnyLoop]],
    batches: Sequence[Tensor],
    settings: StudySettings,
    console: Console,
    judging: Judging | None,
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
            given = batches[batch]
            found = decoders[name].decode(given, settings.seed * 10_007 + batch)
            nats = [] if judging is None else judging(given, found.answers)
            counted = found.rows, found.results, found.flops, found.seconds
            lines.add(Line(*keys[name][batch], found.answers.tolist(), nats, *counted, run))
            steps.end(name, found.seconds)
    return keys


def open_lines(out: Path, settings: StudySettings, **models: nn.Module) -> Lines:
    """The lines in a folder that belongs to these settings, and to these models by name.

    Raises:
        ArgumentError: it cannot be written, or holds results of other settings, weights or another version.
    """
    hashes = {name: weights_hash(model) for name, model in models.items()}
    own = {**asdict(settings), **hashes, "version": version.__version__}
    SettingsFolder(out, own)
    return Lines(out / LINES_FILE)


def tell(
    rows: Sequence[StudyRow], table: Table, pictures: Mapping[str, Callable[[Path], None]], out: Path, console: Console
) -> None:
    """Write the rows of a loop, draw pictures by what follows the loop's name in theirs, and print the table."""
    loop = rows[0].loop
    content: dict[str, Any] = {"settings": SettingsFolder.known(out), "rows": [asdict(row) for row in rows]}
    write_json(out / f"{loop}.json", content)
    names = {f"{loop}{ending}.png": draw for ending, draw in pictures.items()}
    for name, draw in names.items():
        draw(out / name)
    console.print(table)
    console.print(f"{out}: {', '.join([f'{loop}.json', *names])}")
