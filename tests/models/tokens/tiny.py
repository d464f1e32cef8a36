"""A tokenizer and a MaskGIT small enough to train in a second."""

from __future__ import annotations

from typing import Any

import torch

from marche_fx.models.tokens import ImageTokenizer, MaskGIT, TokenGarments


def tiny_tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(levels=(4, 3), width=8)


def tiny_maskgit(**sizes: Any) -> MaskGIT:
    torch.manual_seed(0)
    return MaskGIT(**{"codes": 12, "width": 32, "depth": 2, "heads": 2, "hidden": 48, **sizes})


def tiny_garments() -> TokenGarments:
    return TokenGarments(tiny_tokenizer(), tiny_maskgit()).eval()
