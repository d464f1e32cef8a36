"""Late-bound results: a step's output that runs the step when it is read, knowing which rows are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..passes.capture.arguments import is_simple
from .computed import Chosen, Repeated
from .demand import Source
from .draws import LIKE, made_like, multinomial
from .expressions import Expression, Result
from .frames import is_inside_of_a_network
from .gathers import Gather
from .geometry import stand_in
from .memory import Memory, View, has_run, value_if_computed
from .modes import remembered, untraced
from .operands import Looked
from .operators import recorded
from .picks import Pick
from .rows import RowNumbers
from .trees import leaves_of, mapped
from .writes import as_fill, drawn, refuse_reshaping, written

aten = torch.ops.aten

WITHOUT_OPERATORS = {
    getattr(Tensor, name)
    for name in (
        *("numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage", "share_memory_"),
        *("tolist", "__repr__", "__format__", "__deepcopy__", "__reduce_ex__"),
    )
}
"""Ways to a tensor's memory that call no operator, so that nobody sees what is written there."""

NO_VIEWS = {aten.as_strided.default, aten.view.dtype, aten.view_as_real.default, aten.view_as_complex.default}
"""Views that show other elements than those of the viewed tensor, or where these stand in memory."""


MOST_CALLS = 8
"""What is of more calls is computed at once: an average that goes on from step to step must not hold every step."""

DEEPEST = 600
"""What is deeper is computed at once: Python calls a thousand functions inside one another, and some are the loop's."""


class LateTensor(Tensor):
    """A tensor whose values are computed when they are first read.

    Views of it are late too, and so is what operators give that compute each of its rows alone. Reading rows,
    ``z[rows]``, computes those; any other use computes what the refresh policy chooses. What is written into it is
    kept, whatever is read before and after. Shape, dtype and device are known before.
    """

    late: View

    @staticmethod
    def __new__(cls, view: View) -> LateTensor:
        like = view.geometry.like
        found = Tensor._make_wrapper_subclass(
            cls,
            like.shape,
            strides=like.stride(),
            storage_offset=like.storage_offset(),
            dtype=like.dtype,
            device=view.memory.device,
        )
        found.late = view
        view.announce()
        return found

    @classmethod
    def of_result(
        cls, like: Tensor, numbers: RowNumbers | None, source: Source, number: int = 0, *, records: bool = True
    ) -> LateTensor:
        """A stand-in for result ``number`` of a call, of the shape, strides, dtype and device of ``like``.

        Args:
            numbers: of the tokens that its elements are computed of, None where these cannot be told.
            records: whether operators on it are late too.
        """
        plain = stand_in(like, like.stride())
        return cls.holding(Result(plain, like.device, source, number, numbers), records=records)

    @classmethod
    def holding(cls, expression: Expression, *, records: bool) -> LateTensor:
        memory = Memory(expression, records=records)
        return cls(View(memory, memory.whole))

    # A compiled function calls its operators on late tensors one by one.
    @classmethod
    @untraced
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in WITHOUT_OPERATORS:
            return func(*resolved(args), **kwargs)
        refuse_reshaping(getattr(func, "__name__", ""))
        with remembered(), torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    # PyTorch's types have it as it is on `Tensor`, switched off and without a function.
    @classmethod
    @untraced
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if decomposes(func):
            # Under inference mode PyTorch leaves this to whoever answers.
            return func.decompose(*args, **kwargs)
        own = args[0] if args else None
        if not isinstance(own, LateTensor):
            return by_operator(func, args, kwargs)
        if (func.is_view or func is aten._unsafe_view.default) and func not in NO_VIEWS:
            return own.seen(func, args[1:], kwargs)
        if func._schema.is_mutable:
            first = func._schema.arguments[0]
            # What ``out=`` names comes last.
            return own.write(func, args[1:], kwargs) if is_written(first) else by_operator(func, args, kwargs)
        if func is aten.clone.default and own.late.shows_few:
            return func(own.late.value(), **kwargs)
        if func is aten.nonzero.default:
            return func(own.late.positions())
        pick = pick_of(func, args, kwargs)
        if pick is not None:
            return own.late.memory.picked(own.late.geometry, pick)
        return by_operator(func, args, kwargs)

    @property
    def looked(self) -> Looked:
        """What it shows now."""
        return Looked(self.late.memory.expression, self.late.geometry)

    def seen(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A view of it."""
        found = self.late.geometry.seen(function, args, kwargs)
        if found is None:
            return function(self.late.handed_out(), *args, **kwargs)
        late = [LateTensor(View(self.late.memory, own)) for own in found]
        return late[0] if str(function._schema.returns[0].type) == "Tensor" else late

    def write(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LateTensor:
        """Write into it, which reads nothing of it."""
        memory, looked = self.late.memory, self.looked
        if function is aten.index_put_.default:
            fill = as_fill(self, looked.geometry, args)
            function, args = fill or (function, (positions_of(args[0]), *args[1:]))
        function, args, kwargs = drawn(looked, function, args, kwargs)
        args, kwargs = looks((args, kwargs)) if memory.held is None else values_of((args, kwargs))
        found = written(looked, function, args, kwargs, records=memory.records)
        if memory.held is not None:
            # Rows that are not there yet are computed with what is written, when they are read.
            is_by_row = not isinstance(found, Repeated)
            own = self.late.geometry.of(memory.held) if is_by_row else self.late.handed_out()
            function(own, *args, **kwargs)
        memory.write(found)
        return self


@cache
def decomposes(function: Any) -> bool:
    """Whether an operator is made of others."""
    return bool(function._can_decompose())


def by_operator(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Record an operator that computes rows alone; otherwise compute what it reads, and run it."""
    late = [leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, LateTensor)]
    for own in late:
        if own.dtype == torch.bool:
            # A mask says what to compute of other values.
            own.late.memory.settle_if_computed()
    if any(map(is_held, late)):
        args, kwargs = mapped(lambda leaf: leaf.late.value() if is_held(leaf) else leaf, (args, kwargs))
        late = [leaf for leaf in late if not is_held(leaf)]
    calls = frozenset[Source]().union(*(own.looked.expression.sources for own in late))
    records = late and len(calls) <= MOST_CALLS and all(own.late.memory.records for own in late)
    records = records and max(own.looked.expression.depth for own in late) < DEEPEST
    if records and not function._schema.is_mutable:
        found = late_value(function, *looks((args, kwargs)))
        if isinstance(found, Chosen):
            # Rows of an earlier read: what a loop decides from them it decides with values.
            value = value_if_computed(found)
            if value is not None:
                return value
        if found is not None:
            return mapped(
                lambda own: LateTensor.holding(own, records=True) if isinstance(own, Expression) else own, found
            )
    arguments = function._schema.arguments
    for own in arguments:
        if is_written(own) and own.name in kwargs:
            kwargs = {**kwargs, own.name: resolved(kwargs[own.name])}
    args = tuple(resolved(arg) if is_written(own) else arg for arg, own in zip(args, arguments))
    args, kwargs = values_of((args, kwargs))
    return function(*args, **kwargs)


