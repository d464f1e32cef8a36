"""Runs what `split` makes by hand: prologue, incremental part, epilogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from marche_fx.passes.analysis.layout import Layout
from marche_fx.passes.analysis.plan import Plan
from marche_fx.passes.pipeline import make_plan
from marche_fx.passes.rewrite.cut import Part
from marche_fx.passes.rewrite.split import split
from tests.oracle import Oracle


class Program:
    """A step of ``model`` rewritten for active tokens, with the caches of one session.

    Args:
        plan: of the step, where it was captured already.
    """

    def __init__(
        self,
        model: nn.Module,
        step: str,
        args: Sequence[Any],
        kwargs: dict[str, Any] | None = None,
        *,
        skip_unread: bool = False,
        plan: Plan | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.plan = plan = make_plan(model, step, tuple(args), kwargs) if plan is None else plan
        self.cache_dtype = cache_dtype
        self.split = split(
            plan.dense.graph_module,
            plan.axes,
            plan.region,
            plan.sites,
            skip_unread=skip_unread,
            cache_dtype=cache_dtype,
        )
        self.reset()

    def reset(self) -> None:
        self.signals: Sequence[Tensor] = ()
        self.caches = [spec.allocate(torch.device("cpu")) for spec in self.split.caches]

    def oracle(self) -> Oracle:
        """The interpreter that this must agree with, at the start of a session."""
        return oracle_of(self.plan, self.model, self.cache_dtype)

    def values(self, inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
        """What the incremental part reads: the model's weights of now, constants, inputs, the prologue's outputs."""
        state: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        state |= dict(self.model.named_buffers(remove_duplicate=False))
        values: dict[fx.Node, Any] = {node: state[path] for node, path in self.plan.dense.weights.items()}
        values |= self.plan.dense.constants
        values |= dict(zip(self.plan.inputs, inputs, strict=True))
        return values | dict(zip(self.split.prologue.outputs, call(self.split.prologue, values), strict=True))

    def run(
        self,
        incremental: Callable[..., Any],
        values: dict[fx.Node, Any],
        active: Sequence[Tensor],
        caches: Sequence[Tensor],
        queried: Sequence[Tensor] | None = None,
        read: Sequence[Tensor] | None = None,
    ) -> Any:
        """Write ``caches`` by the incremental part, or by what stands for it; return the signals.

        Args:
            queried: bool ``[B, R]`` of each stream, of which a sample may have as many as wanted; all when omitted.
            read: ``[B, R]`` of each stream, numbers of active tokens whose results are computed; all when omitted.
        """
        samples = torch.arange(len(active[0]))[:, None]
        rows = [torch.arange(own.shape[1]).expand_as(own) for own in active] if read is None else read
        asked = [torch.ones_like(own, dtype=torch.bool) for own in rows] if queried is None else queried
        reads = [values[node] for node in self.split.incremental.inputs]
        return incremental(samples, *active, *rows, *rows, *asked, *reads, *caches)

    def step(self, inputs: Sequence[Tensor], *active: Tensor, read: Sequence[Tensor] | None = None) -> list[Any]:
        """The step's results when the tokens ``active [B, A]`` of each stream are recomputed, see `run`."""
        values = self.values(inputs)
        self.signals = self.run(self.split.incremental.module, values, active, self.caches, read=read)
        values |= {spec.value: cache for spec, cache in zip(self.split.caches, self.caches)}
        # A result may be a cache itself, which the next step overwrites.
        return [value.clone() if isinstance(value, Tensor) else value for value in call(self.split.epilogue, values)]

    def shapes(self, inputs: Sequence[Tensor], *active: Tensor) -> dict[fx.Node, torch.Size]:
        """Of all tensors of the incremental part in such a step."""
        noting = Noting(self.split.incremental.module)
        self.run(noting.run, self.values(inputs), active, self.caches)
        return noting.shapes


class Noting(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, Tensor):
            self.shapes[n] = found.shape
        return found


def oracle_of(plan: Plan, model: nn.Module, rounded_to: torch.dtype | None = None) -> Oracle:
    """The interpreter of a step, told where rows start and which values are computed on rows."""
    on_rows = {node.name for node in plan.region.rows}
    before = {node.name for node in plan.graph.nodes if plan.region.is_before(node)}
    return Oracle(plan.dense, model, entered_rows(plan), plan.axes.length, on_rows, before, rounded_to)


def entered_rows(plan: Plan) -> dict[str, Tensor]:
    """What the oracle must be told: where rows start, and which row, of all streams, each element there is."""
    region, axes = plan.region, plan.axes
    found = {}
    for node in region.sources:
        start = axes.start(region.rows[node].streams)
        rows = numbered(region.layouts[node], start, axes.length)
        found[node.name] = rows.reshape(node.meta["val"].shape)
    return found


def numbered(layout: Layout, start: int, tokens: int) -> Tensor:
    """``sample * tokens + token`` at every element of a value with samples and tokens in dimensions of their own."""
    rank = len(layout.shape)
    sample, token = (
        torch.arange(layout.shape[dim]).view([-1 if own == dim else 1 for own in range(rank)])
        for dim in (layout.batch_dim, layout.token_dim)
    )
    return (sample * tokens + start + token).expand(layout.shape)


def call(part: Part, values: dict[fx.Node, Any]) -> Any:
    return part.module(*(values[node] for node in part.inputs))
