"""How a way to decode, or a benchmark's variant, draws tokens: words of a head."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from ..denoising import Denoising, denoising_to_dict, parse_denoising
from ..errors import ArgumentError
from ..head.policy import HeadReuse, reuse_of
from ..head.saving import head_reuse_to_dict, load_head_reuse


@dataclass(frozen=True)
class HeadChoice:
    """With the model's own head where nothing is said.

    Attributes:
        rival: word of a head that is written by hand, one of `RIVALS`. denoising, reuse: as in `transform`.
    """

    rival: str | None = None
    denoising: Denoising | None = None
    reuse: HeadReuse | None = None

    @property
    def values(self) -> dict[str, Any]:
        """What it says, as plain values."""
        found = {
            "rival": self.rival,
            "denoising": None if self.denoising is None else denoising_to_dict(self.denoising),
            "reuse": None if self.reuse is None else head_reuse_to_dict(self.reuse),
        }
        return {name: value for name, value in found.items() if value is not None}


OWN_HEAD = HeadChoice()
"""The model's."""


def split_options(word: str, *others: str) -> tuple[str, list[str]]:
    """What stands before the options of a word, and these: ``denoising=..``, ``reuse=..`` and ``others``.

    Each stands behind a plus sign; that of ``denoising=dpm++2m:8`` begins none.
    """
    first, *options = re.split(rf"\+(?=(?:{'|'.join(('denoising', 'reuse', *others))})=)", word)
    return first, options


def chosen(head: HeadChoice, option: str, of: str) -> HeadChoice:
    """``head`` with what an option says; ``of`` is whose it is.

    Raises:
        ArgumentError: a rival has a head of its own, or there is no such denoising or reuse.
    """
    if head.rival is not None:
        raise ArgumentError(f"{of} has a head of its own, which takes no {option}")
    name, _, value = option.partition("=")
    if name == "denoising":
        return replace(head, denoising=parse_denoising(value))
    return replace(head, reuse=load_head_reuse(value) if value.endswith(".json") else reuse_of(value))
