"""Which session a call belongs to: generators, pools of threads, and sessions that are entered again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.open_sessions import IN_GENERATORS, OPEN, current_session
from tests.networks import Transformer
from tests.sessions import D, N, steps


class Looping(nn.Module):
    """A model with loops of its own, that yield."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(N, D, 2, depth=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def generate(self, steps: list[Tensor]) -> Iterator[Tensor]:
        for x in steps:
            yield self(x)[:, 8:12]

    async def stream(self, steps: list[Tensor]) -> AsyncIterator[Tensor]:
        for x in steps:
            await asyncio.sleep(0)
            yield self(x)[:, 8:12]

    async def decode(self, steps: list[Tensor]) -> Tensor:
        found = []
        for x in steps:
            await asyncio.sleep(0)
            found.append(self(x)[:, 8:12])
        return torch.stack(found)


@pytest.fixture(scope="module")
def optimized() -> Looping:
    torch.manual_seed(0)
    model = Looping().eval().requires_grad_(False)
    loops = ("generate", "stream", "decode")
    return marche_fx.transform(model, loop=loops, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)


def loop(optimized: nn.Module, seed: int) -> Iterator[Tensor]:
    with marche_fx.decoding(optimized):
        for x in steps(seed=seed):
            yield optimized(x)[:, 8:12].clone()


def alone(optimized: nn.Module, seed: int) -> Tensor:
    """What a loop gives that nobody interrupts."""
    with marche_fx.decoding(optimized):
        found = torch.stack([optimized(x)[:, 8:12].clone() for x in steps(seed=seed)])
    session = optimization_of(optimized).last_session
    assert session is not None
    assert any(own.active < N for own in session.records), "it must compute fewer rows to be of use here"
    return found


def is_exact(optimized: nn.Module) -> bool:
    (x, *_) = steps(seed=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimization_of(optimized).steps["forward"], "calls_outside", 0)
        assert current_session(optimization_of(optimized)) is None
        return torch.equal(optimized(x) + 0, optimization_of(optimized).model(x))


def turns(first: Iterator[Tensor], second: Iterator[Tensor], between: Callable[[], Any]) -> list[Tensor]:
    found: list[list[Tensor]] = [[], []]
    for pair in zip(first, second):
        between()
        for own, value in zip(found, pair):
            own.append(value)
    return [torch.stack(own) for own in found]


def test_generators_in_turn_do_not_share_a_session(optimized: Looping) -> None:
    expected = [alone(optimized, seed) for seed in (1, 2)]
    found = turns(loop(optimized, 1), loop(optimized, 2), lambda: is_exact(optimized))
    assert all(map(torch.equal, found, expected))
    assert is_exact(optimized), "no session is left open"
    assert not OPEN.get()


def test_a_generator_that_is_left_half_way_leaves_nothing(optimized: Looping) -> None:
    unfinished = loop(optimized, 1)
    next(unfinished)
    assert IN_GENERATORS
    unfinished.close()  # type: ignore[attr-defined]
    assert not IN_GENERATORS
    unfinished = loop(optimized, 1)
    next(unfinished)
    del unfinished
    assert not IN_GENERATORS


def test_a_generator_may_be_advanced_by_any_thread(optimized: Looping) -> None:
    expected, own = alone(optimized, 1), loop(optimized, 1)
    found = []
    for _ in range(len(steps(seed=1))):
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(next, own).result())
    assert next(own, None) is None
    assert torch.equal(torch.stack(found), expected)


def test_a_session_opened_around_generators_stays_that_of_others(optimized: Looping) -> None:
    expected = [alone(optimized, seed) for seed in (1, 2)]
    own, found = loop(optimized, 1), []
    with marche_fx.decoding(optimized) as session:
        outer = []
        for x in steps(seed=2):
            found.append(next(own))
            outer.append(optimized(x)[:, 8:12].clone())
        assert len(session.records) == len(outer)
    assert torch.equal(torch.stack(found), expected[0])
    assert torch.equal(torch.stack(outer), expected[1])


