"""Symbolic sizes: which numbers they are for given arguments, and what a trace decided by them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import FrameSummary
from typing import Any

import torch

from ..graph.source import is_library_frame

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)

Sizes = dict[Any, int]
"""What each symbol of sympy stands for."""


def is_symbolic(value: Any) -> bool:
    """Whether a number is one of a symbol, and was not found to be the same always."""
    return isinstance(value, SYMBOLIC) and not value.node.expr.is_number


def evaluated(value: Any, sizes: Sizes) -> Any:
    """A number of symbols as the number that it is for ``sizes``; anything else as it is."""
    if not isinstance(value, SYMBOLIC):
        return value
    number = value.node.expr.xreplace(sizes)
    if isinstance(value, torch.SymBool):
        return bool(number)
    return int(number) if isinstance(value, torch.SymInt) else float(number)


@dataclass(frozen=True)
class Guard:
    """What a trace found to be true of symbols, and went one way for it.

    Attributes:
        condition: of sympy. line: ``model.py:41``, where it asked; empty where the question was PyTorch's own.
    """

    condition: Any
    line: str

    def holds(self, sizes: Sizes) -> bool:
        return bool(self.condition.xreplace(sizes) == True)  # noqa: E712


@dataclass(frozen=True)
class SymbolicSizes:
    """The sizes of a step's arguments where some are symbols.

    Attributes:
        shapes: of every tensor among the arguments. guards: for which of them a trace holds.
    """

    shapes: tuple[Sequence[Any], ...]
    guards: tuple[Guard, ...]

    @classmethod
    def of(cls, shapes: Iterable[Sequence[Any]]) -> SymbolicSizes:
        found = tuple(map(tuple, shapes))
        (env,) = {own.node.shape_env for shape in found for own in shape if is_symbolic(own)}
        return cls(found, tuple(guards_of(env)))

    def symbols(self) -> set[Any]:
        return {own.node.expr for shape in self.shapes for own in shape if is_symbolic(own)}

    def of_shapes(self, shapes: Sequence[Sequence[int]]) -> Sizes | None:
        """What the symbols stand for where arguments have these shapes; None where they cannot have them."""
        pairs = [
            (own, size)
            for shape, other in zip(self.shapes, shapes, strict=True)
            for own, size in zip(shape, other, strict=True)
        ]
        sizes = {own.node.expr: size for own, size in pairs if is_symbolic(own) and own.node.expr.is_symbol}
        symbols = {symbol for own, _ in pairs if is_symbolic(own) for symbol in own.node.expr.free_symbols}
        if symbols - sizes.keys() or any(evaluated(own, sizes) != size for own, size in pairs):
            return None
        return sizes

    def broken(self, sizes: Sizes) -> Guard | None:
        """The first condition that ``sizes`` do not meet."""
        return next((own for own in self.guards if not own.holds(sizes)), None)


def guards_of(env: Any) -> Iterable[Guard]:
    """Conditions on the symbols of a ``ShapeEnv`` that are left, which those that were found to be equal stand for."""
    import sympy

    for guard in env.guards:
        yield Guard(env.replace(guard.expr), line_of(guard.sloc.framework_loc))
    for symbol, bounds in env.var_to_range.items():
        if symbol not in env.replacements:
            yield Guard(sympy.And(symbol >= bounds.lower, symbol <= bounds.upper), "")


def line_that_fixes(symbol: Any, env: Any) -> str:
    """The line of a branch that is taken for one value of a symbol alone; empty where there is none."""
    import sympy

    asked = (own for own in env.guards if isinstance(own.expr, sympy.Eq) and symbol in own.expr.args)
    return next((line_of(own.sloc.framework_loc) for own in asked if own.expr.free_symbols == {symbol}), "")


def line_of(frame: Any) -> str:
    is_users = isinstance(frame, FrameSummary) and not is_library_frame(frame.filename)
    return f"{Path(frame.filename).name}:{frame.lineno}" if is_users else ""
