"""A step becomes a functional graph that computes what the step computes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.errors import CaptureError, UnsupportedModelError
from marche_fx.models.mar import MAR
from marche_fx.passes.capture.alone import tracing_alone
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.captured import Capture
from marche_fx.passes.graph.source import describe, module_path, source_line
from tests.graphs import Function, capture_function, graph_text, named
from tests.networks import small_mar

aten = torch.ops.aten


class Scaled(nn.Module):
    """Writes in place and drops out, as models do."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.proj = nn.Linear(4, 4, bias=False)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("scale", torch.tensor(3.0))

    def forward(self, x: Tensor, power: int = 1) -> Tensor:
        y = self.drop(self.proj(self.norm(x)))
        y *= self.scale**power
        return y


def test_a_step_as_a_graph() -> None:
    captured = capture(Scaled().eval(), "forward", (torch.randn(2, 5, 4),), {"power": 2})
    assert graph_text(captured.graph_module.graph) == (
        """\
layer_norm = aten.layer_norm(leaves_0, [4], norm_weight, norm_bias)
linear = aten.linear(layer_norm, proj_weight)
pow_1 = aten.pow(scale, 2)
mul = aten.mul(linear, pow_1)
return mul"""
    )
    assert set(captured.weights.values()) == {"norm.weight", "norm.bias", "proj.weight", "scale"}
    # The number is baked into the graph, the tensor enters it.
    assert [leaf.node is None for leaf in captured.inputs] == [False, True]


def run(captured: Capture, model: nn.Module, *args: Any) -> Any:
    """The captured graph on the model's own weights."""
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    values = {node: state[path] for node, path in captured.weights.items()} | dict(captured.constants)
    values |= {leaf.node: arg for leaf, arg in zip(captured.inputs, args, strict=True) if leaf.node is not None}
    graph = captured.graph_module.graph
    return captured.graph_module(*[values[node] for node in graph.find_nodes(op="placeholder")])


def test_weights_are_the_model_s_own() -> None:
    model = Scaled().eval()
    x = torch.randn(2, 5, 4)
    captured = capture(model, "forward", (x,))
    with torch.no_grad():
        model.proj.weight.mul_(2)
    assert torch.equal(run(captured, model, x)[0], model(x))


def dropping_masks(samples: int, tokens: int, count: int, seed: int) -> Tensor:
    order = torch.rand(samples, tokens, generator=torch.Generator().manual_seed(seed)).argsort(-1)
    return (order < count).float()


@pytest.fixture(scope="module")
def mar() -> MAR:
    torch.manual_seed(0)
    return small_mar().eval()


@pytest.fixture(scope="module")
def encoder(mar: MAR) -> Capture:
    args = (torch.randn(2, 9, 4), dropping_masks(2, 9, 4, 0), torch.randn(2, 16))
    return capture(mar, "forward_mae_encoder", args)


@pytest.fixture(scope="module")
def decoder(mar: MAR) -> Capture:
    return capture(mar, "forward_mae_decoder", (torch.randn(2, 7, 16), dropping_masks(2, 9, 4, 0)))


@given(count=st.integers(0, 8), seed=st.integers(0, 99))
@torch.no_grad()
def test_one_capture_holds_for_every_number_of_dropped_tokens(
    mar: MAR, encoder: Capture, decoder: Capture, count: int, seed: int
) -> None:
    torch.manual_seed(seed)
    mask = dropping_masks(2, 9, count, seed)
    args = (torch.randn(2, 9, 4), mask, torch.randn(2, 16))
    (found,) = run(encoder, mar, *args)
    assert torch.equal(found, mar.forward_mae_encoder(*args))
    assert decoder.accepts((found, mask), {})
    assert torch.equal(run(decoder, mar, found, mask)[0], mar.forward_mae_decoder(found, mask))


def test_a_capture_accepts_what_it_holds_for(decoder: Capture) -> None:
    mask = dropping_masks(2, 9, 4, 0)
    assert decoder.accepts((torch.randn(2, 3, 16), mask), {})
    assert not decoder.accepts((torch.randn(3, 3, 16), mask), {})
    assert not decoder.accepts((torch.randn(2, 3, 16, dtype=torch.float64), mask), {})
    assert not decoder.accepts((torch.randn(2, 3, 16),), {"mask": mask})
    scaled = capture(Scaled().eval(), "forward", (torch.randn(2, 5, 4), 2))
    assert scaled.accepts((torch.randn(2, 5, 4), 2), {})
    assert not scaled.accepts((torch.randn(2, 5, 4), 3), {})
    assert not scaled.accepts((torch.randn(2, 5, 4), 2.0), {})


