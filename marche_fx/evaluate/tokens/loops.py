"""The decoding loops of the study: MaskGIT's, in more steps and in fewer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...models.fashion import CLASSES
from ...models.tokens import Decoding, generate_codes
from ...models.tokens.decoding import LabelledDenoiser
from ...models.tokens.tokenizer import SIDE


@dataclass(frozen=True)
class GarmentLoop:
    """MaskGIT's loop; ``images`` are decoded unless more are asked for, all classes in turn."""

    name: str
    decoding: Decoding
    images: int = 100

    @property
    def steps(self) -> int:
        return self.decoding.steps

    @property
    def calls(self) -> int:
        return self.steps

    @property
    def tokens(self) -> int:
        return SIDE * SIDE

    @property
    def labels(self) -> Tensor:
        """``[images]``."""
        return torch.arange(self.images) % len(CLASSES)

    def decode(self, model: LabelledDenoiser, labels: Tensor, seed: int, fewer: int = 1) -> Tensor:
        """Codes ``[B, N]`` of images of the classes ``labels [B]``, in one of ``fewer`` of the steps."""
        decoding = replace(self.decoding, steps=self.steps // fewer)
        return generate_codes(model, labels, decoding, generator=torch.Generator(labels.device).manual_seed(seed))


LOOPS = {loop.name: loop for loop in (GarmentLoop(f"{steps}-steps", Decoding(steps=steps)) for steps in (32, 16))}
