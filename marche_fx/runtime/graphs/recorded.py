"""A step recorded piece by piece, between operators that no graph can hold."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...passes.graph.opaque import OPAQUE
from ...passes.lower.lower import result
from .recorder import Recorder, Recording

MOST_APART = 8
"""Operators of a step that are found to run between graphs; one with more of them runs without graphs."""

OPAQUE_WHY = "it calls a child as it is, whose work may be other work in each step"

PARTS = (operator.getitem, result)
"""Functions that take a value apart, without any work on a device."""


def known_apart(module: fx.GraphModule) -> dict[fx.Node, str]:
    """Operators that no graph can hold, as is known before any is tried."""
    return dict.fromkeys(module.graph.find_nodes(op="call_function", target=OPAQUE), OPAQUE_WHY)


def are_too_many(apart: Collection[fx.Node]) -> bool:
    """Whether more operators turned out to run between graphs, each by a recording that failed, than are let."""
    return sum(node.target is not OPAQUE for node in apart) > MOST_APART


class NodeError(Exception):
    """An operator of a step raised while it was recorded."""

    def __init__(self, node: fx.Node, error: Exception) -> None:
        super().__init__(told(error))
        self.node = node
        self.is_out_of_memory = isinstance(error, torch.OutOfMemoryError)


@dataclass(frozen=True)
class Failure:
    """Why a step is not recorded, without the error, which would hold all that was computed.

    Attributes:
        kind: ``"operators"`` where too many cannot be, ``"memory"`` where there is none, ``"refused"`` where nothing
            can be recorded.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Piece:
    """Operators in a row.

    Attributes:
        recording: what was recorded of them; None of one that runs by itself.
    """

    nodes: Sequence[fx.Node]
    recording: Recording | None


