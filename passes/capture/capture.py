"""Capture a model's step as a functional ATen graph with `torch.export`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from ...errors import CaptureError
from ..graph.source import strip_wrapper
from .alone import tracing_alone
from .arguments import check_arguments, opened
from .beside import write_copies
from .branches import Branches
from .captured import Autocast, Capture, Input
from .draws import Draw, decide_draws
from .dropping import dropped_token_dimensions, user_inputs
from .export import decomposed, export
from .leftovers import taken_out
from .normalise import (
    remove_checks,
    remove_copies,
    remove_weight_casts,
    settle_slices,
    split_by_slices,
)
from .refusals import forget_writes, refuse_branches, refuse_random, refuse_weights, refuse_writes
from .rehearsal import Rehearsal, rehearse
from .sizes import is_symbolic
from .step import BranchError, Step
from .tables import Tables
from .writes import Writes, writes_of

aten = torch.ops.aten


Dynamic = Sequence[Collection[int]]
"""Of each tensor among the arguments the dimensions whose sizes stay symbols."""


def capture(
    model: nn.Module,
    step: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    dynamic: Dynamic | None = None,
) -> Capture:
    """Capture ``model.step(*args, **kwargs)``.

    Before:  a bound method of a module, with real arguments
    After:   layer_norm = aten.layer_norm(add, ...);  linear = aten.linear(layer_norm, p_weight, p_bias);  ...

    Sizes are static but for dimensions that count the tokens kept after dropping masked ones. In-place writes are
    functional, checks on symbolic sizes and copies without effect are gone.

    Args:
        dynamic: sizes to keep as symbols beside these; some may turn out to be fixed.

    Raises:
        ArgumentError: an argument is neither a tensor nor a plain value, nor made of them.
        CaptureError: `torch.export` cannot trace the step.
        UnsupportedModelError: the step writes a buffer or an attribute, or into an argument what it computes of
            weights, or draws random numbers, which no cached step could repeat; or its weights have no values.
    """
    call = opened((args, kwargs or {}))
    check_arguments(step, call)
    refuse_weights(model)
    leaves, spec = pytree.tree_flatten(call)
    # torch.export takes arguments that are one tensor, or a weight, for one; later calls may pass different ones.
    tensors = apart([leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)])
    with tracing_alone():
        rehearsal = rehearse(Step(model, step, leaves, spec), tensors)
        with taken_out(rehearsal.step.model, rehearsal.surroundings):
            exported, traced = exported_step(rehearsal, tensors, dynamic)
            tables = rehearsal.tables(model, traced.written, traced.varying)
    name = rehearsal.step.name
    refuse_writes(exported, name, call, [own.name for own in user_inputs(exported)])
    writes = writes_of(exported)
    forget_writes(exported)
    draws = decide_draws(exported.graph)
    for graph in (exported.graph, *(() if writes is None else (writes.module.graph,))):
        refuse_random(graph, name)
        refuse_branches(graph, name)
    return as_capture(exported, rehearsal, leaves, tables, traced.branches, writes, draws)


def apart(tensors: list[Tensor]) -> list[Tensor]:
    """The same values, none of them in the memory of another: `torch.export` fails where one of them is written.

    Nor is any made in inference mode, outside of which nothing is written into such a tensor.
    """
    seen: set[int] = set()
    found = []
    for own in tensors:
        address = own.untyped_storage().data_ptr()
        with torch.inference_mode(False):
            found.append(own.clone() if address in seen or own.is_inference() else own)
        seen.add(address)
    return found


def exported_step(
    rehearsal: Rehearsal, tensors: list[Tensor], dynamic: Dynamic | None
) -> tuple[torch.export.ExportedProgram, Step]:
    """The step as a functional graph, and as it was traced."""
    try:
        return traced_step(rehearsal.again, tensors, dynamic)
    except BranchError:
        return traced_step(lambda: rehearsal.again(tensors), tensors, dynamic)


def traced_step(
    again: Callable[[], Step], tensors: list[Tensor], dynamic: Dynamic | None
) -> tuple[torch.export.ExportedProgram, Step]:
    step = again()
    exported = export(step, tensors, None if dynamic is None else symbols_of(dynamic))
    dropped = dropped_token_dimensions(exported)
    if any(dropped):
        step = again()
        exported = export(step, tensors, dropped)
    write_copies(exported, step)
    if dynamic is not None:
        refuse_fixed(exported, step, dynamic)
    return decomposed(exported, step), step


def symbols_of(dynamic: Dynamic) -> list[dict[int, Any] | None]:
    return [dict.fromkeys(dims, torch.export.Dim.AUTO) or None for dims in dynamic]


def refuse_fixed(exported: torch.export.ExportedProgram, step: Step, dynamic: Dynamic) -> None:
    """Raise if the step holds for one size only where it should hold for many."""
    by_name = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    values = [by_name[own.name].meta["val"] for own in user_inputs(exported)]
    fixed = [
        value.shape[dim] for value, dims in zip(values, dynamic) for dim in dims if not is_symbolic(value.shape[dim])
    ]
    if fixed:
        line = f" ({step.fixed_at})" if step.fixed_at else ""
        raise CaptureError(f"{step.name} fixes the size {int(fixed[0])} of an argument{line}")


def as_capture(
    exported: torch.export.ExportedProgram,
    rehearsal: Rehearsal,
    leaves: list[Any],
    tables: Tables,
    branches: Branches | None,
    writes: Writes | None,
    draws: tuple[Draw, ...],
) -> Capture:
    step, autocast = rehearsal.step, Autocast.current(leaves)
    buffers = dict(step.model.named_buffers())
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
        elif is_made_by(rehearsal, path := strip_wrapper(str(spec.target))):
            constants[by_name[spec.arg.name]] = buffers[path]
        else:
            weights[by_name[spec.arg.name]] = path
    if autocast.enabled:
        remove_weight_casts(graph_module.graph, weights)
    remove_checks(graph_module.graph)
    remove_copies(graph_module.graph)
    split_by_slices(graph_module.graph)
    settle_slices(graph_module.graph)
    graph_module.recompile()
    out_spec = exported.call_spec.out_spec
    assert out_spec is not None
    return Capture(
        step.step,
        graph_module,
        weights,
        constants,
        tuple(inputs),
        step.spec,
        out_spec,
        autocast,
        tables,
        branches,
        writes,
        draws=draws,
    )


def is_made_by(rehearsal: Rehearsal, path: str) -> bool:
    """Whether a buffer is one that the step makes, and so not to be looked for in the model."""
    parent, _, name = path.rpartition(".")
    return (parent, name) in rehearsal.assigned
