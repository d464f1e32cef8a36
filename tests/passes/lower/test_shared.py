"""Modules that differ in sizes only are one compiled graph, and others are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from marche_fx.passes.lower.shared import General, Module, SharedCode, Source, general_module, generalised
from marche_fx.passes.lower.standalone import Ragged
from tests.graphs import capture_function


def module_for(function: Callable[..., Any], length: int) -> Module:
    """``function`` on ``rows [B, A, 4]``, of which A is ragged, and on a cache ``[B, length, 4]``."""
    captured = capture_function(function, torch.ones(2, 3, 4), torch.ones(2, length, 4))
    return Module(captured.graph_module, (Ragged(0, 1, 0),))


def scores(rows: Tensor, cache: Tensor) -> Tensor:
    keys = cache[:, None].expand(2, 3, cache.shape[1], 4)
    return (keys.reshape(2, 3, 4 * cache.shape[1]) * 2)[:, :, 1 : cache.shape[1] - 1]


def test_numbers_that_are_sizes_of_an_input_become_its_sizes() -> None:
    general = generalised(module_for(scores, 12), module_for(scores, 17))
    assert general is not None
    assert general.dims == ((1, 1),)
    assert {*general.sources.values()} == {Source(1, 1), Source(1, 1, factor=4), Source(1, 1, offset=-1)}
    module = general_module(module_for(scores, 12).module, general)
    rows, cache = torch.ones(2, 3, 4), torch.randn(2, 23, 4)
    assert torch.equal(module(rows, cache)[0], scores(rows, cache))


def test_only_what_has_these_sizes_is_an_instance() -> None:
    first, second = module_for(scores, 12), module_for(scores, 17)
    general = generalised(first, second)
    assert general is not None
    assert general.holds_for(first, module_for(scores, 23))
    assert general.holds_for(first, first)
    assert not General().holds_for(first, second)

    def cut(rows: Tensor, cache: Tensor) -> Tensor:
        keys = cache[:, None].expand(2, 3, cache.shape[1], 4)
        return (keys.reshape(2, 3, 4 * cache.shape[1]) * 2)[:, :, 1 : cache.shape[1] - 2]

    assert not general.holds_for(first, module_for(cut, 23))


def test_what_is_no_size_of_an_input_is_not_generalised() -> None:
    def scaled(rows: Tensor, cache: Tensor) -> Tensor:
        return cache * (1 / cache.shape[1])

    def counted(rows: Tensor, cache: Tensor) -> Tensor:
        return cache * cache.shape[1] ** 2

    for function in (scaled, counted):
        assert generalised(module_for(function, 12), module_for(function, 17)) is None
    assert generalised(module_for(scores, 12), module_for(scores, 1)) is None
    assert generalised(module_for(scores, 12), module_for(scaled, 17)) is None


def test_code_is_shared_by_the_modules_that_it_holds_for() -> None:
    shared = SharedCode()
    (first,), (second,), (third,) = (shared.compiled([module_for(scores, length)], 2) for length in (12, 17, 23))
    assert first is not second
    assert second is third
    assert shared.compiled([module_for(scores, 12)], 2) == (first,)
    (other,) = shared.compiled([module_for(lambda rows, cache: cache + 1, 17)], 2)
    assert other not in (first, second)
    assert shared.compiled([module_for(scores, 12)], 4) not in ((first,), (second,))
