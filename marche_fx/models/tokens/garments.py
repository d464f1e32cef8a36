"""The two models that belong together, as one file holds them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .decoding import Decoding, generate_codes
from .model import MaskGIT
from .tokenizer import ImageTokenizer


class TokenGarments(nn.Module):
    """Garments of ten classes as 14x14 codes: a tokenizer, and the MaskGIT that writes its codes."""

    def __init__(self, tokenizer: ImageTokenizer | None = None, maskgit: MaskGIT | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer or ImageTokenizer()
        self.maskgit = maskgit or MaskGIT(self.tokenizer.codes)

    def sample(
        self, labels: Tensor, decoding: Decoding | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Images ``[B, 1, 28, 28]`` in -1..1 of the classes ``labels [B]``."""
        return self.tokenizer.decode(generate_codes(self.maskgit, labels, decoding, generator=generator))
