"""Decode a batch under a variant, and count what that took."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor, nn

from ...api.decoding import decoding
from ...api.transform import transform
from ...lazy.tensor import resolved
from ...reporting.report import report
from .loops import AnyLoop
from .variants import Variant


@dataclass(frozen=True)
class Decoded:
    """Answers ``[B, A]``; the other figures are those of a `Line`."""

    answers: Tensor
    rows: float
    results: float
    flops: float
    seconds: float


class Decoder(Generic[AnyLoop]):
    """A variant of a loop, captured once; the model's ``mask_id`` is the number of the mask.

    Times are those of the processor, all threads together: what else runs on the machine matters less to them.
    """

    def __init__(self, model: nn.Module, loop: AnyLoop, variant: Variant[AnyLoop]) -> None:
        self.model = model
        self.loop = loop
        self.variant = variant
        self.policy = None if variant.policy is None else variant.policy(loop)
        self.given: Any = model
        self.is_captured = False
        if self.policy is not None:
            mask_id: Any = model.mask_id
            query = None if variant.query is None else variant.query(loop, mask_id)
            # What a policy says of rows that moved holds for numbers; pieces are others or the same.
            ids = {"ids": math.inf} if self.policy.tolerance == math.inf else None
            self.given = transform(model, refresh=self.policy, query=query, tolerance=ids, compile=False)

    def decode(self, given: Tensor, seed: int) -> Decoded:
        """The answers to what is given, ``[B, ...]``."""
        if self.policy is None:
            answers, seconds = self.run(self.model, given, seed)
            share = 1 / self.variant.fewer
            return Decoded(answers, share, share, share, seconds)
        step = TakenWhole(self.given, self.policy) if self.variant.whole else self.given
        with warnings.catch_warnings():
            # Old rows, and rows that are not recomputed, are what is studied.
            warnings.simplefilter("ignore")
            if not self.is_captured:
                self.capture(given)
            with decoding(self.given):
                answers, seconds = self.run(step, given, seed)
        session = report(self.given).session
        assert session is not None
        whole = self.loop.calls * self.loop.tokens
        read = sum(call.read for call in session.choices)  # of each sample
        flops = session.flops_ratio / self.variant.fewer
        return Decoded(answers, session.rows_ratio / self.variant.fewer, read / whole, flops, seconds)

    def capture(self, given: Tensor) -> None:
        """What happens once, in as few steps as there can be: it is no part of a decoding."""
        with decoding(self.given):
            self.loop.decode(self.given, given, 0, fewer=self.loop.steps)
        self.is_captured = True

    def run(self, step: Any, given: Tensor, seed: int) -> tuple[Tensor, float]:
        began = time.process_time()
        answers = self.loop.decode(step, given, seed, self.variant.fewer)
        # The last step's pieces may wait to be read, and a session that ends first computes all that nobody has read.
        read = torch.tensor(answers.tolist())
        return read, time.process_time() - began


class TakenWhole:
    """The step with all rows of its results as old as they are; a policy that has a method ``saw`` is told of them."""

    def __init__(self, given: Any, policy: object) -> None:
        self.given = given
        self.saw: Callable[[Tensor], None] | None = getattr(policy, "saw", None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.given, name)

    def __call__(self, *args: Any) -> Tensor:
        logits: Tensor = resolved(self.given(*args))
        if self.saw is not None:
            self.saw(logits)
        return logits
