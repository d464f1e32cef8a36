"""What a step writes into its arguments, where it computes that of the arguments alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind, OutputSpec
from torch.utils import _pytree as pytree

from ...errors import ArgumentError
from ..graph.reach import ancestors


@dataclass(frozen=True)
class Writes:
    """The written values as a graph of their own, which every call runs in full: no row of them is ever stale.

    Attributes:
        module: from constants and the tensors among the arguments to what the step leaves in some of these.
        numbers: in which of them.
    """

    module: fx.GraphModule
    constants: tuple[Tensor, ...]
    numbers: tuple[int, ...]

    def check(self, step: str, call: Any) -> None:
        """Raise if a write would be one into another argument too.

        Raises:
            ArgumentError: they share memory.
        """
        memory = [own.untyped_storage().data_ptr() for own in tensors_of(call)]
        if any(memory.count(memory[number]) > 1 for number in self.numbers):
            raise ArgumentError(f"{step} writes an argument that shares memory with another one; pass a copy of it")

    def beside(self, call: Any) -> Any:
        """``call`` with copies in place of the arguments that the step writes."""
        written = {id(own) for own in self.written(call)}
        return pytree.tree_map_only(Tensor, lambda own: own.clone() if id(own) in written else own, call)

    def written(self, call: Any) -> list[Tensor]:
        tensors = tensors_of(call)
        return [tensors[number] for number in self.numbers]

    def make(self, call: Any) -> None:
        """Leave in the arguments what the step leaves there."""
        for own, value in zip(self.written(call), self.module(*self.constants, *tensors_of(call))):
            own.copy_(value)


def tensors_of(call: Any) -> list[Tensor]:
    return [own for own in pytree.tree_leaves(call) if isinstance(own, Tensor)]


def argument_writes(exported: torch.export.ExportedProgram) -> list[OutputSpec]:
    """The writes into arguments that read no weights."""
    inputs = {spec.arg.name: spec.kind for spec in exported.graph_signature.input_specs}
    by_name = {node.name: node for node in exported.graph.nodes}
    return [
        spec
        for spec in exported.graph_signature.output_specs
        if spec.kind is OutputKind.USER_INPUT_MUTATION
        and all(
            inputs[own.name] in (InputKind.USER_INPUT, InputKind.CONSTANT_TENSOR)
            for own in ancestors([by_name[spec.arg.name]])
            if own.op == "placeholder"
        )
    ]


def writes_of(exported: torch.export.ExportedProgram) -> Writes | None:
    """What a step writes into its arguments; None where it writes nothing.

    Before:  masked_fill = masked_fill(ids, mask, 0);  linear = linear(embedding(masked_fill));  return linear
    After:   masked_fill = masked_fill(ids, mask, 0);  return masked_fill
    """
    specs = argument_writes(exported)
    if not specs:
        return None
    kinds = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    by_name = {node.name: node for node in exported.graph.nodes}
    results = [by_name[spec.arg.name] for spec in specs]
    reached, placeholders = ancestors(results), exported.graph.find_nodes(op="placeholder")
    constants = [own for own in placeholders if own in reached and kinds[own.name].kind is InputKind.CONSTANT_TENSOR]
    arguments = [own for own in placeholders if kinds[own.name].kind is InputKind.USER_INPUT]
    # Inputs that are no tensors are baked in, and no nodes of theirs are read.
    arguments = [own for own in arguments if isinstance(own.meta["val"], Tensor)]
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    rest = [own for own in exported.graph.nodes if own in reached and own.op == "call_function"]
    for own in (*constants, *arguments, *rest):
        copies[own] = graph.node_copy(own, copies.__getitem__)
    graph.output(tuple(copies[own] for own in results))
    names = [own.name for own in arguments]
    return Writes(
        fx.GraphModule(nn.Module(), graph),
        tuple(exported.constants[str(kinds[own.name].target)] for own in constants),
        tuple(names.index(str(spec.target)) for spec in specs),
    )
