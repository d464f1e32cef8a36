"""Writes into tensors that a step holds neither as weights nor as buffers, such as globals."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from ...errors import UnsupportedModelError
from ..graph.operands import argument, parameters
from ..graph.source import describe
from .step import Step
from .structure import attributes

aten = torch.ops.aten

UNSAID = (aten.type_as.default, aten.dropout.default)
"""Operators that may return their operand itself, which their schemas do not say."""


def write_copies(exported: torch.export.ExportedProgram, step: Step) -> None:
    """Let a traced step write copies of what it holds, as `torch.export` takes no graph apart that writes a constant.

    Before:  arange = arange.out(24, out=c_table);  mul = mul(arange, 2)
    After:   clone = clone(c_table);  arange = arange.out(24, out=clone);  mul = mul(arange, 2)

    Raises:
        UnsupportedModelError: it may read what an earlier call left there.
    """
    graph = exported.graph
    same = [own for own in graph.find_nodes(op="call_function", target=aten.type_as.default) if returns_operand(own)]
    for node in same:
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)
    first, writers = next(node for node in graph.nodes if node.op != "placeholder"), written(exported)
    for constant, writer in writers.items():
        if not is_written_over(next(iter(constant.users)), constant):
            tensor = next(
                exported.constants[str(own.target)]
                for own in exported.graph_signature.input_specs
                if own.arg.name == constant.name
            )
            raise UnsupportedModelError(
                f"{step.name} writes {held_as(step, tensor)} in {describe(writer)}; a step that is only partly "
                "recomputed cannot repeat that. Make the tensor anew in every call, or move the write out of the step."
            )
        users = set(constant.users)
        with graph.inserting_before(first):
            copied = graph.call_function(aten.clone.default, (constant,))
        copied.meta = {"val": constant.meta["val"]}
        constant.replace_all_uses_with(copied, delete_user_cb=users.__contains__)
    if same or writers:
        exported.graph_module.recompile()


def returns_operand(cast: fx.Node) -> bool:
    """Whether a ``type_as`` gives back what it is given."""
    given, found = cast.all_input_nodes[0].meta["val"], cast.meta["val"]
    return given.dtype is found.dtype and given.device == found.device


def written(exported: torch.export.ExportedProgram) -> dict[fx.Node, fx.Node]:
    """The placeholders of tensors that a step holds and writes, and where it writes each first."""
    constants = {own.arg.name for own in exported.graph_signature.input_specs if own.kind is InputKind.CONSTANT_TENSOR}
    memory = {node: node for node in exported.graph.find_nodes(op="placeholder") if node.name in constants}
    found: dict[fx.Node, fx.Node] = {}
    # Most steps hold no such tensor.
    for node in exported.graph.nodes if memory else ():
        for operand, is_written in shared_with(node):
            if operand in memory:
                memory.setdefault(node, memory[operand])
                if is_written:
                    found.setdefault(memory[operand], node)
    return found


def shared_with(node: fx.Node) -> Iterator[tuple[fx.Node, bool]]:
    """Operands in whose memory a result may be, or that are written, and whether they are."""
    if node.target is operator.getitem or node.target in UNSAID:
        yield from ((own, False) for own in node.all_input_nodes[:1])
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for own in parameters(node.target):
        if own.is_shared:
            value = argument(node, own.name)
            for operand in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(operand, fx.Node):
                    yield operand, own.is_written


def is_written_over(first_user: fx.Node, constant: fx.Node) -> bool:
    """Whether the first that a step does with a tensor is to write all of it, so that what was there is no state."""
    if first_user.target in (aten.zero_.default, aten.fill_.Scalar):
        return True
    if first_user.target is aten.copy_.default:
        return first_user.args[0] is constant and first_user.args[1] is not constant
    given = [*first_user.args, *(value for name, value in first_user.kwargs.items() if name != "out")]
    return first_user.kwargs.get("out") is constant and constant not in pytree.tree_leaves(given)


def held_as(step: Step, tensor: Tensor) -> str:
    """Where a tensor stands that a step holds."""
    for (holder, name), held in {**attributes(step.model), **step.surroundings.attributes()}.items():
        if any(own is tensor for own in held):
            return f"the tensor in {name!r}" + (f" of {holder}" if holder else "")
    return "a tensor that it holds"
