"""Late-bound results: a step's output that runs the step when it is read, knowing which rows are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .rows import RowNumbers
from .value import LateValue, Read
from .views import SEVERAL, View, shares_memory, through, views_of
from .writes import DRAWS, DROPS, NOTHING, Write, in_place, refuse_reshaping, writes_in_place

DESCRIPTIONS = (
    {
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_sparse")
    }
    | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, Tensor.is_complex}
    | {Tensor.stride, Tensor.is_contiguous, Tensor.storage_offset, Tensor.nelement, Tensor.element_size}
)
"""What can be asked of a tensor without its values."""

UNCOUNTED = {
    getattr(Tensor, name)
    for name in ("numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage", "share_memory_")
} | {Tensor.data.__get__}  # type: ignore[attr-defined]
"""Ways to memory in which PyTorch counts no writes."""

FEW = 0.5
"""A slice of less than this share of a sample's rows reads them; one of more may be on the way to another."""


class LateTensor(Tensor):
    """A tensor whose values are computed when they are first read.

    Reading rows, ``z[rows]``, computes those; any other use computes what the refresh policy chooses. Views of it are
    late too. What is written into it is kept, whatever is read before and after. Shape, dtype and device are known
    before.
    """

    late: LateValue
    like: Tensor
    views: tuple[View, ...]

    @staticmethod
    def __new__(cls, like: Tensor, numbers: RowNumbers | None, read: Read) -> LateTensor:
        """A stand-in for a tensor of the shape, dtype and device of ``like``.

        ``numbers`` are those of the tokens that its elements are computed of, None where these cannot be told.
        """
        plain = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device="meta")
        return cls.seen(LateValue(plain, numbers, read), plain, (), like.device)

    @classmethod
    def seen(cls, late: LateValue, like: Tensor, views: tuple[View, ...], device: torch.device) -> LateTensor:
        """``late`` through views; ``like`` has the shape and strides of what is seen."""
        strides, offset = like.stride(), like.storage_offset()
        found = Tensor._make_wrapper_subclass(
            cls, like.shape, strides=strides, storage_offset=offset, dtype=like.dtype, device=device
        )
        found.late, found.like, found.views = late, like, views
        return found

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(kwargs.get("out"), LateTensor):
            return write_result(func, args, kwargs)
        own = args[0] if args else None
        if not isinstance(own, LateTensor):
            return func(*resolved(args), **resolved(kwargs))
        if func in DESCRIPTIONS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if writes_in_place(func):
            return own.write(func, resolved(args[1:]), resolved(kwargs))
        if kwargs.get("inplace"):
            return own.write(func, resolved(args[1:]), resolved(kwargs))
        view = views_of(func, args[1:], kwargs)
        if view is not None:
            return own.through(view)
        if func is Tensor.__getitem__:
            return own.at(resolved(args[1]))
        if func in UNCOUNTED:
            own.late.is_uncounted = True
        found = func(own.value(), *resolved(args[1:]), **resolved(kwargs))
        rows = own.late.rows_in(own.views)
        own.late.note_sharing(found, rows)
        if func in UNCOUNTED:
            own.late.share(rows)
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Uses that pass by ``__torch_function__``, from C++."""
        return func(*resolved(args), **resolved(kwargs or {}))

    def value(self) -> Tensor:
        """All of it."""
        return through(self.views, self.late.get(self.late.rows_in(self.views)))

    def handed_out(self) -> Tensor:
        """All of it, for the loop to hold."""
        found = self.value()
        self.late.share(self.late.rows_in(self.views))
        return found

    def at(self, index: Any) -> Tensor:
        """``self[index]``, of rows that are computed for it."""
        numbers = self.late.numbers
        rows = None if numbers is None else numbers.read(self.views, index)
        found = through(self.views, self.late.get(rows))[index]
        self.late.note_sharing(found, rows)
        return found

    def through(self, view: View) -> Any:
        """A view of it: late, unless it is of few rows, or copies."""
        found = view.function(self.like, *view.args, **view.kwargs)
        if view.function in SEVERAL:
            parts = [View(view.function, view.args, view.kwargs, number) for number in range(len(found))]
            return type(found)(self.one(part, like) for part, like in zip(parts, found))
        return self.one(view, found)

    def one(self, view: View, like: Tensor) -> Tensor:
        views, numbers = (*self.views, view), self.late.numbers
        if not shares_memory(like, self.like):
            return view.of(self.value())
        if view.function is Tensor.__getitem__ and (numbers is None or numbers.share(views) < FEW):
            return self.at(*view.args)
        return self.seen(self.late, like, views, self.device)

    def write(self, function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LateTensor | None:
        """Write into it, which reads nothing of it."""
        name, function = function.__name__, in_place(function)
        refuse_reshaping(name)
        if name in (*DRAWS, *DROPS):
            before = self.value().clone() if name in DROPS else torch.empty_like(self.like, device=self.device)
            function, args, kwargs = Tensor.copy_, (function(before, *args, **kwargs),), {}
        if name not in NOTHING:
            self.late.write(Write.of(self.views, function, args, kwargs))
        return None if name == "__setitem__" else self

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(resolved(self))


def write_result(func: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``func(..., out=late)``."""
    out = kwargs["out"]
    rest = {name: value for name, value in kwargs.items() if name != "out"}
    return out.write(Tensor.copy_, (func(*resolved(args), **resolved(rest)),), {})


def resolved(tree: Any) -> Any:
    """``tree`` with the value of every late tensor in place of it."""
    return pytree.tree_map(lambda leaf: leaf.handed_out() if isinstance(leaf, LateTensor) else leaf, tree)
