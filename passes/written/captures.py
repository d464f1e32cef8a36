"""A capture as JSON: the graph by the names of its operators, without weights and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import fx, nn

from ..capture.any_rows import AnyRows, Size
from ..capture.captured import Autocast, Capture, Input
from ..capture.draws import Draw
from ..capture.sizes import Guard
from ..capture.writes import Writes
from .constants import Constants
from .functions import read_branches, write_branches
from .graphs import GraphReader, GraphWriter
from .refused import UnusableError
from .trees import read_tree, write_tree
from .values import VALUES, checked, shortened

Guards = tuple[Guard, ...] | None
"""For which sizes a capture of many lengths holds; None for one of a single length."""


MOST_DRAWN = 2**24
"""Random numbers that nothing reads; a file that asks for more is no capture of a step."""

PATH = re.compile(r"\w+(\.\w+)*")
"""Of a weight; whether the model has it is found out where it is looked up."""


def write_capture(capture: Capture, constants: Constants, guards: Guards = None) -> dict[str, Any]:
    """The opposite of `Reader.capture`.

    Raises:
        TypeError: the capture holds what no file can.
    """
    writer = GraphWriter()
    writes = capture.writes
    found = {
        "step": capture.step,
        "graph": writer.write(capture.graph_module.graph),
        "weights": {node.name: path for node, path in capture.weights.items()},
        "constants": {node.name: constants.write(tensor) for node, tensor in capture.constants.items()},
        "inputs": [
            {"value": VALUES.write(own.value)} if own.node is None else {"node": own.node.name}
            for own in capture.inputs
        ],
        "arguments": write_tree(capture.in_spec),
        "results": write_tree(capture.out_spec),
        "autocast": VALUES.write(capture.autocast),
        "branches": None if capture.branches is None else write_branches(capture.branches),
        "bools": sorted(map(sorted, capture.bools)),
        "draws": [[list(own.shape), VALUES.write(own.dtype), VALUES.write(own.device)] for own in capture.draws],
        "writes": None
        if writes is None
        else {
            "graph": writer.write(writes.module.graph),
            "constants": [constants.write(own) for own in writes.constants],
            "numbers": list(writes.numbers),
        },
        "guards": None
        if guards is None
        else [{"condition": writer.symbols.note(own.condition), "line": own.line} for own in guards],
    }
    return found | {"symbols": writer.symbols.write()}


def write_any_rows(rows: AnyRows, constants: Constants) -> dict[str, Any]:
    """The opposite of `Reader.any_rows`; raises as `write_capture` does."""
    return {
        "capture": write_capture(rows.capture, constants),
        "rows": rows.rows,
        "sizes": [
            [node.name, [[dim, *write_size(size)] for dim, size in own.items()]] for node, own in rows.sizes.items()
        ],
        "numbers": [[node.name, number, *write_size(size)] for (node, number), size in rows.numbers.items()],
    }


def write_size(size: Size) -> list[int]:
    return [size.factor.numerator, size.factor.denominator, size.offset]


def read_draw(shape: Any, dtype: Any, device: Any) -> Draw:
    sizes = tuple(checked(size, int) for size in checked(shape, list))
    draw = Draw(sizes, checked(VALUES.read(dtype), torch.dtype), checked(VALUES.read(device), torch.device))
    if min(sizes, default=0) < 0 or math.prod(sizes) > MOST_DRAWN or not draw.dtype.is_floating_point:
        raise UnusableError("it draws what no step draws")
    return draw


def read_size(numerator: Any, denominator: Any, offset: Any) -> Size:
    return Size(Fraction(checked(numerator, int), checked(denominator, int)), checked(offset, int))


@dataclass(frozen=True)
class Reader:
    """Reads captures of a model.

    Attributes:
        operators: what a graph may call beside PyTorch's own.
    """

    constants: Constants
    operators: Collection[str]

    def capture(self, written: Any) -> tuple[Capture, Guards]:
        """What `write_capture` wrote.

        Raises:
            UnusableError: it is no capture of this model, or asks for what no file may ask for.
        """
        reader = GraphReader(written["symbols"], self.operators)
        graph = reader.read(written["graph"])
        nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
        weights = {nodes[name]: path_of_weight(path) for name, path in checked(written["weights"], dict).items()}
        constants = {nodes[name]: self.constants.read(own) for name, own in checked(written["constants"], dict).items()}
        inputs = tuple(read_input(own, nodes) for own in checked(written["inputs"], list))
        given = [*weights, *constants, *(own.node for own in inputs if own.node is not None)]
        if len(given) != len(nodes) or {*given} != {*nodes.values()}:
            raise UnusableError("its graph is called with other values than it says")
        arguments, results = read_tree(written["arguments"]), read_tree(written["results"])
        (output,) = graph.find_nodes(op="output")
        returned = output.args[0]
        if not isinstance(returned, (list, tuple)) or results.num_leaves != len(returned):
            raise UnusableError("its graph returns other results than it says")
        if arguments.num_leaves != len(inputs):
            raise UnusableError("its graph takes other arguments than it says")
        tensors = sum(own.node is not None for own in inputs)
        writes, branches, guards = (written[name] for name in ("writes", "branches", "guards"))
        found = Capture(
            checked(written["step"], str),
            fx.GraphModule(nn.Module(), graph),
            weights,
            constants,
            inputs,
            arguments,
            results,
            checked(VALUES.read(written["autocast"]), Autocast),
            branches=None if branches is None else read_branches(branches, tensors),
            writes=None if writes is None else self.writes(writes, reader, tensors),
            bools=frozenset(
                frozenset(checked(number, int) for number in own) for own in checked(written["bools"], list)
            ),
            draws=tuple(read_draw(*own) for own in checked(written["draws"], list)),
        )
        return found, None if guards is None else tuple(read_guard(own, reader) for own in checked(guards, list))

    def any_rows(self, written: Any) -> AnyRows:
        """What `write_any_rows` wrote; raises as `capture` does."""
        capture, _ = self.capture(written["capture"])
        nodes = {node.name: node for node in capture.graph_module.graph.nodes}
        return AnyRows(
            capture,
            checked(written["rows"], int),
            {
                nodes[name]: {checked(dim, int): read_size(*size) for dim, *size in own}
                for name, own in checked(written["sizes"], list)
            },
            {
                (nodes[name], checked(number, int)): read_size(*size)
                for name, number, *size in checked(written["numbers"], list)
            },
        )

    def writes(self, written: Any, reader: GraphReader, tensors: int) -> Writes:
        graph = reader.read(written["graph"])
        constants = tuple(self.constants.read(own) for own in checked(written["constants"], list))
        numbers = tuple(checked(own, int) for own in checked(written["numbers"], list))
        if not all(0 <= own < tensors for own in numbers):
            raise UnusableError("it writes an argument that there is not")
        if len(graph.find_nodes(op="placeholder")) != len(constants) + tensors:
            raise UnusableError("its graph is called with other values than it says")
        return Writes(fx.GraphModule(nn.Module(), graph), constants, numbers)


def path_of_weight(path: Any) -> str:
    if PATH.fullmatch(checked(path, str)) is None:
        raise UnusableError(f"it reads a weight {shortened(path)}, which no model has")
    return str(path)


def read_input(written: Any, nodes: dict[str, fx.Node]) -> Input:
    if "node" in checked(written, dict):
        node = nodes[written["node"]]
        return Input(node, node.meta["val"])
    return Input(None, VALUES.read(written["value"]))


def read_guard(written: Any, reader: GraphReader) -> Guard:
    return Guard(reader.symbols.expression(written["condition"]), checked(written["line"], str))
