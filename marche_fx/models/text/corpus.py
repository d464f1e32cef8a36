"""A plain text, one sentence or verse a line, as pieces to train on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...errors import DatasetError
from .vocabulary import Tokenizer

HELD_OUT = 0.05
"""So large a share of the lines, the last ones, is never trained on."""


@dataclass(frozen=True)
class Corpus:
    """The pieces ``[T]`` int64 of a text, where among them its lines begin ``[L]``, and how many bytes it has.

    The beginnings stay on the host, where windows are chosen; the pieces may be on any device.
    """

    pieces: Tensor
    starts: Tensor
    size: int

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """``[B, length]``, the pieces from each of the positions ``starts [B]`` on."""
        device = self.pieces.device
        return self.pieces[starts.to(device, non_blocking=True)[:, None] + torch.arange(length, device=device)]

    def to(self, device: torch.device | str) -> Corpus:
        """The same with its pieces on ``device``."""
        return replace(self, pieces=self.pieces.to(device))

    def starts_of(self, length: int) -> Tensor:
        """The beginnings of lines that so many pieces follow."""
        return self.starts[self.starts + length <= len(self.pieces)]


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not empty, with single spaces.

    Raises:
        DatasetError: there is no such file, it is no text, or has too few lines to hold some out.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text: {error}. Give a plain text with --text.") from error
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) < 2 / HELD_OUT:
        raise DatasetError(f"{path} has {len(lines)} lines that are not empty; one sentence a line, 40 at least")
    return lines


def split_lines(lines: list[str]) -> tuple[list[str], list[str]]:
    """Those to train on, and the last `HELD_OUT`."""
    first = len(lines) - int(len(lines) * HELD_OUT)
    return lines[:first], lines[first:]


def encode(lines: list[str], tokenizer: Tokenizer) -> Corpus:
    """Each line ends with a line break, so that a text can be read on from any line."""
    encoded = [piece.ids for piece in tokenizer.encode_batch([f"{line}\n" for line in lines])]
    lengths = torch.tensor([len(ids) for ids in encoded])
    pieces = torch.tensor([piece for ids in encoded for piece in ids])
    size = sum(len(line.encode()) + 1 for line in lines)
    return Corpus(pieces, lengths.cumsum(0) - lengths, size)
