"""What a user is told of conditions that were taken for many, and of loops that read most rows."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor

import marche_fx
from marche_fx.lazy.tensor import resolved
from tests.loops import models
from tests.runtime.telling import made, told

PROMPT = 40


def under_two_conditions(*, named: bool) -> Any:
    """As GenMol: guided by a second call under a prompt of which other words are masked in every step."""

    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        hidden = torch.rand(PROMPT, generator=torch.Generator().manual_seed(number)) < 0.5
        text = torch.full_like(ids, models.MASK)
        text[:, : PROMPT + number] = torch.arange(PROMPT + number) % models.MASK
        poor = text.clone()
        poor[:, :PROMPT][:, hidden] = models.MASK
        found = []
        for name, own in (("some", text), ("none", poor)):
            with marche_fx.stream(name) if named else contextlib.nullcontext():
                found.append(resolved(model(own)[:, PROMPT + number :] + 0))
        return 2 * found[0] - found[1]

    return step


def test_conditions_that_are_taken_for_many_are_to_be_named() -> None:
    (message,) = told(made(), under_two_conditions(named=False))
    assert "were taken for the first ones under further conditions" in message
    assert "`with marche_fx.stream(name):` around the calls of each" in message
    assert not told(made(), under_two_conditions(named=True))


def remasked(model: Any, ids: Tensor, number: int) -> Tensor:
    """As the loops that may mask each word again: all words but the prompt's are read in every step."""
    rows: Tensor = model(torch.where(torch.arange(ids.shape[1]) % 4 == number % 4, models.MASK, ids))[:, 20:]
    return resolved(rows.argmax(-1))


def test_a_loop_that_reads_most_rows_is_told_to_bound_them() -> None:
    (message,) = told(made(), remasked)
    assert "the loop asks, at test_parted_advice.py:" in message
    assert "for half of the rows or more in" in message
    assert message.endswith("bound them: refresh=SelectiveRefresh(0.05, queried=0.1)")
    assert not told(made(), remasked, refresh=marche_fx.SelectiveRefresh(0.05, queried=0.1))


def test_most_rows_that_a_query_names_are_told_of_by_its_call() -> None:
    def query(ids: Tensor, **_: Any) -> Tensor:
        return (torch.arange(ids.shape[1]) >= 20).expand(ids.shape)

    (message,) = told(made(), remasked, query=query)
    assert "query= asks, called at test_parted_advice.py:" in message
