"""A rewritten step as text for Graphviz: boxes in boxes for its modules; what computes nothing is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import fx

from .. import ops
from ..passes.graph.source import module_path, operator_name
from ..passes.rewrite.cut import Part
from ..passes.rewrite.parts import Split
from ..passes.rules.moves import MOVES_TOKENS
from .graphs import computed

aten = torch.ops.aten

COLOURS = {"prologue": "lightblue", "incremental": "palegreen", "epilogue": "lightgrey"}
CACHED, GATHERED, INPUT = "gold", "khaki", "white"
"""Colours of what writes a cache, of what gathers active rows, and of what enters a part."""

VIEWS = tuple(own for own in MOVES_TOKENS if own not in (aten.clone.default, aten.cat.default))
"""Operators that are not drawn: what reads them is drawn to read what they read."""


def graphviz(name: str, rewritten: Split) -> str:
    """The rewritten step in the language of Graphviz, a box around each part and in it each module::

        dot -Tsvg step.dot > step.svg

    Weights, views, caches and the positions of active tokens, which nearly everything reads, are left out.
    """
    lines = [f"digraph {quoted(name)} {{", '  node [shape=box, style=filled, fontname="monospace"];']
    for part, colour in COLOURS.items():
        lines += part_lines(part, colour, getattr(rewritten, part))
    lines += [f"  {quoted(source)} -> {quoted(target)} [style=dashed];" for source, target in crossings(rewritten)]
    return "\n".join([*lines, "}", ""])


@dataclass
class Box:
    """A part or a module: its own nodes, and the boxes of its children by name."""

    nodes: list[str] = field(default_factory=list)
    children: dict[str, Box] = field(default_factory=dict)

    def at(self, path: str) -> Box:
        own = self
        for name in path.split(".") if path else []:
            own = own.children.setdefault(name, Box())
        return own

    def lines(self, path: str, label: str, depth: int = 1) -> Iterator[str]:
        indent = "  " * depth
        yield f"{indent}subgraph {quoted(f'cluster_{path}')} {{"
        yield f"{indent}  label={quoted(label)};"
        yield from (f"{indent}  {node}" for node in self.nodes)
        for name, child in self.children.items():
            yield from child.lines(f"{path}.{name}", name, depth + 1)
        yield f"{indent}}}"


def part_lines(name: str, colour: str, part: Part) -> Iterator[str]:
    """The boxes of a part, and a line for every value that an operator reads."""
    box, edges = Box(), []
    drawn = set(drawn_nodes(part))
    for node in part.module.graph.nodes:
        if node not in drawn:
            continue
        if node.op == "placeholder":
            label, own = node.name, INPUT
        else:
            label = f"{operator_name(node)}\n{node.name}"
            own = {ops.update_cache: CACHED, ops.gather_active: GATHERED}.get(node.target, colour)
        described = f"{quoted(f'{name}.{node.name}')} [label={quoted(label)}, fillcolor={own}];"
        box.at(module_of(node)).nodes.append(described)
        for source in dict.fromkeys(viewed(operand) for operand in node.all_input_nodes):
            if source in drawn:
                edges.append(f"  {quoted(f'{name}.{source.name}')} -> {quoted(f'{name}.{node.name}')};")
    yield from box.lines(name, name)
    yield from edges


def module_of(node: fx.Node) -> str:
    """The path of the module that a node is drawn in: what the rewrite inserted, in that of the rows it is about."""
    if node.target is ops.update_cache:
        return module_path(viewed(node.all_input_nodes[1]))
    if node.target is ops.gather_active:
        return module_path(next(iter(node.users), node))
    return module_path(node)


def viewed(node: fx.Node) -> fx.Node:
    """What a view is of; any other node itself."""
    while is_view(node):
        (node,) = node.all_input_nodes
    return node


def is_view(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target in VIEWS and len(node.all_input_nodes) == 1


def drawn_nodes(part: Part) -> Iterator[fx.Node]:
    """Operators that compute something, and what they read of other parts that is not a weight."""
    weights = {copy for source, copy in zip(part.inputs, entering(part)) if is_weight(source)}
    given = {*entering(part)} - weights
    for node in part.module.graph.nodes:
        if (node.op == "call_function" and not is_view(node)) or (node in given and node.users):
            yield node


def is_weight(node: fx.Node) -> bool:
    """Whether a value of the captured step is a parameter, buffer or constant, as `torch.export` names them."""
    return node.op == "placeholder" and node.name.startswith(("p_", "b_", "c_"))


def entering(part: Part) -> list[fx.Node]:
    """The placeholders of a part's inputs, in their order."""
    # A name that another node has already is changed; the target stays.
    placeholders = {node.target: node for node in part.module.graph.find_nodes(op="placeholder")}
    return [placeholders[node.name] for node in part.inputs]


def makers(rewritten: Split) -> dict[fx.Node, tuple[str, fx.Node]]:
    """By value of the captured step the part and the node that later parts read it from: its own, or its cache."""
    (results,) = (node.args[0] for node in rewritten.prologue.module.graph.find_nodes(op="output"))
    found = {source: ("prologue", copy) for source, copy in zip(rewritten.prologue.outputs, results)}
    caches = {spec.name: spec.value for spec in rewritten.caches}
    for node in computed(rewritten.incremental):
        if node.target is ops.update_cache:
            found[caches[str(node.all_input_nodes[0].target)]] = "incremental", node
    return found


def crossings(rewritten: Split) -> Iterator[tuple[str, str]]:
    """What is computed in one part and read in a later one, directly or from a cache."""
    made = {source: (part, viewed(node)) for source, (part, node) in makers(rewritten).items()}
    shown = {part: set(drawn_nodes(getattr(rewritten, part))) for part in COLOURS}
    cached = {spec.value for spec in rewritten.caches}
    for name in ("incremental", "epilogue"):
        part: Part = getattr(rewritten, name)
        for source, copy in zip(part.inputs, entering(part)):
            if source not in made or copy not in shown[name] or (name == "incremental" and source in cached):
                continue
            maker, node = made[source]
            if node in shown[maker]:
                yield f"{maker}.{node.name}", f"{name}.{copy.name}"


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
