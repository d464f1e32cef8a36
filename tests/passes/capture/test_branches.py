"""Branches on arguments are decided with their values, and asked again at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import CaptureError
from tests.around import TOKENS, Around, X, captures, optimize, refused, same

ALL, SOME = torch.ones(2, TOKENS), torch.ones(2, TOKENS)
SOME[0, 15:] = 0


def contains(mask: Tensor) -> bool:
    return 0.0 in mask


def any_hidden(mask: Tensor) -> bool:
    return bool((mask == 0).any())


def written_in_place(mask: Tensor) -> bool:
    hidden = torch.zeros(2, TOKENS, dtype=torch.bool)
    hidden[:, 3:] = mask[:, 3:] == 0
    hidden.logical_not_()
    return not hidden[:, 3:].all()


def by_item(mask: Tensor) -> bool:
    return mask.sum(1).min().item() < TOKENS


def by_list(mask: Tensor) -> bool:
    return min(mask.sum(1).tolist()) < TOKENS


def by_equal(mask: Tensor) -> bool:
    return not torch.equal(mask, torch.ones_like(mask))


def by_parts(mask: Tensor) -> bool:
    first, second = mask.chunk(2, 1)
    return bool(first.min() < 1) or int(second.min()) < 1


QUESTIONS = [contains, any_hidden, written_in_place, by_item, by_list, by_equal, by_parts]


@pytest.mark.parametrize("question", QUESTIONS)
@torch.no_grad()
def test_a_branch_on_an_argument_costs_a_capture_for_each_outcome(question: Callable[[Tensor], bool]) -> None:
    def forward(model: Any, x: Tensor, mask: Tensor) -> Tensor:
        return model.inner(x * mask[..., None] if question(mask) else x + 1)

    model = Around(forward)
    optimized = optimize(model)
    for masks in ((ALL, ALL), (SOME, ALL, SOME)):
        with marche_fx.decoding(optimized):
            for mask in masks:
                assert same(optimized(X, mask), model(X, mask))
    assert captures(optimized) == 2


@torch.no_grad()
def test_a_branch_on_an_argument_may_stand_behind_a_write_into_what_is_computed() -> None:
    def forward(model: Any, x: Tensor, mask: Tensor) -> Tensor:
        x = model.inner(x)
        x[:, :, :4] = x[:, :, :4].sin()
        x.mul_(2)
        return x * mask[..., None] if any_hidden(mask) else x + 1

    model = Around(forward)
    optimized = optimize(model)
    for mask in (ALL, SOME):
        assert same(optimized(X, mask), model(X, mask))


class Weighs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


COMPUTED: list[Callable[[Any, Tensor], Any]] = [
    lambda model, x: (x * model.other.weight).sum() > 0,
    lambda model, x: model.inner(x).sum() > 0,
    lambda model, x: torch.rand(()) > 0.5,
    lambda model, x: torch.zeros(2).copy_(model.other.weight).sum() > 0,
    lambda model, x: written_through_a_view(torch.zeros(2, 3), model.other.weight).sum() > 0,
]


def written_through_a_view(known: Tensor, weight: Tensor) -> Tensor:
    known[1].view_as(weight.expand(3)).copy_(weight)
    return known


@pytest.mark.parametrize("computed", COMPUTED)
def test_branches_on_computed_values_stay_refused(computed: Callable[[Any, Tensor], Any]) -> None:
    model = Around(lambda model, x: model.inner(x) if computed(model, x) else -model.inner(x), other=Weighs())
    refused(model, CaptureError, r"\(test_branches\.py:\d+, .*(?s:.)*torch\.where", X)
