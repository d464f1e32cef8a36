"""The plan of one step: everything that the reading passes found out, before anything is rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from .attention import AttentionSite, find_attention_sites
from .axes import TokenAxes, find_token_axes
from .capture import Capture, capture
from .dimensions import Axis
from .mlp import MlpSite, find_mlp_sites
from .moves import MOVES_TOKENS
from .pack import pack
from .region import Region, find_region


@dataclass(frozen=True)
class Plan:
    """What `split` will do to a step.

    Attributes:
        original: the capture as exported. dense: the same with every token at a stable position.
        visible: bool ``[B, N]`` in the dense graph, the tokens that a step does not drop; None where it drops none.
    """

    original: Capture
    dense: Capture
    visible: fx.Node | None
    sites: tuple[AttentionSite, ...]
    mlps: tuple[MlpSite, ...]
    axes: TokenAxes
    region: Region

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


def make_plan(
    model: nn.Module, step: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, *, exact_sites: int = 0
) -> Plan:
    """Capture ``model.step(*args, **kwargs)`` and find its token axis, attention and MLP sites, and region.

    Args:
        exact_sites: so many attention sites, from the first on, stay before the region.

    Raises:
        CaptureError: the step cannot be captured.
        UnsupportedModelError: no attention over a token axis was found, or the step has state.
    """
    return plan_of(capture(model, step, args, kwargs), exact_sites=exact_sites)


def plan_of(original: Capture, *, exact_sites: int = 0) -> Plan:
    """The plan of a captured step; see `make_plan`."""
    packed = pack(original)
    graph = packed.capture.graph_module.graph
    sites = find_attention_sites(graph)
    inputs = [leaf.node for leaf in packed.capture.inputs if leaf.node is not None]
    axes = find_token_axes(graph, sites, inputs)
    region = find_region(graph, axes, sites, inputs, packed.visible, exact_sites)
    attended = {axis for site in sites for axis in (query_axis(site, axes), key_axis(site, axes))}
    token_axes = {*axes.token_axes, *attended}
    mlps = tuple(mlp for mlp in find_mlp_sites(graph) if axes.axes.dims_with(mlp.down, token_axes))
    return Plan(original, packed.capture, packed.visible, tuple(sites), mlps, axes, region)


def query_axis(site: AttentionSite, axes: TokenAxes) -> Axis:
    return axes.axes.of(site.q, site.query_dim)


def key_axis(site: AttentionSite, axes: TokenAxes) -> Axis:
    return axes.axes.of(site.k, site.key_dim)
