import pytest
import torch

from marche_fx.evaluate.study.generation import Decoder, TakenWhole
from marche_fx.evaluate.text import LOOPS, VARIANTS
from marche_fx.evaluate.text.prompts import load_prompts
from tests.evaluate.text.short import MODEL, short

PROMPT = load_prompts(2, 32)


@pytest.mark.parametrize("name", LOOPS)
def test_exact_answers_are_the_originals_with_the_same_noise(name: str) -> None:
    original, exact = (Decoder(MODEL, short(name), VARIANTS[own]).decode(PROMPT, 5) for own in ("original", "exact"))
    assert torch.equal(original.answers, exact.answers)
    assert (original.rows, original.results, original.flops) == (1, 1, 1)
    assert (exact.rows, exact.results, exact.flops) == (1, 1, 1)


def test_fewer_steps_cost_their_share() -> None:
    decoder = Decoder(MODEL, short("random"), VARIANTS["a quarter of the steps"])
    found = decoder.decode(PROMPT, 5)
    assert (found.rows, found.results, found.flops) == (0.25, 0.25, 0.25)
    assert not torch.equal(
        found.answers, Decoder(MODEL, short("random"), VARIANTS["original"]).decode(PROMPT, 5).answers
    )


def test_rows_and_logits_are_counted_over_all_of_the_originals() -> None:
    found = Decoder(MODEL, short("low-confidence"), VARIANTS["Fast-dLLM dual cache"]).decode(PROMPT, 5)
    assert found.rows == pytest.approx((64 + 7 * 8) / (8 * 64))
    # Of the first step too only the block's are read.
    assert found.results == pytest.approx(8 * 8 / (8 * 64))
    late = Decoder(MODEL, short("low-confidence"), VARIANTS["blocks in full, newest"]).decode(PROMPT, 5)
    assert late.results < late.rows


def test_another_seed_is_other_noise() -> None:
    decoder = Decoder(MODEL, short("maskgit"), VARIANTS["default"])
    first, second, again = (decoder.decode(PROMPT, seed).answers for seed in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


class Step(torch.nn.Identity):
    mask_id = 7


class Curious:
    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def saw(self, logits: torch.Tensor) -> None:
        self.seen.append(logits)


def test_only_a_policy_that_asks_is_told_of_results() -> None:
    assert TakenWhole(Step(), object())(PROMPT) is PROMPT
    own = Curious()
    assert TakenWhole(Step(), own)(PROMPT) is PROMPT
    assert own.seen == [PROMPT]


def test_a_step_that_is_taken_whole_has_what_the_loop_asks_of_the_model() -> None:
    assert TakenWhole(Step(), object()).mask_id == 7
