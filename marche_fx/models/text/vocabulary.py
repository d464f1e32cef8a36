"""Pieces of words: byte-level BPE (Sennrich et al. 2016), through Hugging Face's ``tokenizers``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ...errors import DatasetError
from ...saving.files import DamagedError, read_sealed_json, write_sealed_json

MASK = "[MASK]"


class Tokenizer(Protocol):
    """What is used of ``tokenizers.Tokenizer``, which is there only where text is trained on or read."""

    def encode_batch(self, input: Sequence[str], /) -> list[Any]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...

    def get_vocab_size(self) -> int: ...

    def to_str(self) -> str: ...


def train_tokenizer(lines: list[str], size: int) -> Tokenizer:
    """A vocabulary of ``size`` pieces that spells any text; its first one is the mask."""
    tokenizers = import_tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[MASK],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((f"{line}\n" for line in lines), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write the vocabulary as its JSON with a digest in it, which `read_tokenizer` checks."""
    write_sealed_json(path, json.loads(tokenizer.to_str()))


def read_tokenizer(path: Path) -> Tokenizer:
    """What `save_tokenizer` wrote.

    Raises:
        DatasetError: there is no such file, or it is not as it was written.
    """
    tokenizers = import_tokenizers()
    try:
        content = read_sealed_json(path)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no vocabulary {path}") from error
    except (OSError, DamagedError) as error:
        raise DatasetError(f"{path} is damaged or no vocabulary of marche_fx") from error
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def import_tokenizers() -> Any:
    """The library, which only text needs."""
    try:
        import tokenizers
    except ImportError as error:
        raise DatasetError("text needs Hugging Face's tokenizers: pip install tokenizers") from error
    return tokenizers
