"""The trained models that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .checkpoint import load_checkpoint
from .judge import Judge
from .mar import MAR
from .presets import mar_fashion
from .text.model import TextDiffusion
from .text.vocabulary import Tokenizer, read_tokenizer
from .tokens.garments import TokenGarments

WEIGHTS = Path(__file__).parent / "weights"


def load_fashion_mar(**options: Any) -> MAR:
    """`mar_fashion` with trained weights, in eval mode; made by ``marche-fx train``.

    ``options`` are those of `mar_fashion` that no weight depends on, such as ``num_sampling_steps``.
    """
    return load_checkpoint(mar_fashion(**options), WEIGHTS / "mar_fashion.safetensors").eval()


def garment_model(weights: Path | None) -> MAR:
    """The bundled MAR, with other weights if they are given."""
    return load_checkpoint(mar_fashion(), weights).eval() if weights else load_fashion_mar()


def load_judge() -> Judge:
    """The trained `Judge` of garments, in eval mode; made by ``marche-fx train-judge``."""
    return load_checkpoint(Judge(), WEIGHTS / "judge.safetensors").eval()


def load_text_model() -> TextDiffusion:
    """The trained `TextDiffusion` of pieces of English, in eval mode; made by ``marche-fx train-text``.

    It has read the King James Bible, and writes such verses; verses that it has not read cost it 1.41 bits per byte.
    """
    return load_checkpoint(TextDiffusion(), WEIGHTS / "text.safetensors").eval()


def load_tokenizer() -> Tokenizer:
    """The vocabulary of `load_text_model`, a ``tokenizers.Tokenizer``; that package is needed for it."""
    return read_tokenizer(WEIGHTS / "text_vocabulary.json")


def load_garment_tokens() -> TokenGarments:
    """The trained `TokenGarments`, in eval mode; made by ``python -m marche_fx.models.tokens``.

    Its ``maskgit`` writes the codes that its ``tokenizer`` decodes to garments.
    """
    return load_checkpoint(TokenGarments(), WEIGHTS / "garment_tokens.safetensors").eval()
