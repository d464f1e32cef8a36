"""What the schedules of others compute in each step, as their papers and code say."""

from __future__ import annotations

from collections.abc import Callable

import torch

import marche_fx
from marche_fx import RefreshPolicy
from marche_fx.evaluate.study import DualCache, MaxLogitCache, NewestRefresh, Query, ValueCache, Variant
from marche_fx.evaluate.study.generation import Decoder
from marche_fx.evaluate.text import VARIANTS, Loop
from marche_fx.evaluate.text.prompts import load_prompts
from marche_fx.evaluate.text.variants import in_block
from marche_fx.reporting.step_choices import StepChoices
from tests.evaluate.text.short import MODEL, short

PROMPT = load_prompts(2, 32)


def steps_of(
    name: str, policy: RefreshPolicy, query: Callable[[Loop, int], Query] | None = None, *, whole: bool = False
) -> tuple[StepChoices, ...]:
    """What each step of a loop computes, of 32 pieces given and 32 in four blocks (MaskGIT: one) of eight steps."""
    variant: Variant[Loop] = Variant(lambda loop: policy, query, whole)
    decoder = Decoder(MODEL, short(name), variant)
    decoder.decode(PROMPT, seed=0)
    session = marche_fx.report(decoder.given).session
    assert session is not None
    return session.choices


def test_the_dual_cache_computes_all_at_the_beginning_of_a_block_and_then_the_block() -> None:
    choices = steps_of("low-confidence", DualCache(8), in_block)
    assert [own.active for own in choices] == ([64] + [8] * 7) * 4
    for step, own in enumerate(choices):
        block = 32 + step // 8 * 8
        if step % 8:
            assert set((own.reasons[0] > 0).nonzero().flatten().tolist()) == set(range(block, block + 8))


def test_the_newest_pieces_are_refreshed_beside_the_masks_of_the_block() -> None:
    choices = steps_of("low-confidence", NewestRefresh(8, count=2))
    last = choices[15]
    assert (choices[8].active, last.active) == (64, 8)
    # One mask is left of the second block; what the step before revealed has changed, and two before it are newest.
    text = last.tokens_text()[0]
    assert (text.count("q"), text.count("c")) == (1, 1)
    assert {place for place, letter in enumerate(text) if letter in "cqr"} <= set(range(40, 48))


def test_the_value_cache_renews_prompt_and_answer_by_turns_and_a_quarter_in_between() -> None:
    choices = steps_of("low-confidence", ValueCache(32, prompt_every=10, answer_every=4), whole=True)
    assert [own.active for own in choices[:9]] == [64, 8, 8, 8, 32, 8, 8, 8, 32]
    assert choices[10].active == 32 + 8
    assert choices[20].active == 64
    prompt, answer = (set(range(begin, begin + 32)) for begin in (0, 32))
    assert computed(choices[4]) == answer
    assert computed(choices[5]) < answer
    assert prompt < computed(choices[10])


def test_the_value_cache_runs_its_first_layer_on_all_tokens() -> None:
    own = steps_of("low-confidence", ValueCache(32), whole=True)[1]
    assert own.active == 8
    assert 1 / 8 < own.flops_ratio < 1 / 8 + 1 / 7


def test_the_largest_logits_keep_their_tokens() -> None:
    policy = MaxLogitCache(steps=8, every=3, share=0.125)
    choices = steps_of("maskgit", policy, whole=True)
    assert [own.active for own in choices] == [64, 64, 64, 8, 8, 64, 8, 8]
    assert policy.largest is not None
    again = policy.choose(marche_fx.History(age=torch.zeros(2, 64), step=3))
    assert again.count == 8
    assert again.priority is not None
    assert torch.equal(again.priority.argmax(1), policy.largest.argmin(1))


def test_every_variant_of_others_takes_the_sizes_of_its_loop() -> None:
    policies = {name: variant.policy(short("low-confidence")) for name, variant in VARIANTS.items() if variant.policy}
    assert policies["Fast-dLLM dual cache"] == DualCache(8)
    assert policies["dLLM-Cache"] == ValueCache(32)
    assert repr(policies["ML-Cache"]) == "MaxLogitCache()"  # 32 steps, its default


def computed(own: StepChoices) -> set[int]:
    return set((own.reasons[0] > 0).nonzero().flatten().tolist())
