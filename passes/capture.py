"""Capture a model's step as a functional ATen graph with `torch.export`."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..errors import CaptureError, MarcheError
from .arguments import check_arguments, check_results, closed, opened
from .normalise import remove_checks, remove_copies, remove_weight_casts, split_by_slices
from .reach import ancestors
from .refusals import AssignmentError, refuse_assignments, refuse_random, refuse_weights, refuse_writes
from .source import CAPTURED, LIBRARY_FRAMES, strip_wrapper
from .structure import attributes, changed_attributes

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


@dataclass(frozen=True)
class Input:
    """A leaf of the step's arguments: a tensor that enters the graph as ``node``, or a value baked into it."""

    node: fx.Node | None
    value: Any
    """The baked value; for a tensor its fake, whose dropped-token dimensions are symbolic."""

    def accepts(self, argument: Any) -> bool:
        """Whether the graph holds for ``argument``: same type, dtype, device and static sizes, or the same value."""
        if self.node is None:
            same = argument is self.value or (not isinstance(argument, Tensor) and argument == self.value)
            return type(argument) is type(self.value) and same
        return (
            isinstance(argument, Tensor)
            and argument.dtype == self.value.dtype
            and argument.device == self.value.device
            and argument.layout == self.value.layout
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
    """A method of ``model`` on the tensors among its arguments as a module, which is what `torch.export` takes."""

    def __init__(self, model: nn.Module, step: str, leaves: list[Any], spec: pytree.TreeSpec) -> None:
        super().__init__()
        setattr(self, CAPTURED, model)
        self.step = step
        self.plain = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]
        self.spec = spec
        self.training = model.training

    @property
    def name(self) -> str:
        return f"{type(getattr(self, CAPTURED)).__name__}.{self.step}"

    def call(self, leaves: list[Tensor]) -> Any:
        model, tensors = getattr(self, CAPTURED), iter(leaves)
        merged = [next(tensors) if is_tensor else plain for plain, is_tensor in zip(self.plain, self.is_tensor)]
        args, kwargs = closed(pytree.tree_unflatten(merged, self.spec))
        return opened(getattr(model, self.step)(*args, **kwargs))

    def forward(self, leaves: list[Tensor]) -> Any:
        model = getattr(self, CAPTURED)
        before = attributes(model)
        with weights_restored(model):
            results = self.call(leaves)
            refuse_assignments(self.name, model, changed_attributes(before, attributes(model)))
        check_results(self.name, results)
        return results


@contextmanager
def weights_restored(model: nn.Module) -> Iterator[None]:
    """Put back what the step makes of its parameters and buffers; `torch.export` does so for other attributes."""
    tables: list[Any] = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, own in zip(tables, before):
            table.clear()
            table.update(own)


