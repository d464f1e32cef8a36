"""Operators of several steps of a loop: what runs when, what is kept, and how deep it may get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marche_fx.lazy import operators
from marche_fx.lazy.geometry import Geometry
from marche_fx.lazy.tensor import MOST_CALLS, LateTensor, resolved, values_of
from tests.lazy.test_operators import IDS
from tests.lazy.test_writes import MASK, B, N, PartialStep, V


def llada(z: Tensor, masked: Tensor, ids: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """What LLaDA's loop makes of logits: the most confident of the masked tokens before ``end``, and their words."""
    noisy = z.to(torch.float64).exp() / (-torch.log(torch.rand_like(z, dtype=torch.float64)))
    words = noisy.argmax(-1)
    confidence = torch.gather(z.softmax(-1), -1, words.unsqueeze(-1)).squeeze(-1)
    confidence[:, end:] = -torch.inf
    words = torch.where(masked, words, ids)
    confidence = torch.where(masked, confidence, -torch.inf)
    chosen = torch.zeros_like(words, dtype=torch.bool)
    for sample in range(len(words)):
        chosen[sample, confidence[sample].topk(1).indices] = True
    return chosen, words[chosen]


def test_masks_bound_what_is_computed() -> None:
    step = PartialStep()
    found = []
    for z in (step.late(), step.exact()):
        torch.manual_seed(0)
        found.append(llada(z, MASK, IDS, end=6))
    assert all(map(torch.equal, *found))
    assert torch.equal(step.done, MASK & (torch.arange(N) < 6))


def test_later_steps_of_a_loop_only_look_up_how_their_rows_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("found out again")

    llada(PartialStep(0).late(), MASK, IDS, end=6)
    monkeypatch.setattr(operators, "found_plan", refuse)
    monkeypatch.setattr(Geometry, "found_view", refuse)
    step, found = PartialStep(1), []
    for z in (step.late(), step.exact()):
        torch.manual_seed(0)
        found.append(llada(z, MASK, IDS, end=6))
    assert all(map(torch.equal, *found))


def test_equal_numbers_of_other_kinds_are_other_arguments() -> None:
    words, exact = PartialStep().late().argmax(-1), PartialStep().exact().argmax(-1)
    for number in (1, 1.0, True):
        assert (words * number).dtype == (exact * number).dtype
        assert torch.equal((words * number)[MASK], (exact * number)[MASK])


def test_rows_that_a_mask_names_are_computed_however_many_they_are() -> None:
    step, most = PartialStep(), torch.arange(N).expand(B, N) > 0
    assert torch.equal(resolved(torch.where(most, step.late().amax(-1), 0.0)) != 0, most)
    assert torch.equal(step.done, most)


def test_a_step_runs_once_for_all_samples() -> None:
    step = PartialStep()
    z = torch.where(MASK, step.late().amax(-1), 0.0)
    z[0].sum()
    assert torch.equal(step.done, MASK)


def test_what_is_chosen_of_rows_that_are_computed_is_there() -> None:
    """So that the next step's masks are known."""
    step = PartialStep()
    words = step.late().argmax(-1)
    assert isinstance(torch.where(MASK, words, IDS), LateTensor)
    words[MASK]
    ids = torch.where(MASK, words, IDS)
    assert not isinstance(ids, LateTensor)
    assert torch.equal(ids, torch.where(MASK, step.exact().argmax(-1), IDS))
    assert isinstance(torch.where(~MASK, words, IDS), LateTensor)


def test_operands_are_as_they_were_then() -> None:
    step, bias, mask = PartialStep(), torch.ones(V).double(), MASK.clone()
    z = torch.where(mask[..., None], step.late() + bias, 0.0)
    bias.zero_()
    mask.fill_(True)
    assert torch.equal(z[MASK], step.exact()[MASK] + 1)
    assert not z[~MASK].any()


def test_what_goes_on_from_step_to_step_does_not_hold_the_steps() -> None:
    """Ids that late words are put into are read by the next call."""
    ids, steps = IDS.clone(), []
    for number in range(40):
        step = PartialStep(number)
        ids = torch.where(MASK, step.late().argmax(-1), ids)
        values_of(ids)
        steps.append(step)
    assert not any(view() is not None and view().memory.expression.sources for view in steps[0].views)
    assert torch.equal(ids + 0, torch.where(MASK, steps[-1].exact().argmax(-1), IDS))


def test_what_a_loop_makes_of_its_own_values_again_and_again_is_computed_before_it_is_too_deep() -> None:
    state, exact = torch.zeros(B, N, V).double(), torch.zeros(B, N, V).double()
    for number in range(40):
        step = PartialStep(number)
        step.done.fill_(True)
        for _ in range(10):
            state, exact = (0.9 * state).clamp(-1, 1), (0.9 * exact).clamp(-1, 1)
        # The new result meets what is of too many calls, the state goes on without it.
        state, exact = (step.late() - state) + 0.5 * state, (step.exact() - exact) + 0.5 * exact
    assert torch.equal(resolved(state), exact)


def test_an_average_over_steps_holds_few_of_them() -> None:
    average, steps = torch.zeros(B, N, V).double(), []
    for number in range(20):
        step = PartialStep(number)
        average = 0.5 * average + step.late()
        steps.append(step)
    held = [step for step in steps if any(view() is not None for view in step.views)]
    assert len(held) <= MOST_CALLS


def test_a_mask_of_what_is_computed_bounds_the_next_step() -> None:
    """As where a loop asks which ids are masked before it calls the model."""
    first, second = PartialStep(0), PartialStep(1)
    words = torch.where(MASK, first.late().argmax(-1), IDS)
    is_one = words == 1
    resolved(words)
    found = torch.where(is_one, second.late().argmax(-1), words)
    assert torch.equal(
        resolved(found) + 0, torch.where(resolved(words) == 1, second.exact().argmax(-1), resolved(words))
    )
    assert torch.equal(second.done, resolved(words) == 1)


def test_what_dies_unread_costs_nothing() -> None:
    step = PartialStep()
    z = step.late().softmax(-1)
    z[:, 3] = 0.0
    del z
    assert step.last is None
    assert not any(view() is not None for view in step.views)
