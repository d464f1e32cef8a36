"""`transform` on MAR and on a loop of the user's own."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import (
    ArgumentError,
    AttentionReceived,
    FullRefresh,
    History,
    Refresh,
    RefreshPolicy,
    SelectiveRefresh,
    UnsupportedModelError,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.models.mar import MAR
from marche_fx.passes.lower.kept import KEPT
from marche_fx.runtime.records import StepRecord
from tests.around import Around, X
from tests.networks import MaskedTextModel, Transformer, small_mar
from tests.oracle import Oracle
from tests.program import oracle_of

FULL = FullRefresh()


def random_mar(depth: int = 2, side: int = 6) -> MAR:
    """A MAR whose head depends on ``z``: the original initialisation ends in zeros."""
    torch.manual_seed(0)
    mar = small_mar(side=side, width=16, buffer=4, depth=depth)
    for name, parameter in mar.diffloss.net.final_layer.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.3)
    return mar.eval()


@cache
def the_mar() -> MAR:
    return random_mar()


def draws(mar: MAR, samples: int, steps: int = 8, cfg: float = 2.0, seed: int = 0) -> dict[str, Any]:
    """Arguments of `sample_tokens` that fix every random choice."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "bsz": samples,
        "num_iter": steps,
        "cfg": cfg,
        "labels": torch.arange(samples) % 3,
        "orders": mar.sample_orders(samples, generator),
        "noise": torch.randn(samples, mar.seq_len, len(mar.diffloss.gen_diffusion), 4, generator=generator),
    }


def records(optimized: nn.Module) -> list[StepRecord]:
    session = optimization_of(optimized).last_session
    assert session is not None
    return session.records


# ------------------------------------------------------------------------------------------------------------- MAR


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("samples", [1, 8])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_full_refresh_generates_what_the_original_does(samples: int, cfg: float, mode: Callable[[], Any]) -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    with mode():
        expected = mar.sample_tokens(**draws(mar, samples, cfg=cfg))
        found = optimized.sample_tokens(**draws(mar, samples, cfg=cfg))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("depth", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_any_depth_generates_what_the_original_does(depth: int) -> None:
    mar = random_mar(depth, side=4)
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    with torch.no_grad():
        expected = mar.sample_tokens(**draws(mar, 2, steps=4))
        found = optimized.sample_tokens(**draws(mar, 2, steps=4))
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@torch.no_grad()
def test_the_decoder_at_full_refresh_is_bit_identical() -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    mask = torch.zeros(2, 36)
    mask[:, 20:] = 1
    with marche_fx.decoding(optimized):
        for seed in range(3):
            x = torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(optimized.forward_mae_decoder(x, mask).clone(), mar.forward_mae_decoder(x, mask))


@torch.no_grad()
def test_partial_refresh_computes_fewer_rows_and_stays_near_the_original() -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1, warmup=2), compile=False)
    expected = mar.sample_tokens(**draws(mar, 2, steps=12))
    found = optimized.sample_tokens(**draws(mar, 2, steps=12))
    difference = (found - expected).abs().max()
    assert 1e-4 < difference / expected.abs().max() < 0.5
    decoder = [record.active for record in records(optimized) if record.name == "forward_mae_decoder"]
    encoder = [record for record in records(optimized) if record.name == "forward_mae_encoder"]
    assert decoder[:2] == [40, 40]
    assert max(decoder[2:]) <= 24
    assert encoder[-1].active < encoder[-1].visible
    assert sum(record.flops for record in records(optimized)) < sum(r.original_flops for r in records(optimized))


