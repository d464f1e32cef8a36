"""The notation in which a rule is one line: ``"... c, o c, o? -> ... o | mixes c"``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx

from ...checks import shown
from ...errors import RuleError
from ..graph.operands import Place, operands, same_size, shape_of
from .dim_map import DimMap, finished


@dataclass(frozen=True)
class Notation:
    """A line of the notation, read.

    Attributes:
        operands: the axes of each operand. output: those of every output.
        mixed: axes along which an output element reads more than its own position although they are in the output.
    """

    operands: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    mixed: frozenset[str]


def parse(text: str) -> Notation:
    """Read a rule.

    Raises:
        RuleError: it is malformed; the message quotes it.
    """

    def refuse(why: str) -> RuleError:
        return RuleError(f"rule {text!r}: {why}")

    if not isinstance(text, str):
        raise RuleError(f"a rule is a text, such as '... c, o c -> ... o', got {shown(text)}")
    signature, bar, mixes = text.partition("|")
    if signature.count("->") != 1:
        raise refuse("write the operands, one '->' and the output, as in '... c, o c -> ... o'")
    inputs, _, out = signature.partition("->")
    if "," in out:
        raise refuse("the one pattern after '->' stands for every output of the operator")
    given = [part.split() for part in inputs.split(",")]
    output = out.split()
    for index, axes in enumerate(given):
        if not axes:
            raise refuse(f"operand {index} is empty; '...' is a tensor of any number of dimensions, none included")
        axes[-1] = axes[-1].removesuffix("?")
    for where, axes in (*((f"operand {index}", axes) for index, axes in enumerate(given)), ("the output", output)):
        for axis in axes:
            if axis != "..." and not axis.isidentifier():
                optional = "; '?' ends an operand that may be missing" if "?" in axis else ""
                raise refuse(f"{axis!r} in {where} is neither '...' nor the name of an axis{optional}")
            if axes.count(axis) > 1:
                raise refuse(f"{axis!r} stands twice in {where}; a diagonal cannot be written")
    known = {axis for axes in given for axis in axes}
    if "..." in output and "..." not in known:
        raise refuse("'...' is in the output but in no operand")
    words = mixes.split()
    if bar and (len(words) < 2 or words[0] != "mixes"):
        raise refuse("after '|' stands 'mixes' and the names of axes, as in '... c -> ... c | mixes c'")
    for axis in words[1:]:
        if axis not in known:
            raise refuse(f"it mixes {axis!r}, which is an axis of no operand")
    return Notation(tuple(tuple(axes) for axes in given), tuple(output), frozenset(words[1:]))


def pattern(text: str) -> Callable[[fx.Node], DimMap]:
    """A rule from its line in the table."""
    notation = parse(text)

    def rule(node: fx.Node) -> DimMap:
        out_shape = shape_of(node)
        out_dims = named_dimensions(notation.output, len(out_shape))
        gone: dict[str, list[Place]] = {}
        output: dict[Place, int] = {}
        mixed_dims = {out for axis, out in out_dims.items() if is_mixed(axis, notation.mixed)}
        for index, (axes, operand) in enumerate(zip(notation.operands, operands(node))):
            shape = shape_of(operand)
            for axis, dim in named_dimensions(axes, len(shape)).items():
                out = out_dims.get(axis)
                if out is None:
                    gone.setdefault(axis, []).append((index, dim))
                elif same_size(shape[dim], out_shape[out]):
                    output[index, dim] = out
                elif not same_size(shape[dim], 1):
                    # Heads of q that share one of k: position 3 of the output does not read position 3 of k.
                    mixed_dims.add(out)
        mixed = {place for place, out in output.items() if out in mixed_dims}
        return finished(node, output, mixed, tuple(tuple(places) for places in gone.values()))

    return rule


def is_mixed(axis: str, mixed: Iterable[str]) -> bool:
    return axis in mixed or (axis.startswith("...") and "..." in mixed)


def named_dimensions(axes: Iterable[str], rank: int) -> dict[str, int]:
    """Axis name to dimension: before `...` from the left, after it, or without it, from the right.

    The dimensions of `...` are named by their distance from its end, as they broadcast.
    """
    axes = list(axes)
    before, after = ([], axes) if "..." not in axes else (axes[: axes.index("...")], axes[axes.index("...") + 1 :])
    end = rank - len(after)
    names = {axis: dim for dim, axis in enumerate(before) if dim < end}
    names |= {f"...{end - dim}": dim for dim in range(len(before), end)} if "..." in axes else {}
    return names | {axis: end + i for i, axis in enumerate(after) if end + i >= 0}