def test_arguments_that_are_one_tensor_stay_two_inputs() -> None:
    model = Function(lambda x, y: x - 2 * y).eval()
    x, y = torch.randn(3), torch.randn(3)
    captured = capture(model, "forward", (x, x))
    assert torch.equal(run(captured, model, x, y)[0], x - 2 * y)


def test_an_argument_that_is_a_weight_stays_an_input() -> None:
    model = nn.Linear(4, 4, bias=False).eval()
    captured = capture(model, "forward", (model.weight,))
    x = torch.randn(4, 4)
    assert torch.equal(run(captured, model, x)[0], model(x))


def test_a_copy_of_an_argument_stays_a_copy() -> None:
    x = torch.randn(3)
    captured = capture_function(lambda x: x.clone(), x)
    assert run(captured, nn.Module(), x)[0] is not x


FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, 1).index_fill(1, torch.tensor([1]), 0.0) * 2,
    "in place": lambda x: x.clone().transpose(0, 1).index_fill_(1, torch.tensor([1]), 3.0) * 2,
    "one tensor": lambda x: x.index_fill(-1, torch.tensor([3, 1]), torch.tensor(0.5)),
    "one index": lambda x: x.index_fill(0, torch.tensor(0), 1),
    "expanded": lambda x: x[:1].expand(2, 3, 4).index_fill(0, torch.tensor([1]), 1.0),
    "a number": lambda x: x + x.sum().index_fill(0, torch.tensor([0]), 7.0),
    "integers": lambda x: x.long().index_fill(1, torch.tensor([2]), 9),
}


@pytest.mark.parametrize("name", FILLS)
def test_filled_rows_are_written_and_not_copied(name: str) -> None:
    x = torch.randn(2, 3, 4)
    captured = capture_function(FILLS[name], x)
    assert torch.equal(run(captured, nn.Module(), x)[0], FILLS[name](x))
    targets = {str(node.target) for node in captured.graph_module.graph.nodes}
    assert "aten.index_put.default" in targets or "aten.index_copy.default" in targets
    assert not any(own.startswith("prims") or own == "aten.copy_.default" for own in targets)


def test_what_was_a_view_of_filled_rows_is_captured_as_one() -> None:
    def flat(x: Tensor) -> Tensor:
        return x.transpose(0, 1).index_fill(1, torch.tensor([1]), 0.0).transpose(0, 1).view(-1)

    shapes = [
        node.meta["val"].shape
        for node in capture_function(flat, torch.randn(2, 3, 4)).graph_module.graph.nodes
        if "val" in node.meta
    ]
    assert shapes[-1] == (24,)


def test_checks_on_sizes_are_gone(encoder: Capture, decoder: Capture) -> None:
    for captured in (encoder, decoder):
        assert "assert" not in graph_text(captured.graph_module.graph)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_mode_of_the_caller_is_not_recorded(mode: Any) -> None:
    model = Scaled().eval()
    x = torch.randn(2, 5, 4)
    expected = graph_text(capture(model, "forward", (x,)).graph_module.graph)
    with mode():
        assert graph_text(capture(model, "forward", (x,)).graph_module.graph) == expected


def test_autocast_is_recorded_but_for_the_casts_of_weights() -> None:
    x = torch.randn(2, 5, 4)
    linear = nn.Linear(4, 4).eval()
    model = Function(lambda x: linear(x) + torch.ones(4).to(linear(x).dtype))
    model.linear = linear
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        captured = capture(model, "forward", (x,))
        assert captured.accepts((x,), {})
        assert torch.equal(run(captured, model, x)[0], model(x))
    assert not captured.accepts((x,), {})
    linears = [node for node in captured.graph_module.graph.nodes if node.target is aten.linear.default]
    assert linears
    for node in linears:
        x_cast, weight, bias = node.all_input_nodes
        assert x_cast.target is aten._to_copy.default
        assert (weight.op, bias.op) == ("placeholder", "placeholder")


def test_a_forward_under_no_grad_is_inlined() -> None:
    captured = capture_function(torch.no_grad()(lambda x: torch.relu(x) + 1), torch.randn(3))
    assert graph_text(captured.graph_module.graph) == (
        """\
relu = aten.relu(leaves_0)
add = aten.add(relu, 1)
return add"""
    )


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x)) - 1


def test_a_node_knows_its_module_and_source_line() -> None:
    graph = capture(Twice().eval(), "forward", (torch.randn(2, 4),)).graph_module.graph
    assert [module_path(named(graph, name)) for name in ("linear", "linear_1", "sub")] == ["inner.0", "inner.0", ""]
    line = Twice.forward.__code__.co_firstlineno + 1
    assert source_line(named(graph, "relu_1")) == f"test_capture.py:{line}"
    assert describe(named(graph, "relu_1")) == f"aten.relu at inner.1 (test_capture.py:{line})"


