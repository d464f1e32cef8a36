"""What passes found and made, at length, as text."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from .analysis.attention import AttentionSite
from .analysis.mlp import MlpSite
from .analysis.region import Region
from .capture.captured import Capture
from .graph.source import describe
from .rewrite.parts import Split


def capture_text(captured: Capture) -> str:
    return graph_text(captured.graph_module)


def graph_text(module: fx.GraphModule) -> str:
    """Every node of a graph, with where it comes from."""
    lines = []
    for node in module.graph.nodes:
        where = f"  # {describe(node)}" if node.op == "call_function" else ""
        lines.append(f"{node.format_node()}{where}")
    return "\n".join(lines)


def sites_text(sites: Iterable[AttentionSite | MlpSite]) -> str:
    return "\n".join(f"{site.path} ({site.line})" for site in sites)


def region_text(region: Region, graph: fx.Graph) -> str:
    """Where every operator is computed: on rows, in full inside the region, or outside of it."""
    lines = []
    for node in graph.nodes:
        if node.op == "call_function":
            on_rows = node in region.rows and node not in region.sources
            place = "rows" if on_rows else "full" if node in region.full else "out "
            lines.append(f"{place}  {node.name} = {describe(node)}")
    return "\n".join(lines)


def split_text(split: Split) -> str:
    """The three parts of a rewritten step."""
    parts = {"prologue": split.prologue, "incremental": split.incremental, "epilogue": split.epilogue}
    return "\n\n".join(f"{name}:\n{graph_text(part.module)}" for name, part in parts.items())