@torch.no_grad()
def test_the_rows_that_the_loop_reads_are_among_those_computed() -> None:
    mar = the_mar()
    # Nothing is refreshed: what is computed is what changed and what the loop reads.
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.0, warmup=1, tolerance=0.3), compile=False)
    seen: list[tuple[Tensor, Tensor]] = []
    with marche_fx.decoding(optimized):
        mask = torch.ones(1, 36)
        for step in range(4):
            x = optimized.forward_mae_encoder(torch.zeros(1, 36, 4), mask, torch.ones(1, 16))
            z = optimized.forward_mae_decoder(x, mask)
            rows = torch.zeros(1, 36, dtype=torch.bool)
            rows[0, 5 * step : 5 * step + 5] = True
            exact = mar.forward_mae_decoder(
                mar.forward_mae_encoder(torch.zeros(1, 36, 4), mask, torch.ones(1, 16)), mask
            )
            seen.append((z[rows.nonzero(as_tuple=True)].clone(), exact[rows]))
            mask = mask.clone()
            mask[0, 5 * step : 5 * step + 5] = 0
    for found, expected in seen:
        # Stale neighbours blur the rows, but a row of another token would be far off.
        assert (found - expected).norm() < 0.5 * expected.norm()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_of_the_model_and_of_autocast_reach_the_caches(dtype: torch.dtype) -> None:
    mar = random_mar(side=4).to(dtype)
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    arguments = draws(mar, 2, steps=3)
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    found, expected = optimized.sample_tokens(**arguments), mar.sample_tokens(**arguments)
    assert found.dtype is expected.dtype
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
def test_autocast_around_the_call_is_honoured_even_when_results_are_read_later() -> None:
    mar = the_mar()
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    mask = torch.zeros(2, 36)
    mask[:, 20:] = 1
    x = torch.randn(2, 24, 16)
    with marche_fx.decoding(optimized):
        with torch.autocast("cpu", torch.bfloat16):
            z = optimized.forward_mae_decoder(x, mask)
            expected = mar.forward_mae_decoder(x, mask)
        assert z.dtype is expected.dtype
        assert torch.equal(z.clone(), expected)
    plain = mar.forward_mae_decoder(x, mask)
    assert not torch.equal(plain, expected.to(plain.dtype))


@pytest.mark.slow
@torch.no_grad()
def test_a_generation_after_the_first_compiles_nothing_and_partial_steps_share_a_graph() -> None:
    mar = random_mar(depth=1, side=9)
    optimized = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1), compile=True)
    eager = marche_fx.transform(mar, refresh=SelectiveRefresh(0.1), compile=False)
    KEPT.forget()
    before = KEPT.count
    optimized.sample_tokens(**draws(mar, 1, steps=64))
    assert len({record.active for record in records(optimized)}) > 4
    assert KEPT.count - before == 2, "one for each step method, whatever the number of active tokens"
    arguments = draws(mar, 1, steps=64, seed=1)
    found = optimized.sample_tokens(**arguments)
    assert KEPT.count - before == 2
    expected = eager.sample_tokens(**arguments)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


# ------------------------------------------------------------------------------------------- a loop of the user's own


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


# ------------------------------------------------------------------------------------------------- the model returned


@torch.no_grad()
def test_the_model_returned_is_the_same_model_to_its_user() -> None:
    mar = random_mar(side=4)
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    assert type(optimized) is MAR
    assert all(a is b for a, b in zip(optimized.parameters(), mar.parameters(), strict=True))
    assert list(optimized.state_dict()) == list(mar.state_dict())
    arguments = draws(mar, 1, steps=2)
    optimized.sample_tokens(**arguments)
    # Weights changed later, through either of the two, are those that are used.
    for parameter in mar.parameters():
        parameter.mul_(1.1)
    assert torch.allclose(optimized.sample_tokens(**arguments), mar.sample_tokens(**arguments), rtol=1e-3, atol=1e-4)
    optimized.double()
    assert next(mar.parameters()).dtype is torch.float64
    found = optimized.sample_tokens(**arguments)
    assert found.dtype is torch.float64
    assert torch.allclose(found, mar.sample_tokens(**arguments), rtol=1e-4, atol=1e-5)
    assert not hasattr(mar, "_marche_fx")


@torch.no_grad()
def test_every_new_kind_of_argument_is_captured_once_and_many_warn() -> None:
    model = Around(lambda model, x, power: model.inner(x) ** power)
    optimized = marche_fx.transform(model, compile=False)
    step = optimization_of(optimized).steps["forward"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for power in (1, 2, 1, 2):
            assert torch.equal(optimized(X, power), model(X, power))
        assert len(step.programs) == 2
        for power in range(3, 8):
            optimized(X, power)
    with pytest.warns(UserWarning, match="captured for 8 kinds of arguments"):
        optimized(X, 8)


@torch.no_grad()
def test_a_forgotten_session_is_exact_and_warns_once() -> None:
    model = Transformer(6, 8, 2, depth=1).eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.0, warmup=0), compile=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(6):
            x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(optimized(x), model(x))
    assert len([warning for warning in caught if "decoding" in str(warning.message)]) == 1


# --------------------------------------------------------------------------------------------------------- bad input


