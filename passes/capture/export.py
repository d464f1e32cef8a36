"""Run `torch.export` on a model's method, and say in the user's terms where it cannot."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from traceback import StackSummary
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.proxy import TracerBase

from ..graph.source import is_library_frame
from .counting import Counted
from .dropping import KeepsTwoTokens
from .flex import flex_attention_written
from .scripts import compiled_functions_traced
from .step import Step, plain_mode


def export(
    step: Step, tensors: list[Tensor], dynamic: list[dict[int, Any] | None] | None = None
) -> torch.export.ExportedProgram:
    samples = next((len(tensor) for tensor in tensors if tensor.ndim), 1)
    shapes = None if dynamic is None else {"leaves": dynamic}
    promised, known, lines = KeepsTwoTokens(samples), Counted(step.sizes), lines_recorded(step.names)
    compiled, flex = compiled_functions_traced(), flex_attention_written()
    with in_users_terms(step), lines, plain_mode(), promised, known, compiled, flex:
        return torch.export.export(step, (tensors,), dynamic_shapes=shapes, strict=False)


@contextmanager
def in_users_terms(step: Step) -> Iterator[None]:
    """An error of PyTorch's says which step it is of, where, and what its user can do."""
    try:
        yield
    except Exception as error:
        failure = step.failure(error)
        if failure is error:
            raise
        raise failure from error


FILTER = "_filter_traceback_frames"
"""What PyTorch chooses the frames with whose lines are recorded of a node."""


@contextmanager
def lines_recorded(names: Collection[str]) -> Iterator[None]:
    """Record the lines of functions of these names, too: PyTorch keeps those of functions named ``forward`` alone."""
    choose, own = getattr(TracerBase, FILTER, None), threading.get_ident()
    if choose is None:
        # Another PyTorch, of which nobody knows how it chooses.
        yield
        return

    def chosen(tracer: TracerBase, stack: StackSummary) -> StackSummary:
        kept: StackSummary = choose(tracer, stack)
        if threading.get_ident() != own:
            return kept
        known = {id(frame) for frame in kept}
        return StackSummary.from_list(
            frame
            for frame in stack
            if id(frame) in known or (frame.name in names and not is_library_frame(frame.filename))
        )

    setattr(TracerBase, FILTER, chosen)
    try:
        yield
    finally:
        setattr(TracerBase, FILTER, choose)


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


def decomposed(exported: torch.export.ExportedProgram, step: Step) -> torch.export.ExportedProgram:
    """The same step of fewer kinds of operators, none of which writes."""
    keep_lines_inside(exported.graph_module)
    with in_users_terms(step), plain_mode(), few_overridden():
        return exported.run_decompositions(decompositions())


def keep_lines_inside(module: fx.GraphModule) -> None:
    """Let nodes of ``with torch.autocast(...)``, or ``torch.enable_grad()``, keep their lines and modules.

    Each such block is a graph of its own by now. PyTorch runs the code of it, which has lines of its own; node by node
    it has those of the nodes.
    """
    blocks = [node.args for node in module.graph.nodes if str(node.target).startswith("wrap_with_")]
    for argument in (own for args in blocks for own in args):
        inner = getattr(module, argument.target) if is_module(argument) else None
        if isinstance(inner, fx.GraphModule):
            inner.forward = fx.Interpreter(inner).run
            keep_lines_inside(inner)


def is_module(argument: Any) -> bool:
    return isinstance(argument, fx.Node) and argument.op == "get_attr"


SPLIT = "_split_decomp_table_to_cia_and_python_decomp"
"""What PyTorch finds out with, at each call, which composite operators to override."""


@contextmanager
def few_overridden() -> Iterator[None]:
    """Override a composite operator only where it is not taken apart as it takes itself apart, in this thread.

    PyTorch overrides all, some five hundred, for each program: a third of the time of a small one.
    """
    from torch.export import exported_program

    split, own = getattr(exported_program, SPLIT, None), threading.get_ident()
    if split is None:
        # A newer PyTorch, which does without it.
        yield
        return

    def split_here(table: dict[Any, Callable]) -> tuple[dict[Any, Callable], dict[Any, Callable]]:
        if threading.get_ident() != own:
            found: tuple[dict[Any, Callable], dict[Any, Callable]] = split(table)
            return found
        composites, others = ways(split)
        return dict(composites), dict(others)

    vars(exported_program)[SPLIT] = split_here
    try:
        yield
    finally:
        vars(exported_program)[SPLIT] = split


@functools.cache
def ways(split: Callable[..., Any]) -> tuple[dict[Any, Callable], dict[Any, Callable]]:
    """Composite operators that are not taken apart as they take themselves apart, and how; and how others are."""
    composites, others = split(dict(decompositions()))
    return {operator: way for operator, way in composites.items() if not is_its_own(operator, way)}, others


def is_its_own(operator: Any, way: Callable) -> bool:
    return isinstance(way, functools.partial) and way.keywords.get("kernel") is operator


@functools.cache
def decompositions() -> dict[Any, Callable]:
    table = torch.export.default_decompositions()
    for operator in list(table):
        name = operator.name().removeprefix("aten::").split(".")[0]
        if name in COMPOSITES:
            del table[operator]
    table[torch.ops.aten.index_fill.int_Scalar] = filled
    table[torch.ops.aten.index_fill.int_Tensor] = filled
    return table


def filled(x: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """`index_fill` of parts that write nothing: those of torch 2.11 copy a transposed result into a tensor that they
    make, which no graph without writes can hold."""
    rows = x.unsqueeze(0) if x.ndim == 0 else x
    value = value if isinstance(value, Tensor) else torch.scalar_tensor(value, dtype=x.dtype, device=x.device)
    shape = list(rows.shape)
    shape[dim] = index.numel()
    written = rows.index_copy(dim, index, value.expand(shape)).view(x.shape)
    # As `index_fill` does, so that what was a view of its result still is one.
    stride = torch.empty_like(x).stride()
    return written if written.stride() == stride else torch.ops.prims.copy_strided(written, stride)
