"""Graphs as JSON: every node with its operator's name, its arguments, and what is known of its value."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ..graph.source import CAPTURED, source_line, strip_wrapper
from .expressions import PYTHON, Symbols
from .operators import check_call, name_of_operator, operator_of_name
from .refused import UnusableError
from .trial import Trial
from .values import DTYPES, PLAIN, Kind, Values, checked, shortened

LINE = re.compile(r"([^\"\n\r:]{1,200}):(\d{1,9})")
"""As in ``model.py:41``."""

LARGEST = 2**44
"""No tensor has more bytes, nor reaches further."""


class GraphWriter:
    """Writes graphs that have their symbols in common."""

    def __init__(self) -> None:
        self.symbols = Symbols()
        self.values = Values(PLAIN | {"node": Kind(fx.Node, lambda own, each: own.name, no_node)})

    def write(self, graph: fx.Graph) -> list[dict[str, Any]]:
        """A graph as JSON.

        Before:  linear [2, 9, 8] = aten.linear(x, w)
        After:   {"name": "linear", "call": "aten.linear.default", "args": [{"node": "x"}, {"node": "w"}],
                  "value": ["float32", "cpu", [2, 9, 8], [72, 8, 1]]}

        Raises:
            TypeError: it holds what no file can.
        """
        return [self.write_node(node) for node in graph.nodes]

    def write_node(self, node: fx.Node) -> dict[str, Any]:
        found: dict[str, Any] = {"name": node.name}
        if node.op == "output":
            return {"output": self.values.write(node.args[0])}
        if node.op == "call_function":
            found["call"] = name_of_operator(node.target)
            found["args"] = [self.values.write(own) for own in node.args]
            if node.kwargs:
                found["kwargs"] = {name: self.values.write(own) for name, own in node.kwargs.items()}
            if line := source_line(node):
                found["line"] = line
            if modules := modules_of(node):
                found["modules"] = modules
        elif node.op != "placeholder":
            raise TypeError(f"{node.op} of {node.target}: it runs a graph of its own")
        found["value"] = self.write_value(node.meta.get("val"))
        return found

    def write_value(self, own: Any) -> Any:
        """What is known of a value: of a tensor its dtype, device, sizes and strides."""
        if isinstance(own, Tensor):
            sizes, strides = ([self.write_size(size) for size in each] for each in (own.shape, own.stride()))
            return [str(own.dtype).removeprefix("torch."), str(own.device), sizes, strides]
        if isinstance(own, (list, tuple)):
            return {type(own).__name__: [self.write_value(item) for item in own]}
        return {"number": self.write_size(own)}

    def write_size(self, own: Any) -> Any:
        kind = next((name for name, (_, wrapped) in PYTHON.items() if isinstance(own, wrapped)), None)
        if kind is None:
            return self.values.write(own)
        return {kind: self.symbols.note(own.node.expr, own.node.shape_env)}


def no_node(own: Any, each: Any) -> Any:
    raise UnusableError("it has a node where a value belongs")


class GraphReader:
    """Reads graphs that have their symbols in common.

    Args:
        symbols: what `Symbols.write` wrote. operators: what a graph may call beside PyTorch's own.
    """

    def __init__(self, symbols: Any, operators: Collection[str]) -> None:
        self.symbols = Symbols.read(symbols)
        self.mode = FakeTensorMode(shape_env=self.symbols.env)
        self.operators = operators
        self.plain = Values()
        self.trial = Trial(self.mode)
        self.sizes: dict[str, Any] = {}

    def read(self, written: Any) -> fx.Graph:
        """The opposite of `GraphWriter.write`.

        Raises:
            UnusableError: it is no graph, or calls what no file may call.
        """
        graph = fx.Graph()
        nodes: dict[str, fx.Node] = {}
        values = Values(PLAIN | {"node": Kind(fx.Node, no_node, lambda own, each: known(nodes, own))})
        *rest, last = checked(written, list)
        said = {own["name"]: own["value"] for own in rest}
        for own in rest:
            node = self.read_node(own, graph, values, name_of_node(own["name"], nodes))
            nodes[node.name] = node
            self.trial.run(node, own, said)
        graph.output(values.read(last["output"]))
        return graph

    def read_node(self, own: Any, graph: fx.Graph, values: Values, name: str) -> fx.Node:
        value = self.read_value(own["value"])
        if "call" in own:
            target = operator_of_name(own["call"], self.operators)
            args = tuple(values.read(each) for each in checked(own["args"], list))
            kwargs = {str(key): values.read(each) for key, each in checked(own.get("kwargs", {}), dict).items()}
            check_call(target, args, kwargs, value)
            node = graph.create_node("call_function", target, args, kwargs, name)
        else:
            node = graph.create_node("placeholder", name, (), {}, name)
        if node.name != name:
            raise UnusableError(f"it calls a value {shortened(name)}, which no value can be called")
        node.meta["val"] = value
        if "line" in own:
            node.meta["stack_trace"] = stack_of(own["line"])
        if "modules" in own:
            node.meta["nn_module_stack"] = stack_of_modules(own["modules"])
        return node

    def read_value(self, written: Any) -> Any:
        if type(written) is list:
            return self.fake(*written)
        ((word, own),) = checked(written, dict).items()
        if word in ("list", "tuple"):
            found = [self.read_value(item) for item in checked(own, list)]
            return found if word == "list" else tuple(found)
        return self.read_size(own)

    def read_size(self, written: Any) -> Any:
        if type(written) is int:
            return written
        if isinstance(written, dict) and len(written) == 1:
            ((kind, own),) = written.items()
            if kind in PYTHON:
                text = json.dumps(written)
                if text not in self.sizes:
                    self.sizes[text] = self.symbols.number(kind, own)
                return self.sizes[text]
        return self.plain.read(written)

    def fake(self, dtype: Any, device: Any, sizes: Any, strides: Any) -> Tensor:
        """A stand-in for a tensor, which has no memory."""
        kind, place = DTYPES[checked(dtype, str)], torch.device(checked(device, str))
        shape, steps = ([self.read_size(own) for own in checked(each, list)] for each in (sizes, strides))
        numbers = [(size, step) for size, step in zip(shape, steps, strict=True) if type(size) is type(step) is int]
        if any(size < 0 or step < 0 for size, step in numbers):
            raise UnusableError("it holds a tensor of a negative size")
        if 1 + sum(max(size - 1, 0) * step for size, step in numbers) > LARGEST:
            raise UnusableError(f"it holds a tensor of {shortened(sizes)}, which is larger than any")
        if any(size > LARGEST for size in shape if type(size) is int):
            raise UnusableError(f"it holds a tensor of {shortened(sizes)}, which is larger than any")
        memory = torch.empty_strided(shape, steps, dtype=kind, device="meta")
        return FakeTensor(self.mode, memory, place)


def known(nodes: dict[str, fx.Node], name: Any) -> fx.Node:
    if type(name) is not str or name not in nodes:
        raise UnusableError(f"it reads a value {shortened(name)} before that is made")
    return nodes[name]


def name_of_node(name: Any, nodes: Collection[str]) -> str:
    """A name of a value, which stands in the code that is generated of a graph."""
    is_name = type(name) is str and name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
    if not is_name or len(name) > 1000:
        raise UnusableError(f"it calls a value {shortened(name)}, which no value can be called")
    if name in nodes:
        raise UnusableError(f"it calls two values {name}")
    return str(name)


def modules_of(node: fx.Node) -> list[list[str]]:
    """The modules that computed a node, outermost first: their paths in the model and their classes."""
    stack = (node.meta.get("nn_module_stack") or {}).values()
    return [[strip_wrapper(path), kind if isinstance(kind, str) else kind.__name__] for path, kind in stack if path]


def stack_of_modules(written: Any) -> dict[str, tuple[str, str]]:
    """The same as a trace records it."""
    pairs = [(checked(path, str), checked(kind, str)) for path, kind in checked(written, list)]
    return {str(number): (f"{CAPTURED}.{path}".rstrip("."), kind) for number, (path, kind) in enumerate(pairs)}


def stack_of(line: Any) -> str:
    """A trace that has a line as its only one."""
    parts = LINE.fullmatch(checked(line, str))
    if parts is None:
        raise UnusableError(f"it names a line {shortened(line)} of no file")
    return f'File "{parts[1]}", line {parts[2]}, in step'