class TokenMixer(nn.Module):
    """No attention: tokens and channels are transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tokens(x.transpose(1, 2)).transpose(1, 2)


def test_a_model_without_attention_is_refused_and_the_mixer_named() -> None:
    optimized = marche_fx.transform(TokenMixer().eval())
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match=r"no attention.*linear at tokens") as error:
        optimized(torch.ones(1, 6, 8))
    assert "test_transform.py" in str(error.value)


def test_training_mode_is_refused() -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2).train())
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match="training mode"):
        optimized(torch.ones(1, 6, 8))


def test_training_mode_set_through_the_transformed_model_is_refused() -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2).eval())
    optimized.train()
    with torch.no_grad(), pytest.raises(UnsupportedModelError, match="training mode"):
        optimized(torch.ones(1, 6, 8))


def test_gradients_are_refused() -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2).eval())
    with pytest.raises(UnsupportedModelError, match="no_grad"):
        optimized(torch.ones(1, 6, 8))


@pytest.mark.parametrize("options", [{"step": "forwards"}, {"step": ()}, {"loop": "generate"}])
def test_a_method_that_does_not_exist_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"forwards|generate|at least one"):
        marche_fx.transform(Transformer(6, 8, 2).eval(), **options)


@pytest.mark.parametrize(
    "answer",
    [
        torch.ones(1, 5, dtype=torch.bool),
        torch.ones(1, 6),
        None,
    ],
    ids=["shape", "dtype", "type"],
)
def test_a_query_of_the_wrong_kind_is_refused(answer: Any) -> None:
    optimized = marche_fx.transform(Transformer(6, 8, 2, depth=1).eval(), query=lambda x: answer, compile=False)
    with torch.no_grad(), pytest.raises(ArgumentError, match=r"bool tensor \(1, 6\)"):
        optimized(torch.ones(1, 6, 8))


def test_other_objects_are_refused() -> None:
    model = Transformer(6, 8, 2).eval()
    with pytest.raises(ArgumentError, match="Module"):
        marche_fx.transform(lambda x: x)  # type: ignore[type-var]
    with pytest.raises(ArgumentError, match="already transformed"):
        marche_fx.transform(marche_fx.transform(model))
    with pytest.raises(ArgumentError, match="refresh policy"):
        marche_fx.transform(model, refresh=0.1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="callable"):
        marche_fx.transform(model, query=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="not made by"), marche_fx.decoding(model):
        pass


class Forgetful(nn.Module):
    """Differs from call to call, which no rewrite can reproduce."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Transformer(6, 8, 2, depth=1)
        self.calls = itertools.count(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * next(self.calls)


def test_verification_catches_a_step_that_the_graph_does_not_repeat() -> None:
    optimized = marche_fx.transform(Forgetful().eval(), compile=False)
    with torch.no_grad(), pytest.raises(marche_fx.EquivalenceError, match="differs from the original"):
        optimized(torch.randn(1, 6, 8))


INSIDE: list[nn.Module] = []
"""Models whose method ran."""


class Replaced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(6, 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def decode(self, x: Tensor) -> Tensor:
        return self(x).argmax(-1)


@torch.no_grad()
def test_methods_put_on_the_instance_are_those_of_the_copy() -> None:
    model, x = Replaced().eval(), torch.randn(2, 6, 8)
    INSIDE.clear()

    def mine(self: nn.Module, x: Tensor) -> Tensor:
        INSIDE.append(self)
        return self(x).argmin(-1)

    model.decode = MethodType(mine, model)  # type: ignore[method-assign]
    vars(model)["again"] = functools.partial(MethodType(mine, model))
    optimized = marche_fx.transform(model, refresh="exact", loop="decode", compile=False)
    assert torch.equal(optimized.decode(x), model(x).argmin(-1))
    assert torch.equal(resolved(vars(optimized)["again"](x)), model(x).argmin(-1))
    assert [optimized, optimized] == INSIDE
    step = optimization_of(optimized).steps["forward"]
    (program,) = step.programs
    optimized.decode(x)
    assert step.programs[0] is program, "nothing seems to have changed in between"


@torch.no_grad()
def test_a_step_put_on_the_instance_is_the_one_that_is_captured() -> None:
    model, x = Replaced().eval(), torch.randn(2, 6, 8)
    model.forward = MethodType(lambda self, x: 2 * self.body(x), model)  # type: ignore[method-assign]
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        assert torch.equal(optimized(x) + 0, 2 * model.body(x))