class Decoder(nn.Module):
    def decode(self, x: Tensor) -> Tensor:
        x = x * 2
        return self.shifted(x)

    def shifted(self, x: Tensor) -> Tensor:
        return x - 1

    forward = decode


@pytest.mark.parametrize("step", ["decode", "forward"])
def test_a_node_of_a_method_of_another_name_knows_its_line(step: str) -> None:
    graph = capture(Decoder().eval(), step, (torch.randn(2, 4),)).graph_module.graph
    first = Decoder.decode.__code__.co_firstlineno
    assert [source_line(named(graph, name)) for name in ("mul", "sub")] == [
        f"test_capture.py:{first + 1}",
        f"test_capture.py:{first + 2}",
    ]


class Counts(nn.Module):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


def test_a_step_that_writes_a_buffer_is_refused() -> None:
    line = Counts.forward.__code__.co_firstlineno + 1
    match = rf"Counts\.forward writes the buffer 'calls' in aten\.add \(test_capture\.py:{line}\)"
    with pytest.raises(UnsupportedModelError, match=match):
        capture(Counts().eval(), "forward", (torch.randn(3),))


def test_a_branch_on_values_is_refused_by_its_line() -> None:
    linear = nn.Linear(3, 3)
    model = Function(lambda x: x if linear(x).sum() > 0 else -x)
    model.linear = linear
    match = r"cannot capture Function\.forward \(test_capture\.py:\d+, `.*(?s:.)*torch\.where"
    with pytest.raises(CaptureError, match=match):
        capture(model.eval(), "forward", (torch.randn(3),))


def test_an_operator_that_export_does_not_know_is_named_with_its_line() -> None:
    with pytest.raises(CaptureError, match=r"\(test_capture\.py:\d+, `.*numpy.*(?s:.)*draft_export"):
        capture_function(lambda x: x + float(x.numpy().sum()), torch.randn(3))


def test_inactive_dropout_is_not_random() -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(F.dropout(x, 0.5, training=False), x, x, dropout_p=0.0)

    capture_function(attend, torch.randn(1, 3, 4))
    with pytest.raises(UnsupportedModelError, match=r"draws random numbers in aten\.native_dropout"):
        capture_function(lambda x: F.dropout(x, 0.5, training=True), torch.randn(3))


def test_plain_values_of_any_type_are_baked_in() -> None:
    model = Function(lambda x, dtype, device, text: x.to(device, dtype) + len(text)).eval()
    x = torch.randn(3)
    captured = capture(model, "forward", (x, torch.float64, torch.device("cpu"), "ab"))
    assert torch.equal(run(captured, model, x, None, None, None)[0], x.double() + 2)
    assert captured.accepts((x, torch.float64, torch.device("cpu"), "ab"), {})
    assert not captured.accepts((x, torch.float32, torch.device("cpu"), "ab"), {})


@pytest.mark.parametrize("is_enabled", [True, False])
def test_garbage_is_collected_afterwards_as_before(is_enabled: bool) -> None:
    (gc.enable if is_enabled else gc.disable)()
    try:
        with pytest.raises(CaptureError, match="within"):
            fail_within_traces()
        assert gc.isenabled() == is_enabled
    finally:
        gc.enable()


def fail_within_traces() -> None:
    with tracing_alone():
        with tracing_alone():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise CaptureError("within")


class Halves(nn.Module):
    """Writes into its argument what it computes of that alone."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.proj(x.mul_(0.5))
        return found


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_step_that_writes_into_its_argument_is_captured_in_inference_mode_too(mode: Callable[[], Any]) -> None:
    with mode():
        x = torch.ones(2, 5, 4)
        captured = capture(Halves().eval(), "forward", (x,))
        assert captured.writes is not None
        assert torch.equal(x, torch.ones(2, 5, 4))
        captured.writes.make(((x,), {}))
        assert torch.equal(x, torch.full((2, 5, 4), 0.5))


@torch.compile(fullgraph=True, backend="eager")
def scaled_under_compile(x: Tensor) -> Tensor:
    return x * 3 + 1


class CompilesItself(nn.Module):
    """Has a function of its own under torch.compile, as NOVA's rotary embedding does."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.proj(scaled_under_compile(x))
        return found


@torch.no_grad()
def test_a_step_with_a_compiled_function_is_captured_and_the_function_stays_what_it_is() -> None:
    model, x = CompilesItself().eval(), torch.randn(2, 5, 4)
    captured = capture(model, "forward", (x,))
    assert "aten.mul" in graph_text(captured.graph_module.graph)
    # Called under the modes of a capture, it would not be compiled by anybody any longer, which is an error for it.
    assert torch.equal(model(x), model.proj(x * 3 + 1))
