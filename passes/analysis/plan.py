"""The plan of one step: everything that the reading passes found out, before anything is rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from ..capture.captured import Capture
from ..rules.moves import MOVES_TOKENS
from ..trail import PassRun
from .attention import AttentionSite
from .axes import TokenAxes
from .dimensions import Axis
from .mlp import MlpSite
from .region import Region


@dataclass(frozen=True)
class Plan:
    """What `split` will do to a step.

    Attributes:
        original: the capture as exported. dense: the same with every token at a stable position.
        visible: bool ``[B, N]`` in the dense graph, the tokens that a step does not drop; None where it drops none.
        passes: those that found it, in the order in which they ran.
    """

    original: Capture
    dense: Capture
    visible: fx.Node | None
    sites: tuple[AttentionSite, ...]
    mlps: tuple[MlpSite, ...]
    axes: TokenAxes
    region: Region
    passes: tuple[PassRun, ...] = ()

    @property
    def graph(self) -> fx.Graph:
        return self.dense.graph_module.graph

    @property
    def inputs(self) -> list[fx.Node]:
        """Placeholders of the tensors among the step's arguments."""
        return [leaf.node for leaf in self.dense.inputs if leaf.node is not None]

    @property
    def results(self) -> tuple[Any, ...]:
        """Leaves of what the step returns."""
        return tuple(next(node for node in self.graph.nodes if node.op == "output").args[0])

    @property
    def samples(self) -> int:
        return self.region.samples

    @property
    def in_full(self) -> list[fx.Node]:
        """Operators in the region that run on all tokens although active ones would do, but for mere moves of rows."""
        return [
            node
            for node in self.graph.nodes
            if node in self.region.full
            and node.target not in MOVES_TOKENS
            and any(self.moves_rows(operand) for operand in node.all_input_nodes)
        ]

    def moves_rows(self, node: fx.Node) -> bool:
        """Whether a value consists of rows, or of rows that were put elsewhere."""
        return node in self.region.rows or (
            node in self.region.full
            and node.target in MOVES_TOKENS
            and any(self.moves_rows(operand) for operand in node.all_input_nodes)
        )


def key_axis(site: AttentionSite, axes: TokenAxes) -> Axis:
    return axes.axes.of(site.k, site.key_dim)