def test_a_session_inside_of_a_step_of_a_generator_is_the_innermost(optimized: Looping) -> None:
    expected = [alone(optimized, seed) for seed in (1, 2)]

    def nesting() -> Iterator[Tensor]:
        with marche_fx.decoding(optimized):
            for x in steps(seed=1):
                assert torch.equal(alone(optimized, 2), expected[1])
                yield optimized(x)[:, 8:12].clone()

    assert torch.equal(torch.stack(list(nesting())), expected[0])


@contextmanager
def my_session(optimized: nn.Module) -> Iterator[None]:
    with marche_fx.decoding(optimized):
        yield


def test_a_context_manager_of_the_users_own_opens_a_session_for_its_block(optimized: Looping) -> None:
    expected = alone(optimized, 1)
    with my_session(optimized):
        assert torch.equal(torch.stack([optimized(x)[:, 8:12].clone() for x in steps(seed=1)]), expected)

    def inside() -> Iterator[Tensor]:
        with ExitStack() as stack:
            stack.enter_context(my_session(optimized))
            for x in steps(seed=1):
                yield optimized(x)[:, 8:12].clone()

    for value, right in zip(inside(), expected, strict=True):
        assert torch.equal(value, right)
        assert current_session(optimization_of(optimized)) is None


@torch.no_grad()
def test_loops_that_yield_are_sessions(optimized: Looping) -> None:
    expected = [alone(optimized, seed) for seed in (1, 2)]
    found = turns(optimized.generate(steps(seed=1)), optimized.generate(steps(seed=2)), lambda: is_exact(optimized))
    assert all(map(torch.equal, found, expected))

    async def both() -> list[Tensor]:
        first, second = optimized.stream(steps(seed=1)), optimized.stream(steps(seed=2))
        pairs = [(await anext(first), await anext(second)) for _ in steps(seed=1)]
        return [torch.stack(own) for own in zip(*pairs)]

    assert all(map(torch.equal, asyncio.run(both()), expected))

    async def gathered() -> list[Tensor]:
        return list(await asyncio.gather(optimized.decode(steps(seed=1)), optimized.decode(steps(seed=2))))

    assert all(map(torch.equal, asyncio.run(gathered()), expected))
    assert not IN_GENERATORS


def test_a_session_may_be_entered_again_from_any_thread(optimized: Looping) -> None:
    expected, generation = alone(optimized, 1), marche_fx.session(optimized)
    found = []

    def step(x: Tensor) -> None:
        with generation:
            found.append(optimized(x)[:, 8:12].clone())

    for number, x in enumerate(steps(seed=1)):
        if number % 2:
            step(x)
        else:
            thread = threading.Thread(target=step, args=(x,))
            thread.start()
            thread.join()
        assert is_exact(optimized), "outside of it calls are exact"
    assert torch.equal(torch.stack(found), expected)
    generation.close()
    session = optimization_of(optimized).last_session
    assert session is not None
    assert len(session.records) == len(found)
    assert not session.states


def test_two_threads_at_once_are_refused(optimized: Looping) -> None:
    generation, inside, done = marche_fx.session(optimized), threading.Event(), threading.Event()

    def hold() -> None:
        with generation:
            inside.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with pytest.raises(marche_fx.ArgumentError, match="two threads"), generation:
        pass
    with pytest.raises(marche_fx.ArgumentError, match="entered"):
        generation.close()
    done.set()
    thread.join()


def test_sessions_may_end_in_any_order(optimized: Looping) -> None:
    first, second = marche_fx.decoding(optimized), marche_fx.decoding(optimized)
    one, other = first.__enter__(), second.__enter__()
    assert current_session(optimization_of(optimized)) is other
    first.__exit__(None, None, None)
    assert current_session(optimization_of(optimized)) is other
    second.__exit__(None, None, None)
    assert current_session(optimization_of(optimized)) is None
    assert one is not other
