"""Capture a model's step as a functional ATen graph with `torch.export`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..errors import CaptureError, UnsupportedModelError
from .reach import ancestors
from .source import CAPTURED, strip_wrapper

aten = torch.ops.aten

COMPOSITES = (
    "scaled_dot_product_attention",
    "linear",
    "layer_norm",
    "rms_norm",
    "gelu",
    "silu",
    "softmax",
    "matmul",
    "einsum",
    "embedding",
)
"""Operators that stay whole: passes recognise them and their kernels are faster than their parts."""


CASTS_WEIGHTS = (aten.linear.default, aten.addmm.default, aten.mm.default, aten.matmul.default)
"""Products that autocast runs in its own dtype."""


@dataclass(frozen=True)
class Input:
    """A leaf of the step's arguments: a tensor that enters the graph as ``node``, or a value baked into it."""

    node: fx.Node | None
    value: Any
    """The baked value; for a tensor its fake, whose dropped-token dimensions are symbolic."""

    def accepts(self, argument: Any) -> bool:
        """Whether the graph holds for ``argument``: same type, dtype, device and static sizes, or the same value."""
        if self.node is None:
            return type(argument) is type(self.value) and not isinstance(argument, Tensor) and argument == self.value
        return (
            isinstance(argument, Tensor)
            and argument.dtype == self.value.dtype
            and argument.device == self.value.device
            and argument.ndim == self.value.ndim
            and all(not isinstance(own, int) or own == new for own, new in zip(self.value.shape, argument.shape))
        )


@dataclass(frozen=True)
class Autocast:
    """The state of `torch.autocast` on the device of a step's tensors."""

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def current(cls, leaves: list[Any]) -> Autocast:
        device_type = next((leaf.device.type for leaf in leaves if isinstance(leaf, Tensor)), "cpu")
        return cls(device_type, torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type))

    def restored(self) -> torch.autocast:
        """A context in which this is the state again."""
        return torch.autocast(self.device_type, self.dtype, self.enabled)


@dataclass(frozen=True)
class Capture:
    """A step as a graph.

    The graph's placeholders are the weights (parameters, buffers and tensor constants) and the tensors among the
    step's arguments; its outputs the flattened results.
    """

    step: str
    graph_module: fx.GraphModule
    weights: dict[fx.Node, str]
    """Placeholder to path of the parameter or buffer in the model; looked up at every call, never copied."""
    constants: dict[fx.Node, Tensor]
    inputs: tuple[Input, ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    autocast: Autocast
    """The graph holds its casts and must run under it."""

    def accepts(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.in_spec or Autocast.current(leaves) != self.autocast:
            return False
        return all(own.accepts(leaf) for own, leaf in zip(self.inputs, leaves))


class Step(nn.Module):
    """A method of ``model`` on flat arguments as a module, which is what `torch.export` takes."""

    def __init__(self, model: nn.Module, step: str, spec: pytree.TreeSpec) -> None:
        super().__init__()
        setattr(self, CAPTURED, model)
        self.step = step
        self.spec = spec
        self.training = model.training

    def forward(self, leaves: list[Any]) -> Any:
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return getattr(getattr(self, CAPTURED), self.step)(*args, **kwargs)


class KeepsTwoTokens(TorchFunctionMode):
    """Promise that every `nonzero` finds at least two positions a sample.

    Dropping masked tokens has a data-dependent length, and export asks whether it is 0 or 1. With this promise the
    length stays symbolic; the graph checks it when it runs.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.nonzero, torch.nonzero):
            for found in result if isinstance(result, tuple) else (result,):
                torch._check(found.shape[0] >= 2 * self.samples)
        return result


def capture(model: nn.Module, step: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Capture:
    """Capture ``model.step(*args, **kwargs)``.

    Before:  a bound method of a module, with real arguments
    After:   layer_norm = aten.layer_norm(add, ...);  linear = aten.linear(layer_norm, p_weight, p_bias);  ...

    Sizes are static but for dimensions that count the tokens kept after dropping masked ones. In-place writes are
    functional, checks on symbolic sizes and copies without effect are gone.

    Raises:
        CaptureError: `torch.export` cannot trace the step.
        UnsupportedModelError: the step writes a buffer, which no cached step could repeat.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs or {}))
    # torch.export takes arguments that are one tensor, or a weight, for one; later calls may pass different ones.
    leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    wrapped = Step(model, step, spec)
    exported = export(wrapped, leaves)
    dropped = dropped_token_dimensions(exported)
    if any(dropped):
        exported = export(wrapped, leaves, dropped)
    with plain_mode():
        functional = exported.run_decompositions(decompositions())
    return as_capture(functional, step, spec, Autocast.current(leaves))


