"""Decode a batch of prompts under a variant, and count what that took."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...api.decoding import decoding
from ...api.transform import transform
from ...lazy.tensor import resolved
from ...models.parallel_decoding import Denoiser
from ...models.text import TextDiffusion
from ...reporting.report import report
from .loops import Loop
from .variants import Variant


@dataclass(frozen=True)
class Decoded:
    """Answers ``[B, answer]``; the other figures are those of a `Line`."""

    answers: Tensor
    rows: float
    results: float
    flops: float
    seconds: float


class Decoder:
    """A variant of a loop, captured once.

    Times are those of the processor, all threads together: what else runs on the machine matters less to them.
    """

    def __init__(self, model: TextDiffusion, loop: Loop, variant: Variant) -> None:
        self.model = model
        self.loop = loop
        self.variant = variant
        self.policy = None if variant.policy is None else variant.policy(loop)
        self.given: Any = model
        self.is_captured = False
        if self.policy is not None:
            query = None if variant.query is None else variant.query(loop, model.mask_id)
            # What a policy says of rows that moved holds for numbers; pieces are others or the same.
            ids = {"ids": math.inf} if self.policy.tolerance == math.inf else None
            self.given = transform(model, refresh=self.policy, query=query, tolerance=ids, compile=False)

    def decode(self, prompt: Tensor, seed: int) -> Decoded:
        """The answers to ``prompt [B, P]``."""
        if self.policy is None:
            answers, seconds = self.run(self.model, prompt, seed)
            share = 1 / self.variant.fewer
            return Decoded(answers, share, share, share, seconds)
        given = taken_whole(self.given, self.policy) if self.variant.whole else self.given
        with warnings.catch_warnings():
            # Old rows, and rows that are not recomputed, are what is studied.
            warnings.simplefilter("ignore")
            if not self.is_captured:
                self.capture(prompt)
            with decoding(self.given):
                answers, seconds = self.run(given, prompt, seed)
        session = report(self.given).session
        assert session is not None
        whole = self.loop.calls * self.loop.tokens
        read = sum(call.read for call in session.choices)  # of each sample
        flops = session.flops_ratio / self.variant.fewer
        return Decoded(answers, session.rows_ratio / self.variant.fewer, read / whole, flops, seconds)

    def capture(self, prompt: Tensor) -> None:
        """What happens once: it is no part of a decoding."""
        ids = torch.nn.functional.pad(prompt, (0, self.loop.answer), value=self.model.mask_id)
        with torch.no_grad(), decoding(self.given):
            self.given(ids)[:, -1:].argmax(-1).sum().item()
        self.is_captured = True

    def run(self, given: Denoiser, prompt: Tensor, seed: int) -> tuple[Tensor, float]:
        began = time.process_time()
        answers = self.loop.decode(given, prompt, self.model.mask_id, seed, self.variant.fewer)
        # The last step's pieces may wait to be read, and a session that ends first computes all that nobody has read.
        read = torch.tensor(answers.tolist())
        return read, time.process_time() - began


def taken_whole(given: Denoiser, policy: object) -> Denoiser:
    """The step with all rows of its results as old as they are; a policy that has a method ``saw`` is told of them."""
    saw: Callable[[Tensor], None] | None = getattr(policy, "saw", None)

    def step(ids: Tensor) -> Tensor:
        logits: Tensor = resolved(given(ids))
        if saw is not None:
            saw(logits)
        return logits

    return step