class KeepsTwoTokens(TorchFunctionMode):
    """Promise that every `nonzero`, and every mask ``[B, N]`` that indexes, finds at least two positions a sample.

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
        elif func is torch.Tensor.__getitem__ and is_token_mask(args[1]):
            torch._check(result.shape[0] >= 2 * self.samples)
        return result


def is_token_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype is torch.bool and index.ndim == 2


def capture(model: nn.Module, step: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Capture:
    """Capture ``model.step(*args, **kwargs)``.

    Before:  a bound method of a module, with real arguments
    After:   layer_norm = aten.layer_norm(add, ...);  linear = aten.linear(layer_norm, p_weight, p_bias);  ...

    Sizes are static but for dimensions that count the tokens kept after dropping masked ones. In-place writes are
    functional, checks on symbolic sizes and copies without effect are gone.

    Raises:
        ArgumentError: an argument is neither a tensor nor a plain value, nor made of them.
        CaptureError: `torch.export` cannot trace the step.
        UnsupportedModelError: the step writes a buffer, an attribute or an argument, or draws random numbers, which no
            cached step could repeat; or its weights have no values.
    """
    call = opened((args, kwargs or {}))
    check_arguments(step, call)
    refuse_weights(model)
    leaves, spec = pytree.tree_flatten(call)
    wrapped = Step(model, step, leaves, spec)
    # torch.export takes arguments that are one tensor, or a weight, for one; later calls may pass different ones.
    tensors = [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)]
    try:
        exported = export(wrapped, tensors)
    except AssignmentError:
        # A table that the model makes at its first call and keeps is not made in the second.
        with plain_mode():
            wrapped.call(tensors)
        exported = export(wrapped, tensors)
    dropped = dropped_token_dimensions(exported)
    if any(dropped):
        exported = export(wrapped, tensors, dropped)
    with plain_mode():
        functional = exported.run_decompositions(decompositions())
    refuse_writes(functional, wrapped.name, call, [own.name for own in user_inputs(functional)])
    refuse_random(functional.graph, wrapped.name)
    return as_capture(functional, step, leaves, spec, Autocast.current(leaves))


def export(
    step: Step, tensors: list[Tensor], dynamic: list[dict[int, Any] | None] | None = None
) -> torch.export.ExportedProgram:
    samples = next((len(tensor) for tensor in tensors if tensor.ndim), 1)
    shapes = None if dynamic is None else {"leaves": dynamic}
    try:
        with plain_mode(), KeepsTwoTokens(samples):
            return torch.export.export(step, (tensors,), dynamic_shapes=shapes, strict=False)
    except MarcheError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise CaptureError(
            f"torch.export cannot capture {step.name}{failing_line(step, error)}: {type(error).__name__}: {reason}\n"
            + (BRANCHES if "data-dependent" in reason else TRACES)
        ) from error


BRANCHES = (
    "A graph has one path, and this line asks Python for the value of a tensor. Choose with torch.where instead of a "
    "branch, or move the branch out of the step."
)
TRACES = (
    "A step must be a function of its tensors that torch.export can trace; torch.export.draft_export(...) on the "
    "original lists what stands in the way."
)


def failing_line(step: Step, error: Exception) -> str:
    """`` at blocks.0 (model.py:41, `if x.sum() > 0:`)``: the last frame of ``error`` in the model's own code."""
    library = (*LIBRARY_FRAMES, str(Path(torch.__file__).parent))
    paths = {id(module): path for path, module in getattr(step, CAPTURED).named_modules()}
    inside, found = False, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if frame.f_code is Step.forward.__code__:
            inside = True
        elif inside and not any(part in file for part in library):
            path = paths.get(id(frame.f_locals.get("self")))
            summary = traceback.FrameSummary(file, number, frame.f_code.co_name)
            source = f", `{summary.line}`" if summary.line else ""
            found = (f" at {path}" if path else "") + f" ({Path(file).name}:{number}{source})"
    return found


@contextmanager
def plain_mode() -> Iterator[None]:
    """Neither gradients nor inference mode, which would be recorded in the graph.

    Autocast stays on if it is: its casts become operators, and code that asks for a dtype gets the one it would get.
    """
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # torch.export copies its own tree specifications in a way that it deprecates itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
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
        masks = [index.meta["val"] for index in indices if index is not None]
        if not values.meta["val"].ndim:
            continue
        rows, samples = values.meta["val"].shape[0], node.meta["val"].shape[0]
        # Rows that the step itself dropped and now puts back are counted by a symbol already.
        counted = any(is_token_mask(mask) or isinstance(mask.shape[0], torch.SymInt) for mask in masks)
        if isinstance(rows, torch.SymInt) or not counted:
            continue
        for source in ancestors([values]):
            shape: tuple[Any, ...] = getattr(source.meta.get("val"), "shape", ())
            if source.op == "placeholder" and len(shape) > 1 and shape[0] == samples and shape[0] * shape[1] == rows:
                found.add(source.name)
    names = [argument.name for argument in user_inputs(exported)]
    return [{1: torch.export.Dim.AUTO} if name in found else None for name in names]


def as_capture(
    exported: torch.export.ExportedProgram,
    step: str,
    leaves: list[Any],
    in_spec: pytree.TreeSpec,
    autocast: Autocast,
) -> Capture:
    signature = exported.graph_signature
    graph_module = exported.graph_module
    by_name = {node.name: node for node in graph_module.graph.nodes if node.op == "placeholder"}
    weights, constants = {}, {}
    placeholders = iter(user_inputs(exported))
    inputs: list[Input] = []
    for leaf in leaves:
        node = by_name[next(placeholders).name] if isinstance(leaf, Tensor) else None
        inputs.append(Input(node, leaf if node is None else node.meta["val"]))
    for spec in signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            continue
        if not by_name[spec.arg.name].users:
            graph_module.graph.erase_node(by_name[spec.arg.name])
        elif spec.target in exported.constants:
            constants[by_name[spec.arg.name]] = exported.constants[spec.target]
        else:
            weights[by_name[spec.arg.name]] = strip_wrapper(str(spec.target))
    if autocast.enabled:
        remove_weight_casts(graph_module.graph, weights)
    remove_checks(graph_module.graph)
    remove_copies(graph_module.graph)
    split_by_slices(graph_module.graph)
    graph_module.recompile()
    out_spec = exported.call_spec.out_spec
    assert out_spec is not None
    return Capture(step, graph_module, weights, constants, tuple(inputs), in_spec, out_spec, autocast)
