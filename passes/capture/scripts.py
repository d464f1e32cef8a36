"""Functions under `torch.jit.script` of which Python no longer has what was compiled.

`torch.export` traces the Python function of which one was compiled, which finds others by the names that they have now.
Public diffusion transformers define `modulate` anew after they compiled a function that calls it: traced that way,
their step would be another than the one that runs. Such a function is traced as the graph that it runs.

Before:  def modulate(x, by): return x * by
         scaled = torch.jit.script(lambda x, by: modulate(x, by))
         def modulate(x, by): return x * by.unsqueeze(1)
After:   scaled(x, by) is recorded as aten.mul.Tensor(x, by)
"""

from __future__ import annotations

import inspect
import operator
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.jit import ScriptFunction

from ...errors import CaptureError

NUMBERS: dict[str, Callable[..., Any]] = {
    "aten::add": operator.add,
    "aten::sub": operator.sub,
    "aten::mul": operator.mul,
    "aten::div": operator.truediv,
    "aten::floordiv": operator.floordiv,
    "aten::remainder": operator.mod,
    "aten::neg": operator.neg,
    "aten::lt": operator.lt,
    "aten::le": operator.le,
    "aten::gt": operator.gt,
    "aten::ge": operator.ge,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
}
"""Of what is no tensor. Sizes may be symbols, which the operators of `torch.jit` do not know."""

PYTHONS: dict[str, Callable[..., Any]] = {
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::__not__": operator.not_,
    "aten::__getitem__": operator.getitem,
    "aten::len": len,
    "aten::dim": Tensor.dim,
    "aten::size": Tensor.size,
    "aten::Bool": bool,
    "aten::Int": int,
    "aten::Float": float,
    "aten::format": str.format,
    "prim::ListConstruct": lambda *parts: list(parts),
    "prim::TupleConstruct": lambda *parts: parts,
    "prim::unchecked_cast": lambda own: own,
}

PYTORCH = str(Path(torch.__file__).parent)

PLACE = re.compile(r'File "(.+)", line (\d+)')


@contextmanager
def compiled_functions_traced() -> Iterator[None]:
    """In this thread, run functions that are not what Python has as the graphs that were compiled, node by node."""
    call, own_thread = ScriptFunction.__call__, threading.get_ident()

    def called(function: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != own_thread or is_what_python_has(function):
            return call(function, *args, **kwargs)
        names = {own.name: own.default_value for own in function.schema.arguments}
        given = names | dict(zip(names, args)) | kwargs
        return Compiled(function.name).run(function.inlined_graph, list(given.values()))

    ScriptFunction.__call__ = called  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ScriptFunction.__call__ = call  # type: ignore[method-assign]


def is_what_python_has(function: Any) -> bool:
    """Whether all that was compiled is in functions that Python finds from this one by their names."""
    reached = [function._torchdynamo_inline]
    for own in reached:
        reached += [each for each in map(python_of, named_in(own)) if inspect.isfunction(each) and each not in reached]
    lines = {(own.__code__.co_filename, line) for own in reached for *_, line in own.__code__.co_lines()}
    return all(place in lines for place in places(function.inlined_graph))


def named_in(function: Any) -> Iterator[Any]:
    """What a function has by name: of its module, of functions around it, and of modules."""
    variables = inspect.getclosurevars(function)
    for own in (*variables.globals.values(), *variables.nonlocals.values()):
        yield own
        if isinstance(own, ModuleType):
            yield from (getattr(own, name, None) for name in function.__code__.co_names)


def python_of(value: Any) -> Any:
    return getattr(value, "_torchdynamo_inline", None) if isinstance(value, ScriptFunction) else value


def places(block: Any) -> Iterator[tuple[str, int]]:
    """File and line of which nodes were compiled, but for PyTorch's own."""
    for node in block.nodes():
        found = PLACE.search(node.sourceRange())
        if found and not found[1].startswith((PYTORCH, "<")):
            yield found[1], int(found[2])
        for inner in node.blocks():
            yield from places(inner)


def is_default(argument: Any, value: Any) -> bool:
    return not isinstance(value, Tensor) and bool(value == argument.default_value)


class Compiled:
    """One call of a compiled function, whose values are kept by the names that they have in its graph."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, Any] = {}

    def run(self, graph: Any, args: list[Any]) -> Any:
        self.values.update(zip((own.debugName() for own in graph.inputs()), args, strict=True))
        (result,) = self.block(graph)
        return result

    def block(self, block: Any) -> list[Any]:
        for node in block.nodes():
            found = self.node(node)
            self.values.update(zip((own.debugName() for own in node.outputs()), found, strict=True))
        return self.read(block.outputs())

    def read(self, values: Any) -> list[Any]:
        return [self.values[own.debugName()] for own in values]

    def node(self, node: Any) -> list[Any]:
        kind, given = node.kind(), self.read(node.inputs())
        if kind == "prim::Constant":
            return [node.output().toIValue()]
        if kind == "prim::If":
            taken, other = node.blocks()
            return self.block(taken if given[0] else other)
        if kind == "prim::RaiseException":
            raise RuntimeError(given[0])
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            return list(given[0])
        if kind in PYTHONS:
            return [PYTHONS[kind](*given)]
        if not any(isinstance(own, Tensor) for own in given) and kind in NUMBERS:
            return [NUMBERS[kind](*given)]
        return self.operator(node, given)

    def operator(self, node: Any, given: list[Any]) -> list[Any]:
        """Call the ATen operator of a node."""
        if not node.kind().startswith("aten::") or node.schema() == "(no schema)":
            raise self.refused(node)
        schema = torch._C.parse_schema(node.schema())
        told = list(zip(schema.arguments, given, strict=True))
        # `torch.jit` has dtypes as numbers, which no other part of PyTorch reads.
        if any("ScalarType" in str(own.real_type) and value is not None for own, value in told):
            raise self.refused(node)
        # Without defaults the packet picks the overload of Python: x + 1 is add.Tensor there, and add.Scalar here.
        packet = getattr(torch.ops.aten, schema.name.removeprefix("aten::"))
        args = [value for own, value in told if not own.has_default_value()]
        kwargs = {own.name: value for own, value in told if own.has_default_value() and not is_default(own, value)}
        found = packet(*args, **kwargs)
        return list(found) if len(schema.returns) > 1 else [found][: len(schema.returns)]

    def refused(self, node: Any) -> CaptureError:
        place = PLACE.search(node.sourceRange())
        line = f" ({Path(place[1]).name}:{place[2]})" if place else ""
        return CaptureError(
            f"{node.kind()}{line} of {self.name} under torch.jit.script cannot be captured as it was compiled, and in "
            "Python a function that it calls was defined anew since and is another: give that one a name of its own."
        )