class RecordedStep:
    """One step on tensors that stay where they are, recorded.

    Recording does nothing by itself, so that each piece is replayed when it has been recorded, and an operator that
    cannot be recorded runs between two of them: to record a step is to run it. Where recording fails, nothing of the
    piece was done, and what is left of the step runs operator by operator.

    Args:
        module: the step. args: what it is called with, each time.
        apart: operators that cannot be recorded, with why; those that are found are added.
    """

    def __init__(self, module: fx.GraphModule, args: Sequence[Any], apart: dict[fx.Node, str]) -> None:
        self.interpreter = fx.Interpreter(module, garbage_collect_values=False)
        *nodes, self.output = module.graph.nodes
        inputs = [node for node in nodes if node.op == "placeholder"]
        self.nodes = nodes[len(inputs) :]
        self.inputs = dict(zip(inputs, args, strict=True))
        self.values: dict[fx.Node, Any] = dict(self.inputs)
        self.apart = apart
        self.last_users = last_users(module.graph)
        self.pieces: list[Piece] = []
        self.failure: Failure | None = None
        self.changed: fx.Node | None = None
        """An operator that runs by itself and gave a value of another form than when the rest was recorded."""

    @property
    def graphs(self) -> list[Recording]:
        return [piece.recording for piece in self.pieces if piece.recording is not None]

    @property
    def size(self) -> int:
        """Bytes that the graphs keep."""
        return sum(own.size for own in self.graphs)

    def record(self, recorder: Recorder) -> Any:
        """Record the step while it runs; return its results."""
        rest = self.nodes
        while rest:
            count = next((number for number, node in enumerate(rest) if node in self.apart), len(rest))
            if not count:
                self.values[rest[0]] = self.value_of(rest[0], self.values)
                self.pieces.append(Piece(rest[:1], None))
                rest = rest[1:]
                continue
            try:
                piece = self.recorded(recorder, rest[:count])
            except Exception as error:
                self.failure = self.failure_of(error)
                if self.failure is not None:
                    return self.finished(rest)
                continue
            if piece.recording is not None:
                piece.recording.replay()
                self.pieces.append(piece)
            rest = rest[count:]
        return self.results(self.values)

    def record_beforehand(self, recorder: Recorder) -> None:
        """Record a step that is to run later, where all of it can be one graph."""
        if self.apart:
            return
        try:
            self.pieces = [self.recorded(recorder, self.nodes)]
        except Exception as error:
            self.failure = self.failure_of(error)

    def replay(self) -> Any:
        """Run the step as it was recorded; return its results, which the next replay overwrites."""
        for number, piece in enumerate(self.pieces):
            if piece.recording is not None:
                piece.recording.replay()
                continue
            (node,) = piece.nodes
            found = self.value_of(node, self.values)
            if not is_renewed(self.values[node], found, self.operands(node)):
                self.changed = node
                self.values[node] = found
                return self.finished([own for later in self.pieces[number + 1 :] for own in later.nodes])
        return self.results(self.values)

    def failure_of(self, error: Exception) -> Failure | None:
        """What an error means; None where its operator runs by itself from now on."""
        if not isinstance(error, NodeError):
            return Failure("refused", told(error))
        if error.is_out_of_memory:
            return Failure("memory", str(error))
        self.apart[error.node] = str(error)
        return Failure("operators", str(error)) if are_too_many(self.apart) else None

    def recorded(self, recorder: Recorder, nodes: Sequence[fx.Node]) -> Piece:
        """These operators as a piece, with their values in the memory that each replay of it writes."""
        values, inside = dict(self.values), {*nodes}

        def run() -> None:
            for node in nodes:
                try:
                    values[node] = self.value_of(node, values)
                except Exception as error:
                    raise NodeError(node, error) from error
                # So that what is computed later finds room where what is not needed any more was. What comes from
                # another piece is needed where that one gives something else one day.
                for own in inside.intersection(self.last_users.get(node, ())):
                    del values[own]

        if all(node.target in PARTS for node in nodes):
            run()
            self.values = values
            return Piece(nodes, None)
        recording = recorder.record(run)
        self.values = values
        return Piece(nodes, recording)

    def finished(self, rest: Sequence[fx.Node]) -> Any:
        """Run the rest of a step operator by operator; it is not recorded then."""
        self.pieces = []
        values, self.values = self.values, dict(self.inputs)
        for node in rest:
            values[node] = self.value_of(node, values)
        return self.results(values)

    def value_of(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        self.interpreter.env = values
        return self.interpreter.run_node(node)

    def operands(self, node: fx.Node) -> Iterator[Tensor]:
        """The tensors that an operator reads."""
        found = pytree.tree_leaves([self.values[own] for own in node.all_input_nodes])
        return (own for own in found if isinstance(own, Tensor))

    def results(self, values: dict[fx.Node, Any]) -> Any:
        return fx.map_arg(self.output.args[0], values.__getitem__)


def told(error: Exception) -> str:
    """``RuntimeError: operation not permitted``: what an error says in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def last_users(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """By operator the values that nobody reads after it; inputs are not among them."""
    found: dict[fx.Node, list[fx.Node]] = {}
    seen: set[fx.Node] = set()
    for user in reversed(graph.nodes):
        for own in (user, *user.all_input_nodes):
            if own not in seen:
                seen.add(own)
                if own.op != "placeholder":
                    found.setdefault(user, []).append(own)
    return found


def is_renewed(before: Any, now: Any, operands: Iterator[Tensor]) -> bool:
    """Put a value where an earlier one is, which graphs read; False where it has another form or is another number."""
    olds, spec = pytree.tree_flatten(before)
    news, other = pytree.tree_flatten(now)
    if spec != other:
        return False
    given = {own.untyped_storage().data_ptr() for own in operands}
    for old, new in zip(olds, news):
        if not isinstance(old, Tensor) or not isinstance(new, Tensor):
            if type(old) is not type(new) or old != new:
                return False
        elif (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
            return False
        elif new.untyped_storage().data_ptr() in given:
            # A view of what it reads cannot be put elsewhere.
            if (old.data_ptr(), old.stride()) != (new.data_ptr(), new.stride()):
                return False
        else:
            old.copy_(new)
    return True
