"""What holds of the sizes of inputs, as a text: a small language of numbers, compared."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import GraphError

READS = ("size", "stride", "storage_offset")
"""Methods of an input: ``x[0].size()[1]``, ``x[0].size(1)``."""

FUNCTIONS = {
    *("math.floor", "math.ceil", "math.trunc", "math.sqrt", "max", "min", "int", "float", "bool", "abs"),
    *("torch.sym_max", "torch.sym_min", "torch.sym_int", "torch.sym_float", "torch.sym_not", "torch.sym_ite"),
    *("IsNonOverlappingAndDenseIndicator", "cast_symbool_to_symint_guardless"),
}

ALLOWED = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Load),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.IfExp),
)
"""What an expression may be made of, beside what `check` looks into. No power: its value grows without a bound."""


def relation(text: str) -> Callable[[Sequence[Any]], bool]:
    """A text as a function of the inputs.

    Raises:
        GraphError: it does anything but compare sizes, strides and offsets.
    """
    from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP

    try:
        tree = ast.parse(text, mode="eval")
        check(tree)
        function: Callable[[Sequence[Any]], bool] = eval(f"lambda x: {text}", dict(SYMPY_INTERP))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GraphError(f"conditions of compiled code are no comparison of sizes: {error}") from error
    return function


def check(node: ast.AST) -> None:
    """Raise a `ValueError` for what is not of the language."""
    if isinstance(node, ast.Call):
        check_call(node)
        rest: list[ast.AST] = [*node.args]
    elif isinstance(node, ast.Subscript):
        # Of an input's sizes.
        if not (isinstance(node.value, ast.Call) and is_read(node.value)):
            raise ValueError(shown(node))
        rest = [node.value, node.slice]
    elif isinstance(node, ast.Constant):
        if not isinstance(node.value, (bool, int, float)):
            raise ValueError(shown(node))
        rest = []
    elif isinstance(node, ALLOWED):
        rest = list(ast.iter_child_nodes(node))
    else:
        raise ValueError(shown(node))
    for own in rest:
        check(own)


def check_call(node: ast.Call) -> None:
    if node.keywords or not (is_read(node) or ast.unparse(node.func) in FUNCTIONS):
        raise ValueError(shown(node))


def is_read(node: ast.Call) -> bool:
    own = node.func
    return isinstance(own, ast.Attribute) and own.attr in READS and is_input(own.value)


def is_input(node: ast.AST) -> bool:
    """Whether it is ``x[0]``."""
    is_x = isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "x"
    return is_x and isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)


def shown(node: ast.AST) -> str:
    return f"{ast.unparse(node)[:80]!r}"
