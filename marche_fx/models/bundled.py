"""The trained models that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .checkpoint import load_checkpoint
from .emoji.autoencoder import AUTOENCODER_FILE, Autoencoder
from .emoji.judge import emoji_judge
from .emoji.names import KINDS_FILE, Kind
from .judge import JUDGE_FILE, Judge
from .mar import MAR
from .presets import mar_emoji, mar_fashion
from .text.model import TextDiffusion
from .text.vocabulary import Tokenizer, read_tokenizer
from .tokens.garments import TokenGarments
from .train import WEIGHTS_FILE

WEIGHTS = Path(__file__).parent / "weights"
EMOJI_WEIGHTS = WEIGHTS / "emoji"
"""What ``python -m marche_fx.models.emoji.training`` wrote; NOTICE.md in it says whose pictures were learnt."""


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


def load_emoji_mar(**options: Any) -> MAR:
    """`mar_emoji` with trained weights, in eval mode; made by ``python -m marche_fx.models.emoji.training``.

    Its labels are those of `load_emoji_kinds`; `load_emoji_autoencoder` makes pictures of the latents that it draws.
    ``options`` are those of `mar_emoji` that no weight depends on, such as ``num_sampling_steps``.
    """
    return load_checkpoint(mar_emoji(**options), EMOJI_WEIGHTS / WEIGHTS_FILE).eval()


def load_emoji_autoencoder() -> Autoencoder:
    """The trained `Autoencoder` of emoji, in eval mode: latents ``[B, 8, 16, 16]``, pictures ``[B, 3, 64, 64]``."""
    return load_checkpoint(Autoencoder(), EMOJI_WEIGHTS / AUTOENCODER_FILE).eval()


def load_emoji_judge() -> Judge:
    """The trained `Judge` of emoji, in eval mode; its classes are the groups of `load_emoji_kinds`, sorted by name."""
    return load_checkpoint(emoji_judge(), EMOJI_WEIGHTS / JUDGE_FILE).eval()


def load_emoji_kinds() -> list[Kind]:
    """Unicode's group and subgroup of each of the 98 labels of `load_emoji_mar`."""
    return [Kind(**kind) for kind in json.loads((EMOJI_WEIGHTS / KINDS_FILE).read_text(encoding="utf-8"))]
