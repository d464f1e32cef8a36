"""Caches that others wrote for masked-diffusion language models, as refresh policies, and one that goes between.

Each of theirs computes a chosen set of tokens in every step and nothing else, so what would be computed because it
changed is held back by an infinite ``tolerance`` where theirs does not compute it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...refresh import History, InputDrift, Refresh, RefreshPolicy, Signal
from ...refresh.history import everything


@dataclass(frozen=True, repr=False)
class DualCache(RefreshPolicy):
    """Everything at the beginning of a block, then the tokens of the block alone (Fast-dLLM, arXiv 2505.22618).

    With a ``query`` of the block's tokens, which it recomputes in every step. ``steps``: of a block.
    """

    steps: int = 32

    def choose(self, history: History) -> Refresh:
        return everything(history) if history.step % self.steps == 0 else Refresh(0, history.age)


@dataclass(repr=False, eq=False)
class NewestRefresh(RefreshPolicy):
    """Everything at the beginning of a block, then the masks that the loop reads and the newest pieces.

    `DualCache` without a ``query``, and without the older pieces of the block.

    Args:
        steps: of a block. count: of the pieces that were decoded last.
    """

    steps: int = 32
    count: int = 8
    since: Tensor | None = field(default=None, init=False)

    def choose(self, history: History) -> Refresh:
        if history.step % self.steps == 0 or self.since is None:
            self.since = torch.full_like(history.age, math.inf)
            return everything(history)
        assert history.changed is not None
        self.since = (self.since + 1).masked_fill(history.changed, 0.0)
        return Refresh(self.count, -self.since)


@dataclass(frozen=True, repr=False)
class ValueCache(RefreshPolicy):
    """The prompt now and then, the answer more often, in between those that moved most (dLLM-Cache, arXiv 2506.06295).

    As in its code, the first layer runs on all tokens in every step, and all others keep what they had. Its measure is
    the cosine of each layer's values; here it is how far the input of the second layer moved, of which these values
    are made, and the tokens are the same in all layers. Results are taken as a whole.

    Args:
        prompt: pieces of the prompt. prompt_every, answer_every: steps. share: of the answer, in the other steps.
    """

    prompt: int = 0
    prompt_every: int = 50
    answer_every: int = 7
    share: float = 0.25
    tolerance: float = math.inf
    exact_sites: int = 1
    signals: tuple[Signal, ...] = field(default=(InputDrift(),), repr=False)

    def choose(self, history: History) -> Refresh:
        answer = history.tokens - self.prompt
        renews_prompt, renews_answer = history.step % self.prompt_every == 0, history.step % self.answer_every == 0
        drift = history.latest(InputDrift())
        if (renews_prompt and renews_answer) or drift is None:
            return everything(history)
        in_prompt = torch.arange(history.tokens, device=history.age.device) < self.prompt
        priority = drift.masked_fill(in_prompt, math.inf if renews_prompt else -math.inf)
        count = answer if renews_answer else int(answer * self.share)
        return Refresh(count + (self.prompt if renews_prompt else 0), priority)


@dataclass(repr=False, eq=False)
class MaxLogitCache(RefreshPolicy):
    """The first steps and every few in full, in between those with the lowest largest logit (Lumina-DiMOO's ML-Cache).

    Read in Alpha-VLLM/Lumina-DiMOO, generators/image_generation_generator.py. Results are taken as a whole, and it is
    told the largest logits after each step.

    Args:
        steps: of a whole decoding. full: share of them, the first ones, in full. every: so many after them is in full.
        share: of all tokens, in the other steps.
    """

    steps: int = 32
    full: float = 0.3
    every: int = 5
    share: float = 0.1
    tolerance: float = math.inf
    largest: Tensor | None = field(default=None, init=False)

    def saw(self, logits: Tensor) -> None:
        """Take in the results ``[B, N, V]`` of a step."""
        self.largest = logits.amax(-1)

    def choose(self, history: History) -> Refresh:
        after = history.step - int(self.steps * self.full)
        if after <= 0 or after % self.every == 0 or self.largest is None:
            return everything(history)
        return Refresh(round(self.share * history.tokens), -self.largest)
