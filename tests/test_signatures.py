"""Whatever a model takes and returns, and whatever happens to it: right, or refused by name."""

from __future__ import annotations

import copy
import io
import pickle
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx import (
    ArgumentError,
    CaptureError,
    EquivalenceError,
    FullRefresh,
    SelectiveRefresh,
    UnsupportedModelError,
)
from marche_fx.lazy import LateTensor
from marche_fx.passes.arguments import opened
from marche_fx.transform import optimization_of
from tests.networks import BiasedAttention, Transformer

TOKENS, WIDTH = 20, 8
X = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
MOVED = X.clone()
MOVED[:, 3] += 1
EAGER = SelectiveRefresh(0.0, warmup=0)


def transformer(**options: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TOKENS, WIDTH, 2, depth=1, **options).eval()


class Around(nn.Module):
    """A transformer as ``inner`` in a forward of the test's own."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.inner = transformer()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def optimize(model: nn.Module, refresh: Any = None) -> nn.Module:
    return marche_fx.transform(model, refresh=refresh or FullRefresh(), compile=False)


def captures(optimized: nn.Module) -> int:
    return len(optimization_of(optimized).steps["forward"].programs)


def active(optimized: nn.Module) -> list[int]:
    session = optimization_of(optimized).last_session
    assert session is not None
    return [record.active for record in session.records]


def same(ours: Any, original: Any) -> bool:
    """Equal tensors and values in containers of the same types."""
    (left, left_spec), (right, right_spec) = pytree.tree_flatten(opened(ours)), pytree.tree_flatten(opened(original))
    pairs = zip(left, right, strict=True)
    return left_spec == right_spec and all(
        torch.equal(a.clone(), b) if isinstance(b, Tensor) else a == b for a, b in pairs
    )


@torch.no_grad()
def check(model: nn.Module, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> nn.Module:
    """Each call of one session gives what the original gives."""
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        for args, kwargs in calls:
            assert same(optimized(*args, **kwargs), model(*args, **kwargs))
    return optimized


def refused(model: nn.Module, error: type[Exception], match: str, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad(), pytest.raises(error, match=match):
        optimize(model)(*args, **kwargs)


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
    refused(
        transformer(), CaptureError, r"cannot capture Transformer\.forward.*unexpected keyword.*'bogus'", X, bogus=1
    )


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


@torch.no_grad()
def test_a_session_restarts_when_the_length_changes_and_says_so_once() -> None:
    model = AnyLength().eval()
    optimized = optimize(model, EAGER)
    ids = torch.randint(7, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 40, dtype=torch.bool)
    with warnings.catch_warnings(record=True) as caught, marche_fx.decoding(optimized):
        warnings.simplefilter("always")
        for length in (20, 20, 24, 24, 28):
            found = optimized(ids[:, :length], mask[:, :length])[:, -1]
            assert torch.allclose(found, model(ids[:, :length], mask[:, :length])[:, -1], atol=1e-6)
    assert active(optimized) == [20, 8, 24, 8, 28]
    (told,) = [warning for warning in caught if "in the same session" in str(warning.message)]
    assert "24 tokens after 20" in str(told.message)
    assert told.filename == __file__


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


# ------------------------------------------------------------------------------------------- what a step may not do


class KeepsLast(nn.Module):
    """State of each kind, in the module ``memory``."""

    calls: Tensor

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("calls", torch.zeros(()))
        self.last: Tensor | None = None
        self.count = 1
        self.store: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "calls":
            self.calls = self.calls + 1
        elif self.how == "last":
            self.last = x
        elif self.how == "count":
            self.count += 1
        elif self.how == "store":
            self.store["x"] = x
        return x


@pytest.mark.parametrize("how", ["calls", "last", "count", "store"])
def test_attributes_assigned_in_the_step_are_refused_by_name_and_line(how: str) -> None:
    model = Around(lambda model, x: model.inner(model.memory(x)), memory=KeepsLast(how))
    refused(model, UnsupportedModelError, rf"assigns the attribute 'memory\.{how}' \(test_signatures\.py:\d+\)", X)
    memory = model.get_submodule("memory")
    assert isinstance(memory, KeepsLast)
    assert all(type(left) is Tensor for left in (memory.calls, memory.last, memory.store.get("x")) if left is not None)


class Caches(nn.Module):
    """Makes a table when it meets a larger length than before."""

    table: Tensor | None

    def __init__(self, *, as_buffer: bool) -> None:
        super().__init__()
        self.as_buffer = as_buffer
        self.keep(None)

    def keep(self, table: Tensor | None) -> None:
        if self.as_buffer:
            self.register_buffer("table", table, persistent=False)
        else:
            self.table = table

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or len(self.table) < x.shape[1]:
            self.keep(torch.arange(x.shape[1])[:, None])
        assert self.table is not None
        return x + self.table[-x.shape[1] :] / 10


@pytest.mark.parametrize("as_buffer", [False, True])
@torch.no_grad()
def test_tables_that_a_model_makes_and_keeps_are_no_state(as_buffer: bool) -> None:
    model = Around(lambda model, x: model.inner(model.caches(x)), caches=Caches(as_buffer=as_buffer))
    model.inner.position = nn.Parameter(torch.zeros(1, 1, WIDTH))
    optimized = optimize(model)
    for length in (9, 12, 9, 12):
        with marche_fx.decoding(optimized):
            assert same(optimized(X[:, :length]), model(X[:, :length]))
            assert same(optimized(MOVED[:, :length]), model(MOVED[:, :length]))
    assert captures(optimized) == 2


def write_buffer(model: Any, x: Tensor) -> Tensor:
    model.norm.running_mean.mul_(0.5)
    return model.inner(x)


def write_weight(model: Any, x: Tensor) -> Tensor:
    model.inner.head.weight.mul_(0.5)
    return model.inner(x)


def write_argument(model: Any, x: Tensor) -> Tensor:
    x.mul_(0.5)
    return model.inner(x)


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (write_buffer, r"the buffer 'norm\.running_mean'"),
        (write_weight, r"the weight 'inner\.head\.weight'"),
        (write_argument, "positional argument 0"),
    ],
)
def test_writes_in_place_are_refused_by_name_and_line(forward: Callable[..., Tensor], what: str) -> None:
    model = Around(forward, norm=nn.BatchNorm1d(WIDTH))
    refused(model, UnsupportedModelError, rf"writes {what} in aten\.mul.*\.py:\d+\)", X.clone())


RANDOM: dict[str, Callable[..., Tensor]] = {
    "rand": lambda x: x + torch.rand(WIDTH),
    "randn_like": lambda x: x + torch.randn_like(x),
    "normal": lambda x: x + torch.empty(WIDTH).normal_(),
    "native_dropout": lambda x: F.dropout(x, 0.1, training=True),
    "multinomial": lambda x: x + x.softmax(-1)[:, 0].multinomial(1)[:, None],
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
}


@pytest.mark.parametrize("operator", RANDOM)
def test_random_operators_are_refused_by_name_and_line(operator: str) -> None:
    model = Around(lambda model, x: model.inner(RANDOM[operator](x)))
    refused(model, UnsupportedModelError, rf"random numbers in aten\.{operator}.*\(test_signatures\.py:\d+\)", X)


def test_random_numbers_from_elsewhere_fail_the_comparison() -> None:
    model = Around(lambda model, x: model.inner(x) + random.random())
    refused(model, EquivalenceError, "gives one result and then another for the same arguments", X)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_a_branch_on_values_is_refused_by_its_line() -> None:
    line = Branching.forward.__code__.co_firstlineno + 1
    match = rf"at branching \(test_signatures\.py:{line}, `if x\.sum\(\) > 0:`\).*(?s:.)*torch\.where"
    refused(Around(lambda model, x: model.inner(model.branching(x)), branching=Branching()), CaptureError, match, X)


def test_an_error_of_the_model_itself_is_named_with_its_line() -> None:
    refused(transformer(), CaptureError, r"networks\.py:\d+, `x = x \+ self\.position`", X[..., :3])


def test_weights_without_values_are_refused() -> None:
    model = transformer()
    model.head.to("meta")
    refused(model, UnsupportedModelError, r"'head\.weight' of Transformer is on the meta device.*load the weights", X)


# ----------------------------------------------------------------------------------------------- what a model may be


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradients[0]


def test_custom_autograd_functions() -> None:
    check(Around(lambda model, x: Square.apply(model.inner(x))), ((X,), {}), ((MOVED,), {}))


@pytest.mark.parametrize("where", ["", "inner", "inner.head"])
def test_hooks_change_results_as_they_do_in_the_original(where: str) -> None:
    model = Around(lambda model, x: model.inner(x))
    model.get_submodule(where).register_forward_hook(lambda module, args, output: output * 2)
    model.get_submodule(where).register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    check(model, ((X,), {}), ((MOVED,), {}))


@pytest.mark.parametrize("where", ["", "inner"])
def test_models_that_are_compiled_already(where: str) -> None:
    model: Any = Around(lambda model, x: model.inner(x))
    if where:
        model.inner = torch.compile(model.inner, backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    check(model, ((X,), {}), ((MOVED,), {}))
    in_place = Around(lambda model, x: model.inner(x))
    in_place.get_submodule(where).compile(backend="eager")
    check(in_place, ((X,), {}), ((MOVED,), {}))


@torch.no_grad()
def test_a_transformed_model_may_be_compiled() -> None:
    model = transformer()
    compiled = torch.compile(optimize(model), backend="eager")
    assert torch.equal(compiled(X).clone(), model(X))


def test_wrappers_for_several_devices_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"the model is wrapped in DataParallel.*model\.module"):
        optimize(nn.DataParallel(transformer()))
    inside = Around(lambda model, x: model.wrapped(x), wrapped=nn.DataParallel(transformer()))
    with pytest.raises(UnsupportedModelError, match="wrapped is wrapped in DataParallel"):
        optimize(inside)


class LowRank(nn.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


class EightBit(nn.Module):
    """A linear layer whose weight is stored in eight bits."""

    weight: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", (base.weight * 100).round().to(torch.int8))
        self.bias = base.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) / 100, self.bias)


def replace_linears(model: nn.Module, kind: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(path, kind(module))
    return model.eval()


@pytest.mark.parametrize("kind", [LowRank, EightBit])
def test_linear_layers_with_adapters_or_in_eight_bits(kind: Callable[[nn.Linear], nn.Module]) -> None:
    check(replace_linears(transformer(), kind), ((X,), {}), ((MOVED,), {}))


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_are_refused_by_name() -> None:
    model = torch.ao.quantization.quantize_dynamic(transformer(), {nn.Linear}).eval()
    refused(model, UnsupportedModelError, r"'blocks\.0\.attention\.qkv\._packed_params.*ScriptObject", X)


# ----------------------------------------------------------------------------------------- what may happen to a model


def replace_module(model: Transformer) -> None:
    model.head = nn.Linear(WIDTH, 5).eval()


def replace_by_another_kind(model: Transformer) -> None:
    model.norm = nn.Identity().eval()  # type: ignore[assignment]


def add_adapters(model: Transformer) -> None:
    replace_linears(model, LowRank)


def remove_bias(model: Transformer) -> None:
    model.head.bias = None  # type: ignore[assignment]


def reshape_weights(model: Transformer) -> None:
    model.head.weight, model.head.bias = nn.Parameter(torch.randn(5, WIDTH)), nn.Parameter(torch.randn(5))


def hook(model: Transformer) -> None:
    model.head.register_forward_hook(lambda module, args, output: output * 2)


def set_attribute(model: Transformer) -> None:
    model.norm.eps = 0.5


def shorten(model: Transformer) -> None:
    model.blocks = model.blocks[:0].eval()


CHANGES = [
    replace_module,
    replace_by_another_kind,
    add_adapters,
    remove_bias,
    reshape_weights,
    hook,
    set_attribute,
    shorten,
]


@pytest.mark.parametrize("change", CHANGES[:-1])
@torch.no_grad()
def test_the_next_session_sees_a_changed_model(change: Callable[[Transformer], None]) -> None:
    model = transformer()
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        before = model(X)
        assert same(optimized(X), before)
    assert isinstance(optimized, Transformer)
    change(optimized)
    with marche_fx.decoding(optimized):
        found = optimized(X).clone()
        assert torch.equal(found, model(X))
        assert found.shape != before.shape or not torch.equal(found, before)
    assert captures(optimized) == 1, "what was captured before is gone"


@torch.no_grad()
def test_a_model_left_without_attention_is_refused_in_the_next_session() -> None:
    model = transformer()
    optimized = optimize(model)
    optimized(X)
    shorten(model)
    with pytest.raises(UnsupportedModelError, match="no attention"):
        optimized(X)


class Configured(nn.Module):
    """A number of its own and one in a config."""

    class Config:
        scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()
        self.factor = 1.0
        self.config = Configured.Config()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor * self.config.scale


@torch.no_grad()
def test_attributes_set_on_the_transformed_model_count() -> None:
    model = Configured().eval()
    expected = model(X)
    optimized: Any = optimize(model)
    assert torch.equal(optimized(X), expected)
    optimized.factor = 2.0
    assert torch.equal(optimized(X), 2 * expected)
    optimized.config.scale = 4.0
    assert torch.equal(optimized(X), 8 * expected)
    assert model.factor == 1.0, "the original is left alone"


@torch.no_grad()
def test_the_mode_set_on_the_transformed_model_counts() -> None:
    optimized = optimize(transformer().train())
    assert same(optimized.eval()(X), optimized(X))
    with pytest.raises(UnsupportedModelError, match="training mode"):
        optimized.train()(X)


@torch.no_grad()
def test_weights_moved_cast_replaced_or_written_are_those_used() -> None:
    model = transformer()
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        assert same(optimized(X), model(X))
        optimized.double()
        assert same(optimized(X.double()), model(X.double()))
        model.float()
        assert same(optimized(X), model(X))
        model.head.weight = nn.Parameter(torch.randn(3, WIDTH))
        assert same(optimized(X), model(X))
        model.head.weight.mul_(3)
        assert same(optimized(X), model(X))
        optimized.load_state_dict(transformer().state_dict())
        assert same(optimized(X), transformer()(X))


@torch.no_grad()
def test_rows_cached_before_a_weight_changed_stay_until_they_are_recomputed() -> None:
    model = transformer()
    optimized = optimize(model, EAGER)
    rows = torch.arange(TOKENS) < 4
    with marche_fx.decoding(optimized):
        before = optimized(X).clone()
        model.head.bias.add_(1)
        found = optimized(X)
        assert torch.equal(found[:, rows], model(X)[:, rows])
        stale = (found.clone() == before).all(-1)
        assert stale.sum(1).tolist() == [TOKENS - 8, TOKENS - 8]
    with marche_fx.decoding(optimized):
        assert same(optimized(X), model(X))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, WIDTH)
        self.inner = transformer()
        self.inner.head = nn.Linear(WIDTH, 7, bias=False)
        self.inner.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.inner(self.embedding(ids))


@torch.no_grad()
def test_tied_weights_change_together_until_they_are_untied() -> None:
    model = Tied().eval()
    optimized = optimize(model)
    ids = torch.arange(2 * TOKENS).view(2, TOKENS) % 7
    assert same(optimized(ids), model(ids))
    model.embedding.weight.mul_(2)
    assert same(optimized(ids), model(ids))
    model.embedding.weight = nn.Parameter(torch.randn(7, WIDTH))
    assert same(optimized(ids), model(ids))


def test_a_transformed_model_is_neither_copied_nor_saved() -> None:
    optimized = optimize(transformer())
    with pytest.raises(ArgumentError, match="Copy the original"):
        copy.deepcopy(optimized)
    with pytest.raises(ArgumentError, match="state_dict"):
        torch.save(optimized, io.BytesIO())
