"""`transform` on a loop of the user's own."""

from __future__ import annotations

import warnings
from functools import cache

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import AttentionReceived, History, Refresh, RefreshPolicy, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from tests.around import FULL
from tests.networks import MaskedTextModel, Transformer
from tests.oracle import Oracle
from tests.program import oracle_of
from tests.sessions import records


class Fixed(RefreshPolicy):
    """A policy that refreshes so many tokens in an order given beforehand, whatever it sees."""

    tolerance = 0.0
    signals = (AttentionReceived(1),)

    def __init__(self, priorities: list[Tensor], count: int) -> None:
        self.priorities = priorities
        self.count = count

    def choose(self, history: History) -> Refresh:
        return Refresh(self.count, self.priorities[history.step])


@cache
def text_model() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = MaskedTextModel(30, 16, 2).double().eval()
    return model, marche_fx.transform(model, compile=False)


@given(st.data())
def test_a_session_computes_what_the_oracle_says(data: st.DataObject) -> None:
    model, optimized = text_model()
    step = optimization_of(optimized).steps["forward"]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    steps = data.draw(st.integers(2, 5))
    count = data.draw(st.integers(0, 12))
    priorities = [torch.rand(2, 30, generator=generator) for _ in range(steps)]
    step.settings.policies["forward"] = Fixed(priorities, count)
    ids = torch.randint(7, (2, 30), generator=generator)
    time = torch.tensor([0.5, 0.25], dtype=torch.float64)
    oracle: Oracle | None = None
    with torch.no_grad(), marche_fx.decoding(optimized):
        before = ids
        for number in range(steps):
            result = optimized(ids, time)
            asked = torch.rand(2, 30, generator=generator) < 0.1
            found = result[asked]
            must = (ids != before) | asked | torch.tensor(number == 0)
            if oracle is None:
                plan = step.programs[0].plan
                oracle = oracle_of(plan, model)
            (expected,) = oracle.step([ids, time], expected_active(must, priorities[number], count))
            assert (found - expected[asked]).abs().max() <= 1e-10 if asked.any() else not len(found)
            assert (result.clone() - expected).abs().max() <= 1e-10
            before, ids = ids, ids.clone()
            changed = torch.rand(2, 30, generator=generator) < data.draw(st.sampled_from([0.0, 0.1]))
            ids[changed] = torch.randint(7, (2, 30), generator=generator)[changed]


def expected_active(must: Tensor, priority: Tensor, count: int) -> Tensor:
    """The tokens of a step in the words of the design, one sample and one token at a time."""
    samples, tokens = must.shape
    needed = max(int(row.sum()) for row in must) + count
    size = min(-(-max(needed, 1) // 8) * 8, tokens)
    if size > 0.8 * tokens:
        size = tokens
    chosen = []
    for sample in range(samples):
        ranked = sorted(range(tokens), key=lambda i: (not must[sample, i], -float(priority[sample, i])))
        chosen.append(sorted(ranked[:size]))
    return torch.tensor(chosen)


@torch.no_grad()
def test_a_changed_timestep_recomputes_every_token() -> None:
    model, optimized = text_model()
    optimization_of(optimized).steps["forward"].settings.policies["forward"] = SelectiveRefresh(0.0, warmup=0)
    ids = torch.randint(7, (2, 30))
    with marche_fx.decoding(optimized):
        for time in (0.1, 0.1, 0.9):
            times = torch.full((2,), time, dtype=torch.float64)
            found = optimized(ids, times).clone()
            assert torch.allclose(found, model(ids, times), atol=1e-12)
    assert [record.active for record in records(optimized)] == [30, 8, 30]


@torch.no_grad()
def test_a_query_says_which_tokens_are_read() -> None:
    torch.manual_seed(0)
    model = MaskedTextModel(30, 16, 2).eval()
    optimized = marche_fx.transform(
        model, refresh=SelectiveRefresh(0.0, warmup=0), query=lambda ids, time: ids == 0, compile=False
    )
    ids = torch.randint(1, 7, (2, 30))
    ids[:, 3:13] = 0
    with marche_fx.decoding(optimized):
        for _ in range(2):
            optimized(ids, torch.zeros(2)).sum()
    assert [record.active for record in records(optimized)] == [30, 16]


@torch.no_grad()
def test_reading_other_rows_of_the_same_step_computes_them_too() -> None:
    torch.manual_seed(0)
    model = Transformer(30, 16, 2).eval()
    for parameter in model.parameters():
        # Attention must matter for a row to feel another token's new key.
        parameter.mul_(2)
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.0, warmup=0), compile=False)
    x = torch.randn(1, 30, 16)
    with marche_fx.decoding(optimized):
        optimized(x)[:, 0].sum()
        moved = x.clone()
        moved[:, 20] = torch.randn(16) * 3
        result = optimized(moved)
        first, again, second = (own.clone() for own in (result[:, :2], result[:, 1], result[:, 10:13]))
    assert [record.active for record in records(optimized)] == [30, 8, 8]
    assert torch.equal(first[:, 1], again)
    # Both reads computed their rows with the new key of token 20.
    exact, before = model(moved), model(x)
    for rows, at in ((first, slice(0, 2)), (second, slice(10, 13))):
        assert (rows - exact[:, at]).norm() < (before[:, at] - exact[:, at]).norm()


@torch.no_grad()
def test_reading_a_partial_result_as_a_whole_warns_once() -> None:
    model = Transformer(30, 16, 2, depth=1).eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.0, warmup=0), compile=False)
    with warnings.catch_warnings(record=True) as caught, marche_fx.decoding(optimized):
        warnings.simplefilter("always")
        for _ in range(4):
            optimized(torch.ones(1, 30, 16)).argmax()
    assert len([warning for warning in caught if "read as a whole" in str(warning.message)]) == 1


@torch.no_grad()
def test_arguments_overwritten_before_the_result_is_read_do_not_matter() -> None:
    torch.manual_seed(0)
    model = Transformer(30, 16, 2).eval()
    optimized = marche_fx.transform(model, refresh=FULL, compile=False)
    x = torch.randn(1, 30, 16)
    expected = model(x)
    with marche_fx.decoding(optimized):
        result = optimized(x)
        x.zero_()
        assert torch.equal(result.clone(), expected)
