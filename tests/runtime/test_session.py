"""Sessions never share a value, and leave nothing behind."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.open_sessions import OPEN, current_session
from tests.networks import Transformer

POLICY = SelectiveRefresh(0.1, warmup=1)


def make() -> nn.Module:
    torch.manual_seed(0)
    return marche_fx.transform(Transformer(30, 16, 2).eval(), refresh=POLICY, compile=False)


class Generation:
    """A loop of its own inputs; `step` runs one decoding step."""

    def __init__(self, optimized: nn.Module, seed: int, samples: int = 2) -> None:
        self.optimized = optimized
        self.generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(samples, 30, 16, generator=self.generator)
        self.results: list[Tensor] = []

    def step(self) -> None:
        with torch.no_grad():
            self.results.append(self.optimized(self.x)[:, 3:6].clone())
        self.x = self.x.clone()
        self.x[:, int(torch.randint(30, (), generator=self.generator))] += 1

    def run(self, steps: int = 5) -> list[Tensor]:
        with marche_fx.decoding(self.optimized):
            for _ in range(steps):
                self.step()
        return self.results


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


def test_two_generations_after_each_other_do_not_meet() -> None:
    optimized = make()
    alone = [Generation(make(), seed).run() for seed in (1, 2)]
    assert same(Generation(optimized, 1).run(), alone[0])
    assert same(Generation(optimized, 2).run(), alone[1])
    assert same(Generation(optimized, 1).run(), alone[0])


def test_two_interleaved_threads_do_not_meet() -> None:
    optimized = make()
    alone = [Generation(make(), seed).run() for seed in (1, 2)]
    together = [Generation(optimized, seed) for seed in (1, 2)]
    turn = threading.Barrier(2)
    failures: list[BaseException] = []

    def run(generation: Generation) -> None:
        try:
            with marche_fx.decoding(optimized):
                for _ in range(5):
                    turn.wait(60)
                    generation.step()
        except BaseException as error:
            failures.append(error)
            turn.abort()

    threads = [threading.Thread(target=run, args=(generation,)) for generation in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for generation, expected in zip(together, alone, strict=True):
        assert same(generation.results, expected)


def test_a_nested_generation_leaves_the_outer_one_alone() -> None:
    optimized = make()
    inner_alone, outer_alone = Generation(make(), 2).run(), Generation(make(), 1).run()
    outer = Generation(optimized, 1)
    with marche_fx.decoding(optimized):
        for number in range(5):
            outer.step()
            if number == 2:
                assert same(Generation(optimized, 2).run(), inner_alone)
    assert same(outer.results, outer_alone)


def test_a_call_without_session_inside_another_models_session_is_exact() -> None:
    one, other = make(), make()
    x = torch.randn(2, 30, 16)
    with torch.no_grad(), marche_fx.decoding(one):
        one(x)
        assert current_session(optimization_of(other)) is None
        assert torch.equal(other(x), optimization_of(other).model(x))


def test_batch_sizes_may_change_between_and_inside_sessions() -> None:
    optimized = make()
    small, large = Generation(make(), 1, samples=1).run(), Generation(make(), 2, samples=3).run()
    assert same(Generation(optimized, 1, samples=1).run(), small)
    assert same(Generation(optimized, 2, samples=3).run(), large)
    one, three = Generation(optimized, 1, samples=1), Generation(optimized, 2, samples=3)
    with marche_fx.decoding(optimized):
        for _ in range(5):
            one.step()
            three.step()
    assert same(one.results, small)
    assert same(three.results, large)


class InterruptedLoopError(Exception):
    pass


def interrupt(generation: Generation) -> None:
    """Two steps, then an exception inside the session."""
    with marche_fx.decoding(generation.optimized):
        generation.step()
        generation.step()
        raise InterruptedLoopError


def test_an_exception_in_the_middle_loses_the_session_and_nothing_else() -> None:
    optimized = make()
    expected = Generation(make(), 1).run()
    broken = Generation(optimized, 2)
    with pytest.raises(InterruptedLoopError):
        interrupt(broken)
    assert not OPEN.get()
    assert same(Generation(optimized, 1).run(), expected)


def test_a_step_that_fails_half_way_is_computed_in_full_next_time() -> None:
    optimized = make()
    model = optimization_of(optimized).model
    assert isinstance(model, Transformer)
    x = torch.randn(2, 30, 16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(x)[:, 0].sum()
        (program,) = optimization_of(optimized).steps["forward"].programs
        run = program.incremental

        def fail(*tensors: Any) -> Any:
            run(*tensors)
            raise InterruptedLoopError

        program.incremental = fail
        with pytest.raises(InterruptedLoopError):
            optimized(x + 1)[:, 0].sum()
        program.incremental = run
        assert torch.equal(optimized(x + 1).clone(), model(x + 1))
    session = optimization_of(optimized).last_session
    assert session is not None
    assert [record.active for record in session.records] == [30, 30]


def test_caches_are_freed_at_the_end() -> None:
    optimized = make()
    generation = Generation(optimized, 1)
    with marche_fx.decoding(optimized):
        generation.step()
        generation.step()
        session = current_session(optimization_of(optimized))
        assert session is not None
        (state,) = session.states
        kept = [weakref.ref(tensor) for tensor in [*state.caches, *state.inputs.last]]
        assert len(kept) >= 6
        del state
    gc.collect()
    assert not [ref for ref in kept if ref() is not None]
    assert not OPEN.get()


def test_the_model_and_its_graphs_are_freed_with_it() -> None:
    optimized = make()
    Generation(optimized, 1).run(2)
    ref = weakref.ref(optimization_of(optimized))
    del optimized
    gc.collect()
    assert ref() is None


@torch.no_grad()
def test_a_result_read_after_the_session_is_that_of_its_step() -> None:
    optimized = make()
    model = optimization_of(optimized).model
    x = torch.randn(2, 30, 16)
    with marche_fx.decoding(optimized):
        result = optimized(x)
    assert torch.equal(result.clone(), model(x))
    assert torch.equal(result[:, 4], model(x)[:, 4])


@torch.no_grad()
def test_a_result_read_after_the_next_step_is_that_of_its_own_step() -> None:
    optimized = make()
    model = optimization_of(optimized).model
    x = torch.randn(2, 30, 16)
    with marche_fx.decoding(optimized):
        first = optimized(x)
        second = optimized(x + 1)
        assert torch.equal(second.clone(), model(x + 1))
        assert torch.equal(first.clone(), model(x))


@torch.no_grad()
def test_a_result_that_nobody_reads_costs_nothing() -> None:
    optimized = make()
    with marche_fx.decoding(optimized):
        optimized(torch.randn(2, 30, 16))
    session = optimization_of(optimized).last_session
    assert session is not None
    assert not session.records


class Looping(nn.Module):
    """A model with a loop of its own that may call itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Transformer(30, 16, 2, depth=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def generate(self, x: Tensor, rounds: int) -> Tensor:
        if rounds > 1:
            self.generate(x, rounds - 1)
        return self(x)


@torch.no_grad()
def test_the_outermost_call_of_a_loop_is_one_session() -> None:
    optimized = marche_fx.transform(Looping().eval(), loop="generate", refresh=POLICY, compile=False)
    x = torch.randn(1, 30, 16)
    result = optimized.generate(x, 3)
    assert type(result) is Tensor, "a loop returns values"
    session = optimization_of(optimized).last_session
    assert session is not None
    first = len(session.records)
    assert session.records[0].active == 30
    assert all(record.active < 30 for record in session.records[1:])
    optimized.generate(x, 3)
    assert optimization_of(optimized).last_session is not session
    assert len(session.records) == first
