"""The decoding loops of the study, and what each of them reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...models.text import generate, generate_in_parallel
from ..study import Query


class MaskedDenoiser(Protocol):
    """A `TextDiffusion`, or what is called as one."""

    mask_id: int

    def __call__(self, ids: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Loop:
    """A way to decode ``answer`` pieces behind ``prompt`` others.

    Attributes:
        prompts: so many are decoded unless more are asked for.
        block: pieces that are decoded together; all of the answer in MaskGIT's loop, which knows no blocks.
        steps: of a block. temperature: of the pieces drawn.
        remasking: which predictions of LLaDA's loop become masks again; None for MaskGIT's loop.
    """

    name: str
    prompts: int
    prompt: int = 128
    answer: int = 128
    block: int = 32
    steps: int = 32
    temperature: float = 0.0
    remasking: str | None = "low_confidence"

    @property
    def tokens(self) -> int:
        return self.prompt + self.answer

    @property
    def calls(self) -> int:
        """Steps of the whole answer."""
        return self.answer // self.block * self.steps

    def decode(self, model: MaskedDenoiser, prompt: Tensor, seed: int, fewer: int = 1) -> Tensor:
        """The answers ``[B, answer]`` to prompts ``[B, prompt]``, in one of ``fewer`` of the steps."""
        generator = torch.Generator().manual_seed(seed)
        if self.remasking is None:
            ids = generate_in_parallel(
                model,
                prompt,
                self.answer,
                mask_id=model.mask_id,
                steps=self.steps // fewer,
                temperature=self.temperature,
                generator=generator,
            )
        else:
            ids = generate(
                model,
                prompt,
                self.answer,
                mask_id=model.mask_id,
                block_length=self.block,
                steps_per_block=self.steps // fewer,
                temperature=self.temperature,
                remasking=self.remasking,
                generator=generator,
            )
        return ids[:, self.prompt :]

    def in_block(self, mask_id: int) -> Query:
        """All tokens of the block that is being decoded."""

        def query(ids: Tensor) -> Tensor:
            first = (ids[:, self.prompt :] == mask_id).int().argmax(1, keepdim=True)
            begin = self.prompt + first // self.block * self.block
            place = torch.arange(ids.shape[1], device=ids.device)
            return (place >= begin) & (place < begin + self.block)

        return query

    def masked_in_block(self, mask_id: int) -> Query:
        """Those of them that are masks, which is all that the loop reads."""
        in_block = self.in_block(mask_id)
        return lambda ids: in_block(ids) & (ids == mask_id)


LOOPS = {
    loop.name: loop
    for loop in (
        Loop("low-confidence", prompts=16),
        Loop("random", prompts=8, temperature=0.8, remasking="random"),
        Loop("maskgit", prompts=16, block=128, temperature=1.0, remasking=None),
        Loop("long", prompts=4, prompt=512, answer=256),
    )
}
