"""What a user's own functions answer by mistake, and what is passed to steps and loops: named, and forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import ArgumentError, History, MarcheError, PolicyError, Refresh, RefreshPolicy, RowSignal, Signal
from marche_fx.models.mar import MAR
from marche_fx.refresh import BudgetedRefresh
from tests.around import MOVED, TOKENS, X, same, transformer
from tests.models.tiny import tiny_mar

NAN = math.nan
SCORES = torch.rand(2, TOKENS, generator=torch.Generator().manual_seed(0))


class Answering(RefreshPolicy):
    """Answers what the test says."""

    answer: Any = Refresh(0)

    def choose(self, history: History) -> Refresh:
        answer: Refresh = self.answer(history) if callable(self.answer) else self.answer
        return answer


def decode(optimized: Any) -> Tensor:
    """Two steps; the second reads three rows."""
    with marche_fx.decoding(optimized), torch.no_grad():
        optimized(X).sum()
        found: Tensor = optimized(MOVED)[:, :3] + 0
    return found


def works(optimized: Any, model: Any) -> bool:
    """Whether a new session gives what the original does, and nothing is left of an old one."""
    for x in (X, MOVED):
        with marche_fx.decoding(optimized), torch.no_grad():
            if not same(optimized(x), model(x)):
                return False
    return True


def fails(_: History) -> Refresh:
    raise ZeroDivisionError


ANSWERS: dict[str, Any] = {
    "None": None,
    "a number": 3,
    "a text": "all",
    "a tensor": SCORES,
    "a class": Refresh,
    "a count below none": Refresh(-1, SCORES),
    "a count in halves": Refresh(2.5, SCORES),  # type: ignore[arg-type]
    "a count as a text": Refresh("3", SCORES),  # type: ignore[arg-type]
    "a count as a bool": Refresh(True, SCORES),
    "a count as a tensor": Refresh(torch.tensor(3), SCORES),  # type: ignore[arg-type]
    "no count": Refresh(None, SCORES),  # type: ignore[arg-type]
    "no priority": Refresh(3),
    "a priority of other tokens": Refresh(3, SCORES[:, 1:]),
    "a priority of other samples": Refresh(3, SCORES[:1]),
    "a priority of one dimension": Refresh(3, SCORES[0]),
    "a complex priority": Refresh(3, SCORES.to(torch.complex64)),
    "a priority as a list": Refresh(3, SCORES.tolist()),  # type: ignore[arg-type]
    "a priority elsewhere": Refresh(3, SCORES.to("meta")),
    "a priority of NaN": Refresh(3, torch.full_like(SCORES, NAN)),
    "one NaN": Refresh(3, torch.where(SCORES.max() == SCORES, NAN, SCORES)),
    "queried below none": Refresh(3, SCORES, queried=-1),
    "queried as a text": Refresh(3, SCORES, queried="1"),  # type: ignore[arg-type]
    "an urgency of other tokens": Refresh(3, SCORES, queried=1, urgency=SCORES[:, 1:]),
    "an urgency of NaN": Refresh(3, SCORES, queried=1, urgency=SCORES * NAN),
}


@pytest.fixture(scope="module")
def answering() -> tuple[Any, Any, Answering]:
    policy, model = Answering(), transformer()
    return marche_fx.transform(model, refresh=policy, compile=False), model, policy


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_of_a_policy_that_cannot_be_done_is_named(kind: str, answering: tuple[Any, Any, Answering]) -> None:
    optimized, model, policy = answering
    policy.answer = lambda history: Refresh(0) if history.step == 0 else ANSWERS[kind]
    with pytest.raises(PolicyError, match="Answering"):
        decode(optimized)
    policy.answer = Refresh(TOKENS)
    assert works(optimized, model)


def test_what_a_policy_raises_itself_is_left_as_it_is(answering: tuple[Any, Any, Answering]) -> None:
    optimized, model, policy = answering
    policy.answer = fails
    with pytest.raises(ZeroDivisionError):
        decode(optimized)
    policy.answer = Refresh(TOKENS)
    assert works(optimized, model)


class TakesNothing(RefreshPolicy):
    def choose(self) -> Refresh:  # type: ignore[override]
        return Refresh(0)


class NoPriority(BudgetedRefresh):
    def priority(self, history: History) -> Tensor:
        return None  # type: ignore[return-value]


class Silent(BudgetedRefresh):
    pass


@pytest.mark.parametrize("policy", [RefreshPolicy(), TakesNothing(), NoPriority(warmup=0), Silent(warmup=0)])
def test_a_policy_that_is_written_wrongly_is_named(policy: RefreshPolicy) -> None:
    model = transformer()
    optimized = marche_fx.transform(model, refresh=policy, compile=False)
    with pytest.raises(MarcheError, match=type(policy).__name__):
        decode(optimized)


def with_attribute(name: str, value: Any) -> RefreshPolicy:
    policy = Answering()
    setattr(policy, name, value)
    return policy


ATTRIBUTES = [
    *(("tolerance", value) for value in (None, "0.1", NAN, -1, True, [0.1])),
    *(("exact_sites", value) for value in (None, "1", -1, 1.5, True)),
    *(("signals", value) for value in (None, 3, "attention", [marche_fx.InputDrift()], ("a",), (None,), (Signal,))),
]


@pytest.mark.parametrize(("name", "value"), ATTRIBUTES)
def test_an_attribute_of_a_policy_that_cannot_be_is_named(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name} of Answering"):
        marche_fx.transform(transformer(), refresh=with_attribute(name, value), compile=False)


@pytest.mark.parametrize("signal", [Signal(), RowSignal(lambda now, before: now[..., 0], "no")])
def test_a_signal_that_cannot_be_measured_is_named(signal: Signal) -> None:
    optimized = marche_fx.transform(transformer(), refresh=with_attribute("signals", (signal,)), compile=False)
    with pytest.raises(MarcheError, match=r"Signal|site"):
        decode(optimized)


ROW_FUNCTIONS: list[Callable[..., Any]] = [
    lambda now, before: None,
    lambda now, before: 0.5,
    lambda now, before: now,
    lambda now, before: now.sum(),
    lambda now: now.sum(-1),
    lambda: None,
]


@pytest.mark.parametrize("function", ROW_FUNCTIONS)
def test_a_row_signal_of_no_numbers_is_named(function: Callable[..., Any]) -> None:
    policy = with_attribute("signals", (RowSignal(function, "blocks.0.attention"),))
    optimized = marche_fx.transform(transformer(), refresh=policy, compile=False)
    with pytest.raises(MarcheError, match=r"a RowSignal's function"):
        decode(optimized)


def test_a_budget_that_is_no_share_is_named_and_forgotten() -> None:
    model = transformer()
    share: list[Any] = [1.0]
    refresh = marche_fx.StalenessRefresh(lambda step: share[0], warmup=0)
    optimized = marche_fx.transform(model, refresh=refresh, compile=False)
    for wrong in ("0.1", None, NAN, 1.5, -0.1, True, [0.1], torch.tensor(0.1)):
        share[0] = wrong
        with pytest.raises(PolicyError, match="budget"):
            decode(optimized)
        share[0] = 1.0
        assert works(optimized, model)


@pytest.mark.parametrize("budget", [lambda: 0.1, lambda step, more: 0.1])
def test_a_budget_of_the_wrong_signature_is_named(budget: Any) -> None:
    optimized = marche_fx.transform(transformer(), refresh=marche_fx.StalenessRefresh(budget, warmup=0), compile=False)
    with pytest.raises(ArgumentError, match="budget"):
        decode(optimized)


SIGNATURES: list[Callable[..., Any]] = [lambda: None, lambda x, y: x[..., 0] > 0, lambda *, ids: ids]


@pytest.mark.parametrize("query", SIGNATURES)
def test_a_query_of_the_wrong_signature_is_named(query: Callable[..., Any]) -> None:
    optimized = marche_fx.transform(transformer(), query=query, compile=False)
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"^query, with the arguments of \w+\.forward, cannot be called"):
            decode(optimized)


QUERIES: dict[str, Callable[..., Any]] = {
    "None": lambda x: None,
    "a bool": lambda x: True,
    "a list": lambda x: [True] * TOKENS,
    "numbers": lambda x: x[..., 0],
    "positions": lambda x: torch.tensor([0, 1]),
    "of other tokens": lambda x: x[:, 1:, 0] > 0,
    "of other samples": lambda x: x[:1, :, 0] > 0,
    "of all channels": lambda x: x > 0,
}


def test_a_query_that_names_no_tokens_is_named_and_forgotten() -> None:
    def right(x: Tensor) -> Tensor:
        return x[..., 0] > 0

    model, answer = transformer(), [right]
    optimized = marche_fx.transform(model, query=lambda x: answer[0](x), compile=False)
    for wrong in QUERIES.values():
        answer[0] = wrong
        with pytest.raises(ArgumentError, match="query must return"):
            decode(optimized)
        answer[0] = right
        assert works(optimized, model)


WRONG_CALLS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda step: step(),
    "None": lambda step: step(None),
    "a text": lambda step: step("x"),
    "a list": lambda step: step(X.tolist()),
    "an object": lambda step: step(object()),
    "an unknown name": lambda step: step(X, no_such=1),
    "too many": lambda step: step(X, X, X, X),
    "no tokens": lambda step: step(X[:, :0]),
    "no samples": lambda step: step(X[:0]),
    "no channels": lambda step: step(X[..., :0]),
    "other channels": lambda step: step(X[..., 1:]),
    "one dimension": lambda step: step(X[0, 0]),
    "four dimensions": lambda step: step(X[None]),
    "whole numbers": lambda step: step(X.long()),
    "another precision": lambda step: step(X.double()),
    "complex numbers": lambda step: step(X.to(torch.complex64)),
    "a sparse tensor": lambda step: step(X.to_sparse()),
    "no values": lambda step: step(X.to("meta")),
}


@torch.no_grad()
def test_a_wrong_call_of_a_step_fails_as_the_original_does_or_by_name_and_is_forgotten() -> None:
    """One object takes all of them, within a session and outside of one."""
    model = transformer()
    optimized = marche_fx.transform(model, compile=False)
    assert works(optimized, model)
    for kind, call in WRONG_CALLS.items():
        try:
            expected = call(model)
        except Exception as error:
            allowed: tuple[type[Exception], ...] = (MarcheError, type(error))
            with pytest.raises(allowed):
                call(optimized)
            with marche_fx.decoding(optimized):
                optimized(X).sum()
                with pytest.raises(allowed):
                    call(optimized).sum()
                assert optimized(MOVED)[:, 3].isfinite().all(), kind
        else:
            with suppress(MarcheError):
                assert same(call(optimized), expected), kind
        assert works(optimized, model), kind


LABELS = torch.tensor([0, 1])
SAMPLE: dict[str, Any] = {"bsz": 2, "num_iter": 3, "labels": LABELS}
WRONG_SAMPLES = {
    "bsz": (None, "2", 0, -1, 1.5, NAN, True, [2]),
    "num_iter": (None, "3", 0, -1, 1.5, NAN, True, [3]),
    "cfg": (None, "3", NAN, math.inf, True, [3.0], -1.0),
    "cfg_schedule": (None, 3, "", "quadratic", ["linear"]),
    "labels": (3, "shoe", [0, 1], LABELS[:1], LABELS[None], LABELS.double(), torch.tensor([0, 3]), -1 - LABELS),
    "temperature": (None, "1", NAN, -1.0, True, [1.0], math.inf),
    "orders": (3, "raster", [[0, 1]], torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 16), SCORES),
    "counts": (3, "cosine", [16], [0, 0, 16], [8, 8, 8], ["a", "b", "c"], [5.0, 5.0, 6.0]),
    "noise": (3, "white", torch.zeros(2, 16), torch.zeros(2, 16, 5, 3), torch.zeros(2, 16, 5, 4, dtype=torch.long)),
    "generator": (3, "0", torch.Generator),
}


@pytest.fixture(scope="module")
def mars() -> tuple[MAR, MAR, Tensor]:
    mar = tiny_mar().eval()
    optimized = marche_fx.transform(mar, refresh="exact", compile=False)
    return mar, optimized, sampled(optimized)


@torch.no_grad()
def sampled(mar: MAR) -> Tensor:
    return mar.sample_tokens(**SAMPLE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", WRONG_SAMPLES)
@torch.no_grad()
def test_a_wrong_argument_of_the_loop_of_mar_is_named_and_forgotten(name: str, mars: tuple[MAR, MAR, Tensor]) -> None:
    mar, optimized, expected = mars
    for value in WRONG_SAMPLES[name]:
        for own in (mar, optimized):
            with pytest.raises(MarcheError, match=name):
                own.sample_tokens(**{**SAMPLE, name: value})
    assert torch.equal(sampled(optimized), expected)
