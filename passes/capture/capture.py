"""Capture a model's step as a functional ATen graph with `torch.export`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from ..graph.source import strip_wrapper
from .arguments import check_arguments, opened
from .captured import Autocast, Capture, Input
from .dropping import dropped_token_dimensions, user_inputs
from .export import Step, decompositions, export, plain_mode
from .normalise import remove_checks, remove_copies, remove_weight_casts, split_by_slices
from .refusals import AssignmentError, refuse_random, refuse_weights, refuse_writes

aten = torch.ops.aten


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
