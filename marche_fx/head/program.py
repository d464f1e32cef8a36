"""A captured denoiser that runs part by part, for any number of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..errors import UnsupportedModelError
from ..passes.analysis.denoiser import Denoiser, Role, find_denoiser
from ..passes.capture.any_rows import AnyRows
from ..passes.capture.structure import Attributes, changed_attributes, structure
from ..passes.graph.source import describe
from ..passes.lower.lower import lower_rows
from ..passes.lower.products import multiply_by_onednn
from ..passes.rewrite.cut import Part
from ..passes.rewrite.denoiser import cut_denoiser
from ..passes.rules.flops import node_flops
from ..passes.trail import Trail, counted
from ..runtime.weights import find_weight, weight_kind
from .calls import Call
from .policy import HoldBranches
from .schedule import Schedule, Time

Values = dict[fx.Node, Any]


class HeadProgram:
    """One captured denoiser; holds no state of a denoising.

    Args:
        capturing: captures a method of ``net``. roles: of its tensor arguments.

    Attributes:
        captured: the method as it was captured.
        denoiser: what was found. parts: what it was cut into. flops: of these for each row, by name. verified: numbers
            of rows for which results were compared with the original's.

    Raises:
        CaptureError, UnsupportedModelError: it cannot be captured, or has no branches to hold.
    """

    def __init__(
        self,
        net: nn.Module,
        capturing: Callable[[], AnyRows],
        roles: Sequence[Role],
        *,
        branches: HoldBranches | None = None,
        compile: bool,
    ) -> None:
        trail = Trail()
        self.captured = trail.run(
            "capture", capturing, lambda own: counted(len(own.capture.graph_module.graph.nodes), "node")
        )
        # Cut up below, while the one above can be saved.
        rows = self.captured.copied()
        self.leaves = [own.node for own in rows.capture.inputs if own.node is not None]
        self.denoiser = trail.run(
            "denoiser",
            lambda: find_denoiser(rows, dict(zip(self.leaves, roles, strict=True))),
            lambda own: counted(len(own.kept), "slow value"),
        )
        held = [] if branches is None else held_values(self.denoiser, branches)
        self.parts = trail.run(
            "cut", lambda: cut_denoiser(self.denoiser, held), lambda own: counted(len(own.named()), "part")
        )
        self.flops = {name: flops_of(part) / rows.rows for name, part in self.parts.named().items()}
        self.passes = tuple(trail.runs)
        self.times = self.denoiser.inputs("time")
        self.conditions = self.denoiser.inputs("condition")
        (self.noisy, *_) = self.denoiser.inputs("noisy")
        self.weights = {node: find_weight(net, path) for node, path in rows.capture.weights.items()}
        self.kinds = self.weight_kinds()
        self.premises = self.attributes(net)
        # The two that run at every call: all of it, and what is left where branches are held.
        self.lowered: dict[str, Any] = {}
        if compile:
            for part in self.parts.named().values():
                multiply_by_onednn(part.module)
            for name in ("network", "shortcut") if held else ("network",):
                part = getattr(self.parts, name)
                # A number among the inputs of compiled code would have it compiled for each.
                if self.parts.count not in part.inputs:
                    self.lowered[name] = lower_rows(part)
        self.verified: tuple[int, ...] = ()

    @property
    def multiple(self) -> int:
        """It computes multiples of so many rows."""
        return self.denoiser.rows.multiple

    @property
    def has_halves(self) -> bool:
        """Whether there are guidance halves of which one can be computed without the other."""
        values = [node.meta["val"] for node in self.parts.frontier]
        apart = bool(values) and {*self.parts.exit.inputs}.isdisjoint(self.denoiser.kept)
        return self.denoiser.joined is not None and apart and all(own.is_floating_point() for own in values)

    @property
    def halves(self) -> str:
        """What was found of guidance halves, in words."""
        found = self.denoiser
        if found.joined is None:
            return "no guidance halves: no cat of a noisy value with itself"
        where = describe(found.mixes[0]) if found.mixes else "its result"
        if not self.has_halves:
            return f"guidance halves from {describe(found.joined)} are computed in full: rows meet in {where}"
        return f"guidance halves of one noisy value from {describe(found.joined)} to {where}"

    def fits(self, call: Call) -> bool:
        """Whether a call has as many rows in each argument that had them, and the others are as large as they were."""
        given = self.given(call)
        rows = len(given[self.noisy])
        return all(
            len(leaf) == rows if self.is_of_rows(node) else leaf.shape == node.meta["val"].shape
            for node, leaf in given.items()
        )

    def holds_for(self, net: nn.Module) -> bool:
        """Whether modules, hooks, attributes and kinds of weights are what they were when it was captured."""
        return self.weight_kinds() == self.kinds and not changed_attributes(self.premises, self.attributes(net))

    def attributes(self, net: nn.Module) -> Attributes:
        return {**structure(net), **self.denoiser.rows.capture.tables.surroundings.attributes()}

    def weight_kinds(self) -> list[Any]:
        return [weight_kind(weight.now()) for weight in self.weights.values()]

    def is_verified_for(self, rows: int) -> bool:
        return bool(self.verified) and min(self.verified) <= rows <= max(self.verified)

    def note_verified(self, rows: int) -> None:
        self.verified = (*self.verified, rows)

    def given(self, call: Call) -> dict[fx.Node, Tensor]:
        """The tensors among a call's arguments."""
        return dict(zip(self.leaves, call.leaves, strict=True))

    # ------------------------------------------------------------------------------------------------ part by part

    def still(self, conditions: Mapping[fx.Node, Tensor], rows: int) -> Values:
        """What a whole denoising reads: weights, and what depends on the condition alone."""
        constants = self.denoiser.rows.capture.constants
        weights = {node: weight.now() for node, weight in self.weights.items()}
        values = {**weights, **constants, **conditions, self.parts.count: rows}
        return values | run(self.parts.still, values)

    def timed(self, still: Values, times: Sequence[Time], rows: int) -> Values:
        """What depends on time alone, ``[S, ..]`` for S times, or of one time that comes without rows."""
        given = dict(zip(self.times, times[0].leaves, strict=True))
        if self.denoiser.is_stacked:
            given = {node: torch.cat([own.leaves[number] for own in times]) for number, node in enumerate(self.times)}
        count = len(times) if self.denoiser.is_stacked else rows
        return given | run(self.parts.timed, {**still, **given, self.parts.count: count})

    def timed_of_all(self, still: Values, schedule: Schedule, rows: int) -> Values:
        """What depends on time alone, of all timesteps; empty where they cannot be computed side by side."""
        return self.timed(still, schedule.distinct, rows) if self.denoiser.is_stacked else {}

    def rows_from(self, values: Values, first: int, count: int) -> Values:
        """Values of ``count`` of the rows."""
        own = {node: value[first : first + count] if self.is_of_rows(node) else value for node, value in values.items()}
        return {**own, self.parts.count: count}

    def slow(self, part: Part, still: Values, timed: Values, numbers: Sequence[int], rows: int) -> list[list[Tensor]]:
        """What a part makes of time and condition at those of ``timed`` with these numbers: lists of ``[R, ..]``.

        All are computed at once, as rows beside one another; of times without rows there is one.
        """
        if not self.denoiser.is_stacked:
            return [list(run(part, {**still, **timed}).values())]
        count = len(numbers)
        values = {**still, self.parts.count: count * rows}
        for node in part.inputs:
            if node in timed:
                values[node] = timed[node]
            if self.is_of_rows(node) and node in timed:
                chosen = torch.cat([timed[node][number : number + 1] for number in numbers])
                values[node] = chosen.repeat_interleave(rows, 0)
            elif self.is_of_rows(node):
                values[node] = still[node].repeat(count, *(1 for _ in still[node].shape[1:]))
        found = list(run(part, values).values())
        return [[own[number * rows : (number + 1) * rows] for own in found] for number in range(count)]

    def at_time(self, timed: Values, number: int, rows: int) -> Values:
        """What the rest reads of the time with this number: ``[R, ..]``."""
        if not self.denoiser.is_stacked:
            return timed
        return {
            node: value[number : number + 1].expand(rows, *value.shape[1:]) if self.is_of_rows(node) else value
            for node, value in timed.items()
        }

    def enter(self, values: Values) -> Values:
        """From the noisy value to two equal halves, where there are such."""
        return run(self.parts.entry, values)

    def denoise(self, values: Values, rows: int, held: Sequence[Tensor] | None) -> tuple[list[Any], list[Tensor]]:
        """Of the first ``rows`` rows what the exit reads, and the values that may be held.

        Args:
            held: these as they were, in place of new ones.
        """
        name, part = ("network", self.parts.network) if held is None else ("shortcut", self.parts.shortcut)
        if held is not None:
            values = {**values, **dict(zip(self.parts.held, held, strict=True))}
        given = [self.first(node, values[node], rows) for node in part.inputs]
        # Compiled code takes a size of one for a dimension that is broadcast.
        network = self.lowered.get(name, part.module) if rows > 1 else part.module
        found = dict(zip(part.outputs, network(*given), strict=True))
        kept = [found[node] for node in self.parts.held] if held is None else list(held)
        return [found[node] for node in self.parts.frontier], kept

    def first(self, node: fx.Node, value: Any, rows: int) -> Any:
        if node is self.parts.count:
            return rows
        return value[:rows] if self.is_of_rows(node) and len(value) != rows else value

    def leave(self, values: Values, frontier: Sequence[Any]) -> Any:
        """The results."""
        given = {**values, **dict(zip(self.parts.frontier, frontier, strict=True))}
        part = self.parts.exit
        results = part.module(*(given[node] for node in part.inputs))
        return pytree.tree_unflatten(list(results), self.denoiser.rows.capture.out_spec)

    def is_of_rows(self, node: fx.Node) -> bool:
        return self.denoiser.rows.is_of_rows(node)


def held_values(denoiser: Denoiser, reuse: HoldBranches) -> list[fx.Node]:
    """What of each residual branch is held.

    Raises:
        UnsupportedModelError: there is no branch.
    """
    if not denoiser.branches:
        raise UnsupportedModelError(
            "it has no residual branch to hold: no sum x + f(x) of a noisy value, with a product in f, that computes "
            "each row by itself. Leave branches out of HeadReuse"
        )
    return [own.output if number in reuse.whole else own.product for number, own in enumerate(denoiser.branches)]


def flops_of(part: Part) -> float:
    return sum(node_flops(node) for node in part.module.graph.nodes)


def run(part: Part, values: Values) -> Values:
    """The values that a part makes of others."""
    return dict(zip(part.outputs, part.module(*(values[node] for node in part.inputs)), strict=True))
