"""A rewritten step as a table of its operators."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text
from torch import fx

from ..passes.graph.source import module_path, operator_name, source_line
from ..passes.rewrite.cut import Part
from .operators import StepGraph
from .tables import add_row

PARTS = ("prologue", "incremental", "epilogue")
"""Of a `Split`, in running order."""


def graph_table(graph: StepGraph) -> Table:
    """Every operator of a rewritten step: which part it is in and what it reads."""
    headings = ("part", "value", "operator", "reads", "module", "source")
    table = Table(*headings, title=Text(f"{graph.name}, rewritten"), title_justify="left")
    for part in PARTS:
        for node in computed(getattr(graph.split, part)):
            reads = ", ".join(operand.name for operand in node.all_input_nodes)
            add_row(table, part, node.name, operator_name(node), reads, module_path(node), source_line(node))
    return table


def computed(part: Part) -> Iterator[fx.Node]:
    return (node for node in part.module.graph.nodes if node.op == "call_function")
