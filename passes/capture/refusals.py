"""Refuse steps that no partly recomputed step could repeat: with state, random numbers, or weights without values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator
from torch.export.graph_signature import OutputKind, OutputSpec

from ...errors import UnsupportedModelError
from ..graph.operands import argument
from ..graph.source import describe, strip_wrapper
from .arguments import named_leaves
from .structure import assignment_line, attributes
from .writes import argument_writes

aten = torch.ops.aten


def refuse_weights(model: nn.Module) -> None:
    """Raise if weights have no values, or none that a graph can read."""
    for path, weight in [*model.named_parameters(), *model.named_buffers()]:
        if weight.device.type == "meta":
            raise UnsupportedModelError(
                f"{path!r} of {type(model).__name__} is on the meta device and has no values; load the weights before "
                "the first call, as in model.to_empty(device=...) and model.load_state_dict(...)"
            )

    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"{path!r} of {type(model).__name__} is a torch.jit.ScriptModule, which torch.export cannot trace. Put "
                "the Python module that torch.jit compiled in its place; functions under torch.jit.script are traced."
            )
    for (path, name), values in attributes(model).items():
        if any(isinstance(value, torch.ScriptObject) for value in values):
            raise UnsupportedModelError(
                f"{f'{path}.{name}'.removeprefix('.')!r} of {type(model).__name__} is a torch.ScriptObject, such as "
                "the packed weights of torch.ao.quantization, which torch.export cannot read. Keep quantised weights "
                "as tensors, or transform the model before it is quantised."
            )


def refuse_assignments(step: str, model: nn.Module, assigned: list[tuple[str, str]]) -> None:
    """Raise if the step assigned attributes: a graph holds the values of one call."""
    # What a child holds is found in the table of children, too.
    for path, name in sorted(assigned, key=lambda own: own[1] == "_modules"):
        line = line_that_assigns(model, path, name)
        raise UnsupportedModelError(
            f"{step} assigns the attribute {f'{path}.{name}'.removeprefix('.')!r}"
            + (f" ({line})" if line else "")
            + " in every call, and a step that is only partly recomputed cannot repeat that. Keep the value in a local "
            "variable or return it; call a model that keeps keys and values itself without its cache."
        )


def line_that_assigns(model: nn.Module, path: str, name: str) -> str:
    """Where an attribute of the module at ``path`` is assigned, by itself or by one of those around it."""
    parts = path.split(".") if path else []
    for at in range(len(parts), -1, -1):
        around = model.get_submodule(".".join(parts[:at]))
        line = assignment_line(around, name, ".".join(["self", *parts[at:]]))
        if line:
            return line
    return ""


def refuse_writes(exported: torch.export.ExportedProgram, step: str, call: Any, placeholders: list[str]) -> None:
    """Raise if the step writes a weight in place, or into an argument of its ``call`` what it computes of weights.

    Args:
        placeholders: as which the arguments enter.
    """
    possible = argument_writes(exported)
    by_name = {node.name: node for node in exported.graph.nodes}
    names = [name for name, leaf in named_leaves(call) if isinstance(leaf, Tensor)]
    for spec in exported.graph_signature.output_specs:
        if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.TOKEN) or is_never_read(exported, spec):
            continue
        if spec in possible:
            continue
        what = (
            names[placeholders.index(str(spec.target))]
            if spec.kind is OutputKind.USER_INPUT_MUTATION
            else f"the {'buffer' if spec.kind is OutputKind.BUFFER_MUTATION else 'weight'} "
            f"{strip_wrapper(str(spec.target))!r}"
        )
        raise UnsupportedModelError(
            f"{step} writes {what} in {describe(by_name[spec.arg.name])}; a step that is only partly recomputed "
            "cannot repeat that. Move the write out of the step, or write into a copy. Into an argument it may write "
            "what it computes of arguments alone."
        )


def is_never_read(exported: torch.export.ExportedProgram, spec: OutputSpec) -> bool:
    """Whether the step writes a whole buffer before it reads it, so that what earlier calls left there is no state."""
    if spec.kind is not OutputKind.BUFFER_MUTATION:
        return False
    (name,) = [own.arg.name for own in exported.graph_signature.input_specs if own.target == spec.target]
    (buffer,) = [node for node in exported.graph.find_nodes(op="placeholder") if node.name == name]
    return all(user.target is aten.copy.default and user.args[1] is not buffer for user in buffer.users)


def forget_writes(exported: torch.export.ExportedProgram) -> None:
    """Return the step's results alone, not the buffers that it writes and nobody reads."""
    (output,) = exported.graph.find_nodes(op="output")
    specs = exported.graph_signature.output_specs
    results = [value for value, spec in zip(output.args[0], specs) if spec.kind is OutputKind.USER_OUTPUT]
    output.args = (tuple(results),)
    exported.graph.eliminate_dead_code()


def refuse_random(graph: fx.Graph, step: str) -> None:
    for node in graph.nodes:
        if draws_random_numbers(node):
            raise UnsupportedModelError(
                f"{step} draws random numbers in {describe(node)}, and a step that is only partly recomputed cannot "
                "repeat the draw. Draw them outside and pass them as a tensor, or switch dropout off."
            )


def refuse_branches(graph: fx.Graph, step: str) -> None:
    """Raise if operators are given functions to call: what these do to tokens no rule says."""
    for node in graph.nodes:
        if isinstance(node.target, HigherOrderOperator):
            raise UnsupportedModelError(
                f"{step} calls functions by {describe(node)}, in which marche_fx does not follow tokens. Choose with "
                "torch.where in place of torch.cond, write a loop out, or do it before the step"
            )


def draws_random_numbers(node: fx.Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    # Attention carries the tag for a dropout that is mostly off.
    return node.target is not aten.scaled_dot_product_attention.default or argument(node, "dropout_p") > 0
