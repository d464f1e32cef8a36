"""An error at any operator, any call of the package's functions, any stage: nothing is left, and the object works."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx._symbolic_trace import _Patcher

import marche_fx
from marche_fx import OutOfMemoryError
from marche_fx.api.optimization import optimization_of
from marche_fx.api.step import OptimizedStep
from marche_fx.passes.capture import alone
from marche_fx.runtime.open_sessions import IN_GENERATORS, current_session
from tests.around import MOVED, X, same, transformer
from tests.injected import InjectedError, RaisesAt, raising_at_call
from tests.reachable import stand_ins

REFRESH = marche_fx.SelectiveRefresh(0.1, warmup=1)
ERRORS: tuple[type[BaseException], ...] = (InjectedError, KeyboardInterrupt)
UNGUARDED = {"open_sessions.py:__exit__", "open_sessions.py:__enter__"}
"""The first instruction of a ``with`` that is entered or left: nothing in Python is run before it, or after."""


def transformed(model: nn.Module) -> tuple[Any, OptimizedStep]:
    optimized = marche_fx.transform(model, refresh=REFRESH, compile=False)
    return optimized, optimization_of(optimized).steps["forward"]


@torch.no_grad()
def decode(optimized: Any) -> tuple[Tensor, Tensor]:
    """Rows of a step in full, and of one in part that a loop computes something of."""
    with marche_fx.decoding(optimized):
        first = optimized(X)[:, :4] + 0
        second = optimized(MOVED).softmax(-1)[:, 3] + 1
    return first, second


@contextmanager
def nothing_left(step: OptimizedStep) -> Iterator[None]:
    """After what runs inside there is no session, no cache, no mode, no lock, and no patch of a trace."""
    patch, filters = _Patcher.patch_method, [len(logging.getLogger(own).filters) for own in alone.TALKATIVE]
    state = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_rng_state()
    yield
    assert current_session(step.owner) is None
    assert not IN_GENERATORS
    if any(own.has_caches for own in step.programs):
        # The error that was raised holds frames until it is collected.
        gc.collect()
    assert not any(own.has_caches for own in step.programs)
    assert not torch._C._len_torch_dispatch_stack()
    assert not torch._C._len_torch_function_stack()
    assert not step.captures.lock.locked()
    assert _Patcher.patch_method is patch
    assert [len(logging.getLogger(own).filters) for own in alone.TALKATIVE] == filters
    assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == state[:2]
    assert torch.equal(torch.get_rng_state(), state[2])


def is_free(lock: Any) -> bool:
    """Whether another thread could take a lock."""
    found: list[bool] = []

    def take() -> None:
        found.append(lock.acquire(blocking=False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


def test_an_error_at_any_operator_of_a_session_leaves_nothing() -> None:
    """Ctrl-C and another error in turn."""
    optimized, step = transformed(transformer())
    expected = decode(optimized)
    with RaisesAt(None) as every:
        decode(optimized)
    assert every.count > 50
    for number in range(every.count):
        make = ERRORS[number % 2]
        with nothing_left(step), pytest.raises(make), RaisesAt(number, make):
            decode(optimized)
        assert same(decode(optimized), expected), number


def test_an_error_at_any_function_of_a_session_leaves_nothing() -> None:
    """At the first call of each; Ctrl-C and another error in turn."""
    optimized, step = transformed(transformer())
    expected = decode(optimized)
    with raising_at_call(None) as names:
        decode(optimized)
    firsts = {name: number for number, name in reversed([*enumerate(names)])}
    assert len(firsts) > 100
    for turn, (name, number) in enumerate(firsts.items()):
        if name in UNGUARDED:
            continue
        make = ERRORS[turn % 2]
        with nothing_left(step):
            decode_with_error(optimized, number, make)
        assert same(decode(optimized), expected), name


def decode_with_error(optimized: Any, number: int, make: type[BaseException]) -> None:
    """Some errors end in an iterator that Python throws away."""
    with suppress(make), raising_at_call(number, make):
        decode(optimized)


CAPTURES = 10
"""Stages of a capture at which an error is raised: evenly spread over the functions that it calls."""


@pytest.mark.filterwarnings("ignore")
def test_an_error_at_any_stage_of_a_capture_leaves_nothing() -> None:
    model = transformer()
    expected = decode(transformed(model)[0])
    with raising_at_call(None) as names:
        decode(transformed(model)[0])
    firsts = {name: number for number, name in reversed([*enumerate(names)])}
    stages = [own for own in firsts.items() if own[0] not in UNGUARDED][:: max(len(firsts) // CAPTURES, 1)]
    assert len(stages) >= CAPTURES
    optimized, step = transformed(model)
    for turn, (name, number) in enumerate(stages):
        make = ERRORS[turn % 2]
        with nothing_left(step):
            decode_with_error(optimized, number, make)
        assert not stand_ins(model, optimized), name
        assert is_free(compile_lock()), name
        step.captures.programs = type(step.programs)()
    assert same(decode(optimized), expected)


def compile_lock() -> Any:
    from torch._dynamo.convert_frame import compile_lock as found

    return found


def no_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has none.\nmore")


def no_memory_on_the_host() -> BaseException:
    return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 20971520 bytes.")


@pytest.mark.parametrize("make", [no_memory, no_memory_on_the_host])
@torch.no_grad()
def test_without_memory_caches_are_freed_and_the_error_says_what_they_took(make: Callable[[], BaseException]) -> None:
    """At any operator of the second step; the loop goes on in the same session."""
    model = transformer()
    optimized, step = transformed(model)
    expected = decode(optimized)[1]
    (program,) = step.programs
    with marche_fx.decoding(optimized):
        optimized(X).sum()
        with RaisesAt(None) as every:
            optimized(MOVED)[:, 3].clone()
    assert every.count > 20
    outside = 0
    for number in range(0, every.count, 1 if make is no_memory else 9):
        with marche_fx.decoding(optimized):
            optimized(X).sum()
            caches = [weakref.ref(cache) for own in program.states for cache in own.caches]
            assert caches
            with pytest.raises(RuntimeError) as raised, RaisesAt(number, make):
                optimized(MOVED)[:, 3].clone()
            if isinstance(raised.value, OutOfMemoryError):
                # While somebody still looks at the error; a result that was computed before it may be one of them.
                assert sum(own() is not None for own in caches) <= (number > 0.9 * every.count), number
                message = str(raised.value)
                assert "forward of 2 samples of 20 tokens, whose caches take 0.0 MiB" in message
                assert "20.00 MiB" in message or "20971520 bytes" in message
            else:
                outside += 1
            del raised
            assert same(optimized(MOVED).softmax(-1)[:, 3] + 1, model(MOVED).softmax(-1)[:, 3] + 1)
    assert outside < every.count / 20, "operators of the loop's own, between steps"
    assert same(decode(optimized)[1], expected)


@torch.no_grad()
def test_without_memory_in_a_capture_it_is_said_as_such() -> None:
    model = transformer()
    optimized, step = transformed(model)
    told = pytest.raises(OutOfMemoryError, match="no memory is left for a step that is captured")
    with nothing_left(step), marche_fx.decoding(optimized), told, RaisesAt(5, no_memory):
        optimized(X).sum()
    assert same(decode(optimized), decode(transformed(model)[0]))
