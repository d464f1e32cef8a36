"""What a denoiser's operators depend on: the time, the condition, both, or the noisy value."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import fx

from ...errors import UnsupportedModelError
from ..capture.any_rows import AnyRows
from ..graph.operands import argument, operands, shape_of
from ..graph.reach import descendants
from ..graph.source import describe
from ..rules.flops import node_flops
from ..rules.reshapes import RESHAPES
from ..rules.table import dim_map, is_pointwise
from .residual import ResidualBranch, find_residual_branches

aten = torch.ops.aten

Role = Literal["noisy", "time", "condition"]
"""What an argument of a denoiser is: the noisy value, the timestep, or what stays as it is through all of them."""

VIEWS = (
    *RESHAPES,
    aten.slice.Tensor,
    aten.select.int,
    aten.unsqueeze.default,
    aten.squeeze.dims,
    aten.transpose.int,
    aten.permute.default,
)
"""Operators that compute nothing."""


@dataclass(frozen=True)
class Denoiser:
    """A captured denoiser, its operators by what they depend on, each in the order in which they run.

    Attributes:
        rows: the capture. roles: of its tensor arguments.
        blank: of weights alone. still: these, and those of the condition. timed: of the time. slow: of time and
            condition.
        noisy: of the noisy value; before them operators of slow values that cost next to nothing.
        kept: values of ``slow`` that ``noisy`` reads.
        joined: ``cat([half, half])`` of a noisy value, if there is one: two guidance halves of the same noise.
        network: those of ``noisy`` that compute each row of ``joined`` by itself; all of them where there is no such.
        mixes: operators after ``joined`` that are not among them, the first one of each path.
        branches: residual branches of ``network``, each row of them by itself.
        is_stacked: whether several timesteps can be computed as if they were rows.
    """

    rows: AnyRows
    roles: dict[fx.Node, Role]
    blank: tuple[fx.Node, ...]
    still: tuple[fx.Node, ...]
    timed: tuple[fx.Node, ...]
    slow: tuple[fx.Node, ...]
    noisy: tuple[fx.Node, ...]
    kept: tuple[fx.Node, ...]
    joined: fx.Node | None
    network: tuple[fx.Node, ...]
    mixes: tuple[fx.Node, ...]
    branches: tuple[ResidualBranch, ...]
    is_stacked: bool
    flops: dict[str, float] = field(default_factory=dict)
    """For each row, by part."""

    def inputs(self, role: Role) -> list[fx.Node]:
        return inputs_of(self.roles, role)

    @property
    def flops_per_row(self) -> float:
        return sum(self.flops.values())


def find_denoiser(rows: AnyRows, roles: Mapping[fx.Node, Role]) -> Denoiser:
    """Sort the operators of a denoiser by what they depend on.

    Before:  y = linear(time) + linear(c);  shift = linear(silu(y));  out = linear(x * shift)
    After:   timed: linear(time)   still: linear(c)   slow: y, shift   noisy: out, which reads the kept value shift

    Raises:
        UnsupportedModelError: no value is noisy, or rows meet in what does not depend on the noisy value.
    """
    graph = rows.capture.graph_module.graph
    depends: dict[fx.Node, frozenset[Role]] = {node: frozenset([role]) for node, role in roles.items()}
    order = [node for node in graph.nodes if node.op == "call_function"]
    for node in order:
        depends[node] = frozenset().union(*(depends.get(own, frozenset()) for own in node.all_input_nodes))

    def of(*wanted: frozenset[Role]) -> list[fx.Node]:
        return [node for node in order if depends[node] in wanted]

    noisy = [node for node in order if "noisy" in depends[node]]
    if not noisy:
        raise UnsupportedModelError("no result depends on the argument that is the noisy value, so it is no denoiser")
    both = of(frozenset({"time", "condition"}))
    free = set(free_values(both, noisy, depends))
    of_noise = {*noisy, *free}
    still, timed = of(frozenset(), frozenset({"condition"})), of(frozenset({"time"}))
    slow = [node for node in both if node not in free]
    is_stacked = all(rows.is_of_rows(node) for node in inputs_of(roles, "time"))
    if is_stacked:
        refuse_mixing([*timed, *slow], rows)
    joined = joined_halves(noisy, rows)
    inside = noisy if joined is None else row_wise_from(joined, {*noisy, *inputs_of(roles, "noisy")}, order, rows)
    branches = find_residual_branches(inside, {*noisy, *inputs_of(roles, "noisy")})
    past = {joined, *inside}
    mixes = [node for node in noisy if node not in past and any(own in past for own in node.all_input_nodes)]
    parts = {"still": still, "timed": timed, "slow": slow, "network": inside}
    parts["around"] = [node for node in noisy if node not in {*inside}]
    return Denoiser(
        rows,
        dict(roles),
        blank=tuple(of(frozenset())),
        still=tuple(still),
        timed=tuple(timed),
        slow=tuple(slow),
        noisy=tuple(node for node in order if node in of_noise),
        kept=tuple(node for node in slow if any(own in of_noise or own.op == "output" for own in node.users)),
        joined=joined,
        network=tuple(node for node in order if node in {*inside, *free}),
        mixes=tuple(mixes),
        branches=tuple(own for own in branches if all(rows.is_of_rows(node) for node in (own.product, own.output))),
        is_stacked=is_stacked,
        flops={name: sum(map(node_flops, own)) / rows.rows for name, own in parts.items()},
    )


def free_values(
    slow: Collection[fx.Node], noisy: Iterable[fx.Node], depends: Mapping[fx.Node, frozenset[Role]]
) -> Iterable[fx.Node]:
    """Slow operators behind the last product, which cost no more than to keep what they make.

    So one value ``[R, 3D]`` is kept where ``shift, 1 + scale, gate = chunk(value, 3)`` would be three.
    """
    left = set(noisy)
    for node in reversed(list(slow)):
        moving = [own for own in node.all_input_nodes if depends.get(own)]
        is_cheap = node.target in VIEWS or is_pointwise(node.target)
        if is_cheap and len(moving) == 1 and moving[0] in slow and all(own in left for own in node.users):
            left.add(node)
            yield node


def refuse_mixing(nodes: Iterable[fx.Node], rows: AnyRows) -> None:
    """Raise unless each row of these is computed of the same row of what they read."""
    for node in nodes:
        if not is_row_wise(node, rows):
            raise UnsupportedModelError(
                f"rows meet in {describe(node)}, which does not depend on the noisy value, so values of one timestep "
                "cannot be computed beside those of others. A denoiser must compute each row by itself."
            )


def is_row_wise(node: fx.Node, rows: AnyRows) -> bool:
    """Whether row i of the value ``[R, ..]`` reads row i of its operands ``[R, ..]``."""
    if not rows.has_rows(node):
        return not any(operand is not None and rows.has_rows(operand) for operand in operands(node))
    own = dim_map(node)
    return rows.is_of_rows(node) and all(
        own.is_token_wise(number, 0) and own.output[number, 0] == 0 and rows.is_of_rows(operand)
        for number, operand in enumerate(operands(node))
        if operand is not None and rows.has_rows(operand)
    )


def joined_halves(noisy: Iterable[fx.Node], rows: AnyRows) -> fx.Node | None:
    """The ``cat([half, half])`` of rows that all others are computed from; None where there is none."""
    found = [
        node
        for node in noisy
        if node.target is aten.cat.default
        and argument(node, "dim") % len(shape_of(node)) == 0
        and len(operands(node)) == 2
        and operands(node)[0] is operands(node)[1]
        and rows.is_of_rows(node)
    ]
    return found[0] if found and descendants(found[:1]).issuperset(found) else None


def row_wise_from(
    joined: fx.Node, noisy: Collection[fx.Node], order: Iterable[fx.Node], rows: AnyRows
) -> list[fx.Node]:
    """The operators that compute each row of ``joined`` by itself, and read no other noisy value."""
    inside: dict[fx.Node, None] = {joined: None}
    for node in order:
        read = [own for own in node.all_input_nodes if own in noisy]
        if read and all(own in inside for own in read) and is_row_wise(node, rows):
            inside[node] = None
    return [node for node in inside if node is not joined]


def inputs_of(roles: Mapping[fx.Node, Role], role: Role) -> list[fx.Node]:
    return [node for node, own in roles.items() if own == role]