def is_written(argument: Any) -> bool:
    """Whether an operator writes into an argument of its schema."""
    return argument.alias_info is not None and argument.alias_info.is_write


def is_held(leaf: Any) -> bool:
    """Whether a leaf is a late tensor that is a tensor as any other by now."""
    return isinstance(leaf, LateTensor) and leaf.late.memory.held is not None


def late_value(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operator gives, with an expression in place of what is late; None where nothing is."""
    if function in LIKE:
        return made_like(function, args[0], args[1:], kwargs)
    if function is aten.multinomial.default:
        return multinomial(*args, **kwargs)
    if torch.Tag.nondeterministic_seeded in function.tags:
        return None
    if function is aten.embedding.default and is_inside_of_a_network():
        # A critic's attention will read every token: operator by operator until then takes ten times as long.
        return None
    return recorded(function, args, kwargs)


def pick_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pick | Gather | None:
    """What is read of the first argument, where the others say it by positions."""
    if function is aten.index.Tensor:
        return Pick(tuple(positions_of(args[1])))
    if function is aten.index_select.default:
        dim = args[1] % max(args[0].ndim, 1)
        return Pick.along(dim, values_of(args[2]))
    if function is aten.gather.default:
        dim = args[1] % max(args[0].ndim, 1)
        is_of_rows = dim in args[0].late.geometry.frame.dims
        return Gather(dim, values_of(args[2])) if is_of_rows else None
    if function is aten.masked_select.default:
        return Pick((positions_of(args[1]).expand(args[0].shape),))
    return None


def looks(tree: Any) -> Any:
    return mapped(lambda leaf: leaf.looked if isinstance(leaf, LateTensor) else leaf, tree)


def values_of(tree: Any) -> Any:
    """``tree`` with the value of every late tensor in place of it, to be read."""
    return with_late(tree, View.value)


def given_values(tree: Any) -> Any:
    """The same of what a step is given, which its loop cannot have otherwise afterwards."""
    return with_late(tree, View.given)


def resolved(tree: Any) -> Any:
    """The same for the loop to hold."""
    return with_late(tree, View.handed_out)


def with_late(tree: Any, value: Callable[[View], Any]) -> Any:
    """``tree`` with what a function gives of each late tensor in place of it."""
    if is_simple(tree):
        return tree
    leaves, form = pytree.tree_flatten(tree)
    borrowed: list[int] = []
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, LateTensor):
            memory = leaf.late.memory
            if not has_run(memory.expression):
                # What others gave may be caches, which the step that runs for this one writes.
                while borrowed:
                    before = borrowed.pop()
                    leaves[before] = leaves[before].clone()
            leaves[place] = value(leaf.late)
            if memory.held is None:
                borrowed.append(place)
    return pytree.tree_unflatten(leaves, form)


def positions_of(tree: Any) -> Any:
    """``tree`` with positions in place of every late tensor, which say what rows of others are read or written."""
    return mapped(lambda leaf: leaf.late.positions() if isinstance(leaf, LateTensor) else leaf, tree)
