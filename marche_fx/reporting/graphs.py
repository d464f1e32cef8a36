"""A rewritten step to look at: as a table of its operators, and as text for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text
from torch import fx

from .. import ops
from ..passes.graph.source import module_path, operator_name, source_line
from ..passes.rewrite.cut import Part
from ..passes.rewrite.parts import Split
from .operators import StepGraph
from .tables import add_row

COLOURS = {"prologue": "lightblue", "incremental": "palegreen", "epilogue": "lightgrey"}
CACHED, GATHERED, INPUT = "gold", "khaki", "white"
"""Colours of what writes a cache, of what gathers active rows, and of what enters a part."""


def graph_table(graph: StepGraph) -> Table:
    """Every operator of a rewritten step: which part it is in and what it reads."""
    headings = ("part", "value", "operator", "reads", "module", "source")
    table = Table(*headings, title=Text(f"{graph.name}, rewritten"), title_justify="left")
    for part in COLOURS:
        for node in computed(getattr(graph.split, part)):
            reads = ", ".join(operand.name for operand in node.all_input_nodes)
            add_row(table, part, node.name, operator_name(node), reads, module_path(node), source_line(node))
    return table


def computed(part: Part) -> Iterator[fx.Node]:
    return (node for node in part.module.graph.nodes if node.op == "call_function")


def graphviz(name: str, rewritten: Split) -> str:
    """The rewritten step in the language of Graphviz, a box around each part; weights are left out::

    dot -Tsvg step.dot > step.svg
    """
    lines = [f"digraph {quoted(name)} {{", '  node [shape=box, style=filled, fontname="monospace"];']
    for part, colour in COLOURS.items():
        lines += [f"  subgraph {quoted(f'cluster_{part}')} {{", f"    label={quoted(part)};"]
        lines += [f"    {line}" for line in part_lines(part, colour, getattr(rewritten, part))]
        lines.append("  }")
    lines += [f"  {quoted(source)} -> {quoted(target)} [style=dashed];" for source, target in crossings(rewritten)]
    return "\n".join([*lines, "}", ""])


def part_lines(name: str, colour: str, part: Part) -> Iterator[str]:
    """A line for every value of a part and for every value that an operator reads."""
    drawn = set(drawn_nodes(part))
    for node in part.module.graph.nodes:
        if node not in drawn:
            continue
        if node.op == "placeholder":
            label, own = node.name, INPUT
        else:
            label = "\n".join(filter(None, (node.name, operator_name(node), module_path(node))))
            own = {ops.update_cache: CACHED, ops.gather_active: GATHERED}.get(node.target, colour)
        yield f"{quoted(f'{name}.{node.name}')} [label={quoted(label)}, fillcolor={own}];"
        for operand in node.all_input_nodes:
            if operand in drawn:
                yield f"{quoted(f'{name}.{operand.name}')} -> {quoted(f'{name}.{node.name}')};"


def drawn_nodes(part: Part) -> Iterator[fx.Node]:
    """Operators, and what they read that is not a weight."""
    weights = {copy for source, copy in zip(part.inputs, entering(part)) if is_weight(source)}
    for node in part.module.graph.nodes:
        if node.op == "call_function" or (node.op == "placeholder" and node.users and node not in weights):
            yield node


def is_weight(node: fx.Node) -> bool:
    """Whether a value of the captured step is a parameter, buffer or constant, as `torch.export` names them."""
    return node.op == "placeholder" and node.name.startswith(("p_", "b_", "c_"))


def entering(part: Part) -> list[fx.Node]:
    """The placeholders of a part's inputs, in their order."""
    # A name that another node has already is changed; the target stays.
    placeholders = {node.target: node for node in part.module.graph.find_nodes(op="placeholder")}
    return [placeholders[node.name] for node in part.inputs]


def crossings(rewritten: Split) -> Iterator[tuple[str, str]]:
    """What is computed in one part and read in a later one, directly or from a cache."""
    made: dict[fx.Node, str] = {}
    (results,) = (node.args[0] for node in rewritten.prologue.module.graph.find_nodes(op="output"))
    for source, copy in zip(rewritten.prologue.outputs, results):
        made[source] = f"prologue.{copy.name}"
    caches = {spec.name: spec.value for spec in rewritten.caches}
    for node in computed(rewritten.incremental):
        if node.target is ops.update_cache:
            made[caches[str(node.all_input_nodes[0].target)]] = f"incremental.{node.name}"
    for part in ("incremental", "epilogue"):
        own: Part = getattr(rewritten, part)
        cached = set(caches.values()) if part == "incremental" else set()
        drawn = set(drawn_nodes(own))
        for source, copy in zip(own.inputs, entering(own)):
            if source in made and source not in cached and copy in drawn:
                yield made[source], f"{part}.{copy.name}"


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
