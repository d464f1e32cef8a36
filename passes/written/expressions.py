"""Sizes of symbols as JSON: ``s0 // 2`` is ``["FloorDiv", "s0", 2]``."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch.fx.experimental.sym_node import SymNode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy import functions
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from .refused import UnusableError
from .values import LARGEST_INTEGER, checked, shortened

CLASSES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (sympy.Add, sympy.Mul, sympy.Pow, sympy.And, sympy.Or, sympy.Not)},
    **{kind.__name__: kind for kind in (sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge)},
    **{
        name: getattr(functions, name)
        for name in (
            *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt"),
            *("CeilDiv", "Max", "Min", "FloatTrueDiv", "IntTrueDiv", "TruncToInt", "TruncToFloat", "ToFloat"),
            *("Identity", "RoundToInt"),
        )
    },
    "sympy.Max": sympy.Max,
    "sympy.Min": sympy.Min,
}
"""What an expression may be made of. No function of a user's, and none whose value grows without a bound."""

NAMES = {kind: name for name, kind in CLASSES.items()}

ATOMS: dict[str, Any] = {
    "true": sympy.true,
    "false": sympy.false,
    "oo": sympy.oo,
    "-oo": -sympy.oo,
    "int_oo": int_oo,
    "-int_oo": -int_oo,
}

ASSUMPTIONS = ("integer", "positive", "nonnegative", "real")

MOST = 1000
"""Parts of an expression; sizes have some ten."""

HIGHEST = 16
"""No size is a higher power of another."""

PYTHON: dict[str, tuple[type, Any]] = {
    "int": (int, torch.SymInt),
    "float": (float, torch.SymFloat),
    "bool": (bool, torch.SymBool),
}


def write_expression(own: sympy.Basic) -> Any:
    """An expression as JSON.

    Raises:
        TypeError: it is made of something else than `CLASSES`.
    """
    if isinstance(own, sympy.Symbol):
        return own.name
    if isinstance(own, sympy.Integer):
        return int(own)
    if isinstance(own, sympy.Rational):
        return ["/", int(own.p), int(own.q)]
    if isinstance(own, sympy.Float):
        return ["float", float(own)]
    atom = next((name for name, value in ATOMS.items() if value == own), None)
    if atom is not None:
        return ["atom", atom]
    if type(own) not in NAMES:
        raise TypeError(f"a size of {type(own).__name__}")
    return [NAMES[type(own)], *map(write_expression, own.args)]


class Symbols:
    """The symbols of a graph: what is assumed of them, which numbers they may be, and were in the trace."""

    def __init__(self) -> None:
        self.known: dict[str, sympy.Symbol] = {}
        self.env = ShapeEnv()
        self.hints: dict[sympy.Symbol, sympy.Basic] = {}

    # ---------------------------------------------------------------------------------------------------- writing

    def note(self, own: sympy.Basic, env: ShapeEnv | None = None) -> Any:
        """An expression as JSON, whose symbols are noted."""
        for symbol in sorted(own.free_symbols, key=str):
            self.known.setdefault(str(symbol), symbol)
        self.env = env or self.env
        return write_expression(own)

    def write(self) -> dict[str, Any]:
        """All that was noted."""
        return {name: self.described(symbol) for name, symbol in sorted(self.known.items())}

    def described(self, symbol: sympy.Symbol) -> dict[str, Any]:
        given = {name: value for name, value in symbol._assumptions_orig.items() if name in ASSUMPTIONS}
        bounds, hint = self.env.var_to_range.get(symbol), hints_of(self.env).get(symbol)
        limits = None if bounds is None else [write_expression(own) for own in (bounds.lower, bounds.upper)]
        return {"assumed": given, "range": limits, "hint": None if hint is None else int(hint)}

    # ---------------------------------------------------------------------------------------------------- reading

    @classmethod
    def read(cls, written: Any) -> Symbols:
        """The opposite of `write`, in an environment of their own.

        Raises:
            UnusableError: it is nothing that `write` gives.
        """
        found = cls()
        for name, own in checked(written, dict).items():
            given = checked(own["assumed"], dict)
            if (
                not name.isidentifier()
                or not {*given} <= {*ASSUMPTIONS}
                or any(type(v) is not bool for v in given.values())
            ):
                raise UnusableError(f"it holds a symbol that is none: {shortened(name)}")
            symbol = found.known[name] = sympy.Symbol(name, **given)
            if own["range"] is not None:
                lower, upper = map(found.expression, own["range"])
                found.env.var_to_range[symbol] = ValueRanges(lower, upper)
            if own["hint"] is not None:
                found.hints[symbol] = sympy.Integer(checked(own["hint"], int))
        hints_of(found.env).update(found.hints)
        return found

    def expression(self, written: Any) -> Any:
        """An expression of these symbols.

        Raises:
            UnusableError: it is of others, or nothing that `write_expression` gives.
        """
        if count_of(written) > MOST:
            raise UnusableError("it holds a size of too many parts")
        return self.part(written)

    def part(self, written: Any) -> Any:
        if type(written) is int and abs(written) <= LARGEST_INTEGER:
            return sympy.Integer(written)
        if type(written) is str and written in self.known:
            return self.known[written]
        if type(written) is not list or not written or type(written[0]) is not str:
            raise UnusableError(f"it holds a size that is none: {shortened(written)}")
        name, *rest = written
        if name == "/":
            numerator, denominator = (checked(own, int) for own in rest)
            return bounded(sympy.Rational(numerator, denominator or 1))
        if name == "float":
            return sympy.Float(checked(rest[0], float))
        if name == "atom":
            return ATOMS[rest[0]]
        if name not in CLASSES:
            raise UnusableError(f"it holds a size of {shortened(name)}")
        args = [self.part(own) for own in rest]
        if name == "Pow" and not (args[1].is_Integer and abs(args[1]) <= HIGHEST):
            raise UnusableError("it holds a size that is too high a power of another")
        return bounded(CLASSES[name](*args))

    def number(self, kind: str, written: Any) -> Any:
        """A number that is an expression of symbols, as graphs hold it."""
        expression = self.expression(written)
        python, wrap = PYTHON[kind]
        hint = expression.xreplace(self.hints) if expression.free_symbols <= self.hints.keys() else None
        return wrap(SymNode(expression, self.env, python, None if hint is None else python(hint)))


def count_of(written: Any) -> int:
    """Parts of what is written, at any depth; no further than `MOST`."""
    count, waiting = 0, [written]
    while waiting and count <= MOST:
        own = waiting.pop()
        count += 1
        waiting += own if isinstance(own, list) else ()
    return count


def hints_of(env: ShapeEnv) -> Any:
    """What symbols stood for in the trace; older versions of PyTorch call it otherwise."""
    return env.backed_var_to_val if hasattr(env, "backed_var_to_val") else env.var_to_val


def bounded(own: Any) -> Any:
    """An expression, no number in which may be larger than any of a step's."""
    numbers = own.atoms(sympy.Rational)
    if any(abs(each.p) > LARGEST_INTEGER or each.q > LARGEST_INTEGER for each in numbers):
        raise UnusableError("it holds a size that is larger than any")
    if any(abs(each.exp) > HIGHEST for each in own.atoms(sympy.Pow) if each.exp.is_Integer):
        raise UnusableError("it holds a size that is too high a power of another")
    return own
