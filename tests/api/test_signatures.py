"""Whatever a model takes and returns: right, or refused by name."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, CaptureError, UnsupportedModelError
from marche_fx.lazy.tensor import LateTensor
from tests.around import (
    EAGER,
    MOVED,
    TOKENS,
    WIDTH,
    Around,
    X,
    active,
    captures,
    check,
    optimize,
    refused,
    same,
    transformer,
)
from tests.networks import BiasedAttention

# ---------------------------------------------------------------------------------------------------------- arguments


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()

    def forward(self, x: Tensor, scale: Tensor, *, bias: Tensor | None = None, power: int = 1) -> Tensor:
        y = self.inner(x) * scale**power
        return y if bias is None else y + bias


def test_one_capture_serves_arguments_by_position_and_by_name() -> None:
    scale = torch.tensor(2.0)
    optimized = check(
        Scaled().eval(),
        ((X, scale), {}),
        ((X,), {"scale": scale}),
        ((), {"scale": scale, "x": MOVED}),
    )
    assert captures(optimized) == 1


def test_the_order_of_names_and_defaults_do_not_matter() -> None:
    scale, bias = torch.tensor(2.0), torch.ones(3)
    optimized = check(
        Scaled().eval(),
        ((X,), {"scale": scale, "bias": bias, "power": 2}),
        ((X,), {"power": 2, "bias": bias, "scale": scale}),
        ((X, scale), {"bias": None}),
        ((X, scale), {"power": 3}),
    )
    assert captures(optimized) == 3


def test_extra_arguments_keep_their_places() -> None:
    def forward(model: Any, x: Tensor, *extra: Tensor, **named: Tensor) -> Tensor:
        return model.inner(x) * extra[0] - extra[1] + named.get("a", 0) * 2 + named.get("b", 0)

    one, two = torch.tensor(3.0), torch.tensor(5.0)
    check(
        Around(forward),
        ((X, one, two), {"a": one, "b": two}),
        ((X, one, two), {"b": two, "a": one}),
        ((X, two, one), {"a": two}),
        ((X, two, one), {"b": two}),
    )


@dataclass
class Inputs:
    x: Tensor
    scale: float = 1.0
    more: Any = None

    def __post_init__(self) -> None:
        self.scale *= 2


@dataclass(frozen=True)
class Frozen:
    x: Tensor


def test_nested_arguments_dataclasses_and_none() -> None:
    def forward(model: Any, tree: Any, given: Inputs, nothing: None, *, dtype: torch.dtype) -> Tensor:
        bias = tree["a"][0] + tree["a"][1][0]
        return (model.inner(given.x + given.more[0].x) * given.scale + bias).to(dtype)

    def call(x: Tensor, scale: float) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tree = {"a": [torch.ones(3), (torch.ones(1), None)], "b": "text"}
        return (tree, Inputs(x, scale, [Frozen(x)]), None), {"dtype": torch.float32}

    optimized = check(Around(forward), call(X, 1.0), call(MOVED, 1.0), call(MOVED, 3.0))
    assert captures(optimized) == 2


class Opaque:
    def __init__(self, x: Tensor) -> None:
        self.x = x


@pytest.mark.parametrize(
    "value",
    [Opaque(X), X.numpy(), lambda x: x, torch.Generator(), X.to_sparse(), X.to("meta")],
    ids=["object", "numpy", "function", "generator", "sparse", "meta"],
)
def test_other_arguments_are_refused_by_name(value: Any) -> None:
    model = Around(lambda model, x, other=None: model.inner(x))
    refused(model, ArgumentError, r"positional argument 1 of forward", X, value)
    refused(model, ArgumentError, r"argument 'other' of forward", X, other=[value])


def test_a_call_that_the_original_would_not_take_is_refused() -> None:
    refused(transformer(), CaptureError, r"Transformer\.forward fails.*unexpected keyword.*'bogus'", X, bogus=1)


# ------------------------------------------------------------------------------------------------------------ results


@dataclass
class Outputs:
    logits: Tensor
    pooled: Tensor | None = None
    count: int = 0


class Pair(NamedTuple):
    logits: Tensor
    pooled: Tensor


RESULTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda y, p: y,
    "tuple": lambda y, p: (y, p, None, 3, "text"),
    "list": lambda y, p: [p, [y, y + 1]],
    "dict": lambda y, p: {"logits": y, "pooled": {"mean": p, "none": None}},
    "namedtuple": Pair,
    "dataclass": lambda y, p: Outputs(y, p, 3),
    "nested dataclass": lambda y, p: {"out": (Outputs(y),)},
    "no tokens": lambda y, p: p,
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_are_of_the_types_of_the_original(kind: str) -> None:
    def forward(model: Any, x: Tensor) -> Any:
        y = model.inner(x)
        return RESULTS[kind](y, y.mean(1))

    optimized = check(Around(forward), ((X,), {}), ((MOVED,), {}))
    assert captures(optimized) == 1


def test_a_number_among_the_results_is_a_number() -> None:
    check(Around(lambda model, x: (model.inner(x), x.max().item())), ((X,), {}), ((MOVED,), {}))


def test_library_outputs_are_of_the_types_of_the_original() -> None:
    image_output = pytest.importorskip("diffusers.models.modeling_outputs").Transformer2DModelOutput
    masked_output = pytest.importorskip("transformers.modeling_outputs").MaskedLMOutput
    check(Around(lambda model, x: masked_output(logits=model.inner(x), hidden_states=(x,))), ((X,), {}), ((MOVED,), {}))
    check(Around(lambda model, x: image_output(sample=model.inner(x))), ((X,), {}), ((MOVED,), {}))


def test_a_result_of_another_type_is_refused() -> None:
    refused(Around(lambda model, x: Opaque(model.inner(x))), UnsupportedModelError, r"result 0 of .* is a .*Opaque", X)


@torch.no_grad()
def test_late_results_in_containers_read_rows_and_behave_as_tensors() -> None:
    masked_output = pytest.importorskip("transformers.modeling_outputs").MaskedLMOutput
    model = Around(lambda model, x: masked_output(logits=model.inner(x)))
    optimized = optimize(model, EAGER)
    rows = torch.zeros(2, TOKENS, dtype=torch.bool)
    rows[:, 5] = True
    with marche_fx.decoding(optimized):
        out = optimized(X)
        assert isinstance(out, masked_output)
        assert isinstance(out.logits, LateTensor)
        expected = model(X).logits
        assert torch.equal(out.logits[rows], expected[rows])
        out = optimized(MOVED)
        assert torch.equal(out.logits[rows], optimized(MOVED).logits[rows])
    assert active(optimized) == [TOKENS, 8, 8]
    full = optimize(model)
    with marche_fx.decoding(full):
        out = full(X)
    assert torch.equal(out[0][:, 2], expected[:, 2])
    assert torch.equal(out.to_tuple()[0], expected)
    assert torch.equal(torch.cat(list(out.values())), expected)
    assert torch.equal(out.logits.argmax(-1), expected.argmax(-1))
    assert torch.equal(torch.stack(list(out.logits)), expected)
    assert torch.equal(copy.deepcopy(out).logits, expected)
    assert torch.equal(pickle.loads(pickle.dumps(out)).logits, expected)
    assert (out.logits.numpy() == expected.numpy()).all()


@torch.no_grad()
def test_a_mask_reads_rows_of_results_whose_tokens_come_last() -> None:
    model = Around(lambda model, x: model.inner(x).transpose(1, 2))
    optimized = optimize(model, EAGER)
    mask = torch.zeros(2, 3, TOKENS, dtype=torch.bool)
    mask[0, :, 4] = mask[1, :, 7] = True
    with marche_fx.decoding(optimized):
        assert torch.equal(optimized(X)[mask], model(X)[mask])
        found = optimized(X)[mask]
        assert torch.equal(found, model(X)[mask])
        assert torch.equal(optimized(X)[..., 4], model(X)[..., 4])
    assert active(optimized) == [TOKENS, 8, 8]


# -------------------------------------------------------------------------------------------------- shapes and dtypes


class AnyLength(nn.Module):
    """Token ids of any number, with a mask of those that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, WIDTH)
        self.inner = transformer(attention=BiasedAttention)
        self.inner.position = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.inner.blocks[0].get_submodule("attention").bias = nn.Parameter(torch.zeros(2, 1, 1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.inner(self.embedding(ids), mask)


def scaled_by_length() -> tuple[nn.Module, nn.Module, Tensor]:
    """A model whose rows are others at each length, the same transformed, and rows to take some of."""
    model = Around(lambda self, x: self.inner(x) * (1 + x.shape[1]))
    model.inner.position = nn.Parameter(torch.zeros(1, 1, WIDTH))
    optimized = optimize(model, EAGER)
    x = torch.randn(2, 40, WIDTH, generator=torch.Generator().manual_seed(0))
    return model, optimized, x


@torch.no_grad()
def test_a_session_restarts_when_rows_are_others_for_another_length_and_says_so_once() -> None:
    model, optimized, x = scaled_by_length()
    with warnings.catch_warnings(record=True) as caught, marche_fx.decoding(optimized):
        warnings.simplefilter("always")
        for length in (20, 20, 24, 24, 28):
            found = optimized(x[:, :length])[:, -1]
            assert torch.allclose(found, model(x[:, :length])[:, -1], atol=1e-5)
    assert active(optimized) == [20, 8, 24, 8, 28]
    (told,) = [warning for warning in caught if "in the same session" in str(warning.message)]
    assert "24 tokens after another number" in str(told.message)
    assert "since aten.mul (around.py:" in str(told.message)
    assert told.filename == __file__


@torch.no_grad()
def test_lengths_that_take_turns_keep_their_rows_and_are_not_told_of() -> None:
    _, optimized, x = scaled_by_length()
    with warnings.catch_warnings(), marche_fx.decoding(optimized):
        warnings.simplefilter("error")
        for length in (24, 20, 24, 20, 24):
            (optimized(x[:, :length])[:, -1] + 0).sum()
    assert active(optimized) == [24, 20, 8, 8, 8]


@torch.no_grad()
def test_batch_size_and_length_may_differ_between_sessions() -> None:
    model = AnyLength().eval()
    optimized = optimize(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for samples, length in ((1, 12), (3, 12), (3, 17), (1, 12)):
            with marche_fx.decoding(optimized):
                ids, mask = torch.ones(samples, length, dtype=torch.long), torch.ones(samples, length, dtype=torch.bool)
                assert same(optimized(ids, mask), model(ids, mask))
    assert captures(optimized) == 3


def test_padding_may_differ_by_sample_and_from_step_to_step() -> None:
    model = AnyLength().eval()
    ids = torch.randint(7, (2, 20), generator=torch.Generator().manual_seed(0))
    lengths = [torch.tensor(pair)[:, None] for pair in ([12, 20], [13, 17], [20, 5])]
    masks = [torch.arange(20) < length for length in lengths]
    optimized = check(model, *(((ids, mask), {}) for mask in masks))
    assert captures(optimized) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    optimized = check(transformer().to(dtype), ((X.to(dtype),), {}), ((MOVED.to(dtype),), {}))
    assert captures(optimized) == 1


def test_layouts_of_memory_do_not_matter() -> None:
    model = Around(lambda model, x: model.inner(x.reshape(2, -1, WIDTH)))
    check(model, ((X,), {}), ((MOVED.mT.contiguous().mT,), {}), ((X[:1].expand(2, -1, -1),), {}), ((X.flip(1)[:],), {}))