def export(
    step: Step, leaves: list[Any], dynamic: list[dict[int, Any] | None] | None = None
) -> torch.export.ExportedProgram:
    samples = next((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim), 1)
    shapes = None if dynamic is None else {"leaves": dynamic}
    try:
        with plain_mode(), KeepsTwoTokens(samples):
            return torch.export.export(step, (leaves,), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise CaptureError(
            f"torch.export cannot capture {type(getattr(step, CAPTURED)).__name__}.{step.step}: {error}\n"
            "A step must be a function of its tensors without Python branches on their values; "
            f"torch.export.draft_export(...) on {step.step!r} lists what stands in the way."
        ) from error


@contextmanager
def plain_mode() -> Iterator[None]:
    """Neither gradients nor inference mode, which would be recorded in the graph.

    Autocast stays on if it is: its casts become operators, and code that asks for a dtype gets the one it would get.
    """
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # torch.export copies its own tree specifications in a way that it deprecates itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        yield


def decompositions() -> dict[Any, Callable]:
    table = torch.export.default_decompositions()
    for operator in list(table):
        name = operator.name().removeprefix("aten::").split(".")[0]
        if name in COMPOSITES:
            del table[operator]
    return table


def user_inputs(exported: torch.export.ExportedProgram) -> list[Any]:
    return [spec.arg for spec in exported.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]


def dropped_token_dimensions(exported: torch.export.ExportedProgram) -> list[dict[int, Any] | None]:
    """For each leaf, its dimension that counts kept tokens, marked dynamic: rows written where `nonzero` says.

    Exported with real arguments such a dimension is static, although it changes from step to step:
    ``index_put(padded [2, 264, 96], nonzero(...) [u0, 2], view(x [2, 40, 96]) [80, 96])``.
    """
    found: set[str] = set()
    for node in exported.graph.nodes:
        if node.target not in (aten.index_put.default, aten.index_put_.default):
            continue
        arguments: tuple[Any, ...] = node.args
        _, indices, values = arguments[:3]
        counts = [index.meta["val"].shape[0] for index in indices if index is not None]
        rows, samples = values.meta["val"].shape[0], node.meta["val"].shape[0]
        # Rows that the step itself dropped and now puts back are counted by a symbol already.
        if isinstance(rows, torch.SymInt) or not any(isinstance(count, torch.SymInt) for count in counts):
            continue
        for source in ancestors([values]):
            shape: tuple[Any, ...] = getattr(source.meta.get("val"), "shape", ())
            if source.op == "placeholder" and len(shape) > 1 and shape[0] == samples and shape[0] * shape[1] == rows:
                found.add(source.name)
    names = [argument.name for argument in user_inputs(exported)]
    return [{1: torch.export.Dim.AUTO} if name in found else None for name in names]


def as_capture(
    exported: torch.export.ExportedProgram, step: str, in_spec: pytree.TreeSpec, autocast: Autocast
) -> Capture:
    signature = exported.graph_signature
    written = [spec.target for spec in signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION]
    if written:
        raise UnsupportedModelError(
            f"{step} writes the buffer {strip_wrapper(str(written[0]))!r}; a step that is only partly recomputed "
            "cannot repeat that. Move the write out of the step."
        )
    graph_module = exported.graph_module
    by_name = {node.name: node for node in graph_module.graph.nodes if node.op == "placeholder"}
    weights, constants = {}, {}
    inputs: list[Input] = []
    for spec in signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            constant = isinstance(spec.arg, ConstantArgument)
            node = None if constant else by_name[spec.arg.name]
            inputs.append(Input(node, spec.arg.value if node is None else node.meta["val"]))
        elif not by_name[spec.arg.name].users:
            graph_module.graph.erase_node(by_name[spec.arg.name])
        elif spec.target in exported.constants:
            constants[by_name[spec.arg.name]] = exported.constants[spec.target]
        else:
            weights[by_name[spec.arg.name]] = strip_wrapper(str(spec.target))
    if autocast.enabled:
        remove_weight_casts(graph_module.graph, weights)
    remove_checks(graph_module.graph)
    remove_copies(graph_module.graph)
    graph_module.recompile()
    out_spec = exported.call_spec.out_spec
    assert out_spec is not None
    return Capture(step, graph_module, weights, constants, tuple(inputs), in_spec, out_spec, autocast)


def remove_weight_casts(graph: fx.Graph, weights: Iterable[fx.Node]) -> None:
    """Under autocast, let matrix products cast their weights themselves when they run: PyTorch does so once, not at
    every call."""
    for weight in weights:
        for cast in [user for user in weight.users if user.target is aten._to_copy.default]:
            if all(user.target in CASTS_WEIGHTS for user in cast.users):
                cast.replace_all_uses_with(weight)
                graph.erase_node(cast)


def remove_checks(graph: fx.Graph) -> None:
    """Erase assertions and the arithmetic on sizes that only they used."""
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in getattr(node.target, "__name__", ""):
            graph.erase_node(node)
    graph.eliminate_dead_code()


def remove_copies(graph: fx.Graph) -> None:
    """Erase copies that an in-place program needs and a functional one does not (inactive dropout leaves one)."""
    for node in list(graph.nodes):
        copies = node.target in (aten.clone.default, aten.alias.default, aten.detach.default) and not node.kwargs
        # A result that is an argument itself keeps its copy, so that the caller's tensor is not handed back to it.
        returned = any(user.op == "output" for user in node.users)
        if copies and not (returned and node.args[0].op == "placeholder"):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
