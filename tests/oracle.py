"""A slow interpreter of what an incremental program must compute, independent of how the passes compute it.

In step t, row i of every cached tensor holds the value computed in the last step at which token i was active, t
included. The oracle runs the captured graph on all rows. Wherever an operator reads rows of other tokens, and where
results leave, it reads ``where(active, fresh, stale)``; rows of inactive tokens are computed too, but read by nobody.
Results, and what they alone are computed from, may be kept for fewer tokens: ``where(read, fresh, stale)``.

Which elements belong to which token it finds out by running each operator: it poisons some rows of an operand and
looks where the poison comes out. Of the operators, only `cat` has a rule about dimensions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from marche_fx.passes.capture.captured import Capture

aten = torch.ops.aten

UNOWNED = -1
"""The row number of an element that belongs to no token."""


class Oracle:
    """Runs ``captured``, a step of ``model``, for some tokens; every call of `step` continues the same session.

    Args:
        captured: every token has a stable position, so a step that drops tokens comes from `pack`.
        tokens: by node name, the values whose rows come from no other rows: where tokens enter, and results of
            operators inside that mix tokens without being attention. Each with the number of the row,
            ``sample * N + token``, at every element.
        length: tokens N of a sample.
        on_rows: names of the nodes that are computed for active tokens. Others are computed for all tokens in every
            step, from ``where(active, fresh, stale)`` of rows that they read.
        before: names of the nodes that are computed before any row is cached, from fresh values.
        rounded_to: what stale rows are rounded to that other tokens read, and that are no results.
    """

    def __init__(
        self,
        captured: Capture,
        model: nn.Module,
        tokens: Mapping[str, Tensor],
        length: int,
        on_rows: Collection[str],
        before: Collection[str],
        rounded_to: torch.dtype | None = None,
    ) -> None:
        self.graph = captured.graph_module.graph
        self.captured = captured
        self.model = model
        self.tokens = tokens
        self.length = length
        self.on_rows = on_rows
        self.before = before
        self.rounded_to = rounded_to
        self.handed_out = self.find_handed_out()
        """What is computed of rows for the results alone, the output among it."""
        self.stale: dict[fx.Node, Tensor] = {}
        self.rows: dict[fx.Node, Any] = {}
        """For each value that consists of rows a tensor of its shape: the row of an element, ``sample * N + token``."""
        self.merged: dict[fx.Node, set[int]] = {}
        """Operands, by their place among an operator's leaves, of which it reads other rows too."""

    def step(self, inputs: Sequence[Tensor], active: Tensor, read: Tensor | None = None) -> list[Any]:
        """The step's results when the tokens ``active [B, A]`` are recomputed; in the first step all must be.

        Args:
            read: ``[B, R]``, those of them whose results are read, or bool ``[B, N]``; all when omitted.
        """
        live = self.live()
        self.kept = {True: self.mask(active), False: self.mask(active if read is None else read)}
        self.is_live = live.__contains__
        values = self.parameters() | dict(zip(self.input_nodes(), inputs, strict=True))
        self.stale_before, self.stale = self.stale, {}
        for node in self.graph.nodes:
            if node.op == "call_function":
                values[node] = self.evaluate(node, values)
            if node.name in self.tokens:
                self.rows[node] = self.tokens[node.name]
        output = next(node for node in self.graph.nodes if node.op == "output")
        return [self.merge(leaf, values[leaf]) if leaf in self.rows else values.get(leaf) for leaf in output.args[0]]

    def go_on(self, before: Oracle, kept: Mapping[int, int]) -> None:
        """Hold, of tokens that are ``kept``, what the oracle of another length held of them.

        This one has computed a step of all tokens, by which it knows whose rows its values consist of.

        Args:
            kept: the number of each such token here by its number there, out of those of a sample.
        """
        # Names are numbered otherwise.
        twins = dict(zip(self.graph.nodes, before.graph.nodes, strict=True))
        for node, stale in self.stale.items():
            was = twins[node]
            trees = stale, self.rows[node], before.stale[was], before.rows[was]
            for own, rows, old, old_rows in zip(*map(pytree.tree_leaves, trees)):
                for sample in range(int(rows.max()) // self.length + 1):
                    for there, here in kept.items():
                        own[rows == sample * self.length + here] = old[old_rows == sample * before.length + there]

    def mask(self, positions: Tensor) -> Tensor:
        if positions.dtype is torch.bool:
            return positions
        return torch.zeros(len(positions), self.length, dtype=torch.bool).scatter(1, positions, True)

    def live(self) -> set[fx.Node]:
        """What rows of other tokens are computed from; nothing before the first step, which computes all of them."""
        before_rows = closure(node for node in self.graph.nodes if node.name in self.on_rows)
        return closure(
            leaf
            for node, places in self.merged.items()
            if node in before_rows
            for place, leaf in enumerate(pytree.tree_leaves((node.args, node.kwargs)))
            if place in places
        )

    def parameters(self) -> dict[fx.Node, Any]:
        state: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        state |= dict(self.model.named_buffers(remove_duplicate=False))
        return {node: state[path] for node, path in self.captured.weights.items()} | dict(self.captured.constants)

    def input_nodes(self) -> list[fx.Node]:
        return [leaf.node for leaf in self.captured.inputs if leaf.node is not None]

    def evaluate(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """The operator on all rows, stale ones where it reads rows of other tokens."""
        call = Call(node, values)
        if node.name in self.before:
            return call.run()
        if node not in self.merged:
            self.learn(call)
        for place in self.merged[node]:
            call.values[place] = self.merge(call.leaves[place], call.values[place])
        return call.run()

    def learn(self, call: Call) -> None:
        """Find out which rows the elements of the operator's value are, and of which operands it reads other rows."""
        known = {place: self.rows[leaf] for place, leaf in call.operands() if leaf in self.rows}
        if call.node.name in self.tokens or call.node.name not in self.on_rows:
            self.merged[call.node] = set(known)
            return
        if call.node.target is aten.cat.default and known and (joined := call.rows_of_parts(known)) is not None:
            self.rows[call.node] = joined
            self.merged[call.node] = set()
            return
        found = {place: call.rows_of_value(place, rows) for place, rows in known.items()}
        parts = {place: own for place, own in found.items() if isinstance(own, Tensor) and bool((own == UNOWNED).any())}
        if parts and (whole := call.rows_of_both(parts)) is not None:
            self.rows[call.node] = whole
            self.merged[call.node] = set()
            return
        found |= dict.fromkeys(parts)
        # Where tokens of two operands meet, queries and keys, the value's rows are those of the larger, else the first.
        ranked = sorted((place for place in found if found[place] is not None), key=lambda place: -size(known[place]))
        chosen = found[ranked[0]] if ranked else None
        # A mask made of the ids of both belongs to neither.
        rivals = [place for place in ranked[1:] if size(known[place]) == size(known[ranked[0]])]
        if call.is_pointwise and any(not same_rows(found[place], chosen) for place in rivals):
            chosen = None
        # What keeps the tokens that a mask says may keep all of them today.
        if any(isinstance(length, torch.SymInt) for length in getattr(call.node.meta["val"], "shape", ())):
            chosen = None
        if chosen is not None:
            self.rows[call.node] = chosen
        self.merged[call.node] = {place for place in known if chosen is None or not same_rows(found[place], chosen)}

    def merge(self, node: fx.Node, fresh: Any) -> Any:
        """``where(active, fresh, stale)``, kept for the next step; of each value of an operator with several."""
        if node not in self.stale:
            is_active = self.kept[self.is_live(node)]
            assert node in self.stale_before or is_active.all(), "the first step must compute every token"
            stale = self.stale_before.get(node, fresh)
            values, spec = pytree.tree_flatten(fresh)
            merged = [
                torch.where(is_active.flatten()[rows], own, self.rounded(node, old))
                for rows, own, old in zip(pytree.tree_leaves(self.rows[node]), values, pytree.tree_leaves(stale))
            ]
            self.stale[node] = pytree.tree_unflatten(merged, spec)
        return self.stale[node]

    def rounded(self, node: fx.Node, stale: Tensor) -> Tensor:
        """Rows as they are kept, in their own precision again."""
        is_result = any(user in self.handed_out for user in node.users)
        if self.rounded_to is None or is_result or not stale.is_floating_point():
            return stale
        return stale.to(self.rounded_to).to(stale.dtype)

    def find_handed_out(self) -> set[fx.Node]:
        found: set[fx.Node] = set()
        for node in reversed(self.graph.nodes):
            is_full = node.name not in self.on_rows and node.name not in self.before
            if node.op == "output" or (is_full and any(user in found for user in node.users)):
                found.add(node)
        return found


class Call:
    """An operator with the values of its arguments, nested lists flattened to leaves."""

    def __init__(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
        self.node = node
        self.leaves, self.spec = pytree.tree_flatten((node.args, node.kwargs))
        self.values = [values[leaf] if isinstance(leaf, fx.Node) else leaf for leaf in self.leaves]

    def operands(self) -> Iterator[tuple[int, fx.Node]]:
        return ((place, leaf) for place, leaf in enumerate(self.leaves) if isinstance(leaf, fx.Node))

    @property
    def is_pointwise(self) -> bool:
        # PyTorch does not tag those with a number.
        of_number = (aten.where.ScalarOther, aten.where.ScalarSelf)
        return torch.Tag.pointwise in getattr(self.node.target, "tags", ()) or self.node.target in of_number

    def run(self, **changed: Tensor) -> Any:
        values = [changed.get(f"at{place}", value) for place, value in enumerate(self.values)]
        args, kwargs = pytree.tree_unflatten(values, self.spec)
        # Merged values need not have the layout that the captured view was made for.
        target = aten.reshape.default if self.node.target is aten.view.default else self.node.target
        return target(*args, **kwargs)  # type: ignore[operator]

    def rows_of_value(self, place: int, rows: Any) -> Any:
        """The rows of the value if each of its elements reads one row of the operand; maybe of some elements alone."""
        if self.node.target is operator.getitem:
            return rows[self.leaves[1]]
        if self.is_pointwise:
            return rows.broadcast_to(self.run().shape)
        numbers = rows.unique()
        read = [torch.zeros(value.shape, dtype=torch.long) for value in pytree.tree_leaves(self.run())]
        # Rows whose number has a bit are poisoned, then the others: an element that changes both times reads several.
        for bit in range(max(int(numbers.max()), 1).bit_length()):
            one = self.changed_by(place, (rows >> bit) % 2 == 1)
            other = self.changed_by(place, (rows >> bit) % 2 == 0)
            if any(((a == b) & a).any() for a, b in zip(one, other)):
                return None
            read = [
                torch.where(known == UNOWNED, known, torch.where(a | b, known + (a.long() << bit), UNOWNED))
                for known, a, b in zip(read, one, other)
            ]
        if isinstance(self.run(), (tuple, list)):
            return read if all(torch.isin(own, numbers).all() for own in read) else None
        (own,) = read
        return own if torch.isin(own[own != UNOWNED], numbers).all() else None

    def rows_of_both(self, parts: Mapping[int, Tensor]) -> Tensor | None:
        """The rows of a value of which some elements are of one operand and the others of another, as one written."""
        owned = torch.stack([own != UNOWNED for own in parts.values()]).sum(0)
        return torch.stack([*parts.values()]).amax(0) if bool((owned == 1).all()) else None

    def rows_of_parts(self, known: Mapping[int, Tensor]) -> Tensor | None:
        """The rows of a value joined from parts, of which those ``known`` consist of rows."""
        dim = self.leaves[-1] if isinstance(self.leaves[-1], int) else 0
        line = next(iter(known.values())).narrow(dim, 0, 1)
        # Joined along channels, a part that is no token's is one more channel of each.
        if all(torch.equal(rows, line.expand_as(rows)) for rows in known.values()):
            return line.expand(self.run().shape)
        places = [place for place, _ in self.operands()]
        return torch.cat([known[place] for place in places], dim) if len(places) == len(known) else None

    def changed_by(self, place: int, poisoned: Tensor) -> list[Tensor]:
        """Which elements of the value differ when the ``poisoned`` elements of an operand do."""
        operand = self.values[place]
        before: Tensor = operand
        poison: complex = complex(math.nan, math.nan) if operand.is_complex() else math.nan
        if not (operand.is_floating_point() or operand.is_complex()):
            before, poison = torch.zeros_like(operand), 1
        after = before.masked_fill(poisoned, poison)
        runs = [pytree.tree_leaves(self.run(**{f"at{place}": value})) for value in (before, after)]
        # Another memory layout may round differently, which is no change.
        return [~torch.isclose(a, b, rtol=1e-5, atol=1e-9) & (a == a) for a, b in zip(*runs)]


def closure(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """``nodes`` and everything that they are computed from."""
    found: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return found


def size(rows: Any) -> int:
    return sum(own.numel() for own in pytree.tree_leaves(rows))


def same_rows(a: Any, b: Any) -> bool:
    return a is not None and all(torch.equal(x, y) for x, y in zip(pytree.tree_leaves(a), pytree.tree_leaves(b)))
