"""One capture for many lengths: traced once with symbols for sizes, and proven on a call that was captured before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ..graph.source import source_line
from .alike import first_difference
from .arguments import opened
from .capture import Dynamic, capture
from .captured import Autocast, Capture, Input
from .rehearsal import rehearse_call
from .sizes import Guard, Sizes, SymbolicSizes, is_symbolic
from .specialise import specialised
from .tables import are_alike, holds_all_of


class LengthError(Exception):
    """Why each length of a step is captured on its own."""


@dataclass(frozen=True)
class AnyLength:
    """A captured step with symbols for sizes, of which captures of single lengths are made without a trace.

    Attributes:
        capture: its graph. sizes: what its symbols stand for.
    """

    capture: Capture
    sizes: SymbolicSizes

    @classmethod
    def of(cls, capture: Capture, guards: Sequence[Guard]) -> AnyLength:
        """The step that holds for sizes which ``guards`` allow."""
        shapes = tuple(tuple(own.value.shape) for own in capture.inputs if own.node is not None)
        return cls(capture, SymbolicSizes(shapes, tuple(guards)))

    def sizes_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sizes | None:
        """What the symbols are for these arguments; None where the trace does not hold for them."""
        if not self.capture.accepts(args, kwargs):
            return None
        sizes = self.sizes.of_shapes(shapes_of((args, kwargs)))
        return None if sizes is None or self.sizes.broken(sizes) else sizes

    def covers(self, known: Capture) -> bool:
        """Whether a capture of single sizes is one that would be made of this one."""
        own = self.capture
        if (own.in_spec, own.autocast) != (known.in_spec, known.autocast):
            return False
        if not all(each.accepts(other.value) for each, other in zip(own.inputs, known.inputs, strict=True)):
            return False
        sizes = self.sizes.of_shapes([each.value.shape for each in known.inputs if each.node is not None])
        return sizes is not None and self.sizes.broken(sizes) is None

    def at(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Capture | None:
        """The capture of ``model.step(*args, **kwargs)``; None where this one does not hold for it.

        The step is called once, on copies: what it makes of the model's attributes must be what the graph holds.
        """
        sizes = self.sizes_for(args, kwargs)
        if sizes is None:
            return None
        own, rehearsal = self.capture.tables, rehearse_call(model, self.capture.step, args, kwargs)
        if rehearsal.assigned - own.places - own.written:
            return None
        # What it made in an earlier call it may find now.
        tables = replace(rehearsal, assigned=rehearsal.assigned | own.places).tables(model, own.written, own.varying)
        return self.of_sizes(sizes, tables=tables) if holds_all_of(own.after, tables.after) else None

    def of_sizes(self, sizes: Sizes, **changed: Any) -> Capture:
        own = self.capture
        module, nodes = specialised(own.graph_module, sizes)
        inputs = [Input(nodes[each.node], nodes[each.node].meta["val"]) if each.node else each for each in own.inputs]
        written = own.writes
        return replace(
            own,
            graph_module=module,
            weights={nodes[node]: path for node, path in own.weights.items()},
            constants={nodes[node]: tensor for node, tensor in own.constants.items()},
            inputs=tuple(inputs),
            writes=None if written is None else replace(written, module=specialised(written.module, sizes)[0]),
            is_instance=True,
            **changed,
        )


def capture_any_length(model: nn.Module, known: Capture, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AnyLength:
    """Capture a step that is called with tensors of other sizes than in a ``known`` capture, with symbols for these.

    The trace runs with the new sizes, so what it takes of them for granted would be another thing in the known capture:
    with the known sizes in place of the symbols it must be that one, node for node.

    Raises:
        LengthError: it is another one, holds for one length only, or there is none.
    """
    before = [own.value.shape for own in known.inputs if own.node is not None]
    try:
        found = capture(model, known.step, *contiguous((args, kwargs)), dynamic=changed_dims(known, (args, kwargs)))
    except Exception as error:
        # Whatever stands in the way of symbols, a capture of these sizes alone may do without.
        raise LengthError(next(iter(str(error).splitlines()), type(error).__name__)) from error
    sizes = SymbolicSizes.of(own.value.shape for own in found.inputs if own.node is not None)
    any_length = AnyLength(found, sizes)
    refuse_parts(any_length)
    of_known = sizes.of_shapes(before)
    broken = None if of_known is None else sizes.broken(of_known)
    if of_known is None or broken is not None:
        line = f" ({broken.line})" if broken is not None and broken.line else ""
        raise LengthError(f"it takes another path for other lengths{line}")
    difference = first_difference(any_length.of_sizes(of_known), known)
    if difference:
        raise LengthError(f"{difference} is another for another length")
    if found.draws != known.draws:
        raise LengthError("it draws other random numbers for another length")
    own, other = found.tables, known.tables
    if any(not are_alike(own.after[place], other.after[place]) for place in own.after.keys() & other.after.keys()):
        raise LengthError("it makes other tables for another length")
    return any_length


def refuse_parts(found: AnyLength) -> None:
    """Raise if symbols stand where no other sizes can be put in their place."""
    graph = found.capture.graph_module.graph
    symbols = found.sizes.symbols()
    if graph.find_nodes(op="get_attr"):
        raise LengthError("it runs a graph of its own, as torch.cond does")
    for node in graph.nodes:
        for number in numbers_in(node.meta.get("val")):
            if is_symbolic(number) and not number.node.expr.free_symbols <= symbols:
                raise LengthError("a length depends on values")


def numbers_in(value: Any) -> list[Any]:
    leaves = pytree.tree_leaves(value)
    return [size for own in leaves for size in (own.shape if isinstance(own, Tensor) else (own,))]


def refuse_dropping(known: Capture) -> None:
    """Raise if values decide a size, as where a step drops tokens, or are numbers of Python, as by ``tolist``.

    Then there are symbols already.
    """
    numbers: fx.Node | None = None
    for node in known.graph_module.graph.nodes:
        leaves = pytree.tree_leaves(node.meta.get("val"))
        if any(is_symbolic(size) for own in leaves if isinstance(own, Tensor) for size in own.shape):
            raise LengthError("how many tokens it keeps depends on values")
        if numbers is None and any(is_symbolic(own) for own in leaves):
            numbers = node
    if numbers is not None:
        line = source_line(numbers)
        raise LengthError("it reads values as numbers of Python, as tolist does" + (f" ({line})" if line else ""))


def contiguous(call: Any) -> Any:
    """The same call with tensors whose strides say nothing of sizes that they were cut from."""
    return pytree.tree_map_only(Tensor, lambda own: own.detach().clone(memory_format=torch.contiguous_format), call)


def shapes_of(call: Any) -> list[torch.Size]:
    return [own.shape for own in pytree.tree_leaves(opened(call)) if isinstance(own, Tensor)]


def differs_in_sizes(known: Capture, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is of the kinds of a captured one but for sizes, none of which is 0 or 1.

    A size of 1 is broadcast, which is another graph.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    if spec != known.in_spec or Autocast.current(leaves) != known.autocast:
        return False
    if not all(own.accepts_kind(leaf) for own, leaf in zip(known.inputs, leaves, strict=True)):
        return False
    shapes = [own.value.shape for own in known.inputs if own.node is not None]
    pairs = zip(shapes, shapes_of((args, kwargs)), changed_dims(known, (args, kwargs)), strict=True)
    changed = [(before[dim], now[dim]) for before, now, dims in pairs for dim in dims]
    return bool(changed) and all(size > 1 for pair in changed for size in pair)


def changed_dims(known: Capture, call: Any) -> Dynamic:
    """Of each tensor among the arguments the dimensions whose size is another than in a captured call."""
    before = [own.value.shape for own in known.inputs if own.node is not None]
    return [
        [dim for dim, (own, other) in enumerate(zip(shape, new, strict=True)) if own != other]
        for shape, new in zip(before, shapes_of(call), strict=True)
    ]
