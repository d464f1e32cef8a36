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
from types import CodeType, ModuleType
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
        # One that was loaded from a file is of no function.
        is_of_python = inspect.isfunction(python_of(function))
        if threading.get_ident() != own_thread or (is_of_python and is_what_python_has(function)):
            return call(function, *args, **kwargs)
        names = {own.name: own.default_value for own in function.schema.arguments}
        given = names | dict(zip(names, args)) | kwargs
        return Compiled(function.name).run(function.inlined_graph, list(given.values()))

    # All calls go through the class, which PyTorch types as one that nobody assigns to.
    ScriptFunction.__call__ = called  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ScriptFunction.__call__ = call  # type: ignore[method-assign]


def is_what_python_has(function: Any) -> bool:
    """Whether all that was compiled is in functions that Python finds from this one by their names."""
    reached = [python_of(function)]
    for own in reached:
        reached += [each for each in functions_named_in(own) if each not in reached]
    lines = {(code.co_filename, line) for own in reached for code in codes(own) for *_, line in code.co_lines()}
    return all(place in lines for place in places(function.inlined_graph))


def functions_named_in(function: Any) -> Iterator[Any]:
    """The functions that a function finds by their names: of its module, around it, and in modules and classes."""
    code, names = function.__code__, {name for own in codes(function) for name in own.co_names}
    around = zip(code.co_freevars, function.__closure__ or ())
    scope = function.__globals__ | {name: cell.cell_contents for name, cell in around}
    for own in (scope[name] for name in (*sorted(names), *code.co_freevars) if name in scope):
        inside = [getattr(own, name, None) for name in names] if isinstance(own, ModuleType) else []
        methods = [*vars(own).values()] if isinstance(own, type) else []
        yield from filter(inspect.isfunction, map(python_of, (own, *inside, *methods)))


def codes(function: Any) -> list[CodeType]:
    """The code of a function, and of what is inside of it, as comprehensions are."""
    found = [function.__code__]
    for own in found:
        found += [inner for inner in own.co_consts if isinstance(inner, CodeType)]
    return found


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
        (result,) = self.block(graph, args)
        return result

    def block(self, block: Any, given: list[Any]) -> list[Any]:
        self.tell(block.inputs(), given)
        for node in block.nodes():
            self.tell(node.outputs(), self.node(node))
        return self.read(block.outputs())

    def tell(self, names: Any, values: list[Any]) -> None:
        self.values.update(zip((own.debugName() for own in names), values, strict=True))

    def read(self, values: Any) -> list[Any]:
        return [self.values[own.debugName()] for own in values]

    def node(self, node: Any) -> list[Any]:
        kind, given = node.kind(), self.read(node.inputs())
        if kind == "prim::Constant":
            return [node.output().toIValue()]
        if kind == "prim::If":
            taken, other = node.blocks()
            return self.block(taken if given[0] else other, [])
        if kind == "prim::Loop":
            return self.loop(node, *given)
        if kind == "prim::RaiseException":
            raise RuntimeError(given[0])
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            return list(given[0])
        if kind in PYTHONS:
            return [PYTHONS[kind](*given)]
        if not any(isinstance(own, Tensor) for own in given) and kind in NUMBERS:
            return [NUMBERS[kind](*given)]
        return self.operator(node, given)

    def loop(self, node: Any, trips: int, goes_on: bool, *begin: Any) -> list[Any]:
        (body,), carried = node.blocks(), list(begin)
        for trip in range(trips):
            if not goes_on:
                break
            goes_on, *carried = self.block(body, [trip, *carried])
        return carried

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
            f"{node.kind()}{line} of {self.name} under torch.jit.script cannot be captured as it was compiled, and "
            "what Python has by the names that it calls is another: give a function that was defined anew a name of "
            "its own."
        )
