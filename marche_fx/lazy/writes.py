"""What a loop writes into a late result: part of what it holds from then on, so that nothing written is lost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ArgumentError
from .computed import Repeated, Written
from .draws import FILLS, empty
from .expressions import Expression
from .geometry import Frame, Geometry, stand_in
from .operands import Looked, Place, Plain, placed
from .operators import recorded
from .picks import Pick, is_mask
from .trees import mapped

aten = torch.ops.aten

RESHAPED = (
    *("t_", "transpose_", "swapaxes_", "swapdims_", "squeeze_", "unsqueeze_", "as_strided_", "resize_", "resize_as_"),
    *("set_", "rename_", "share_memory_", "apply_", "map_"),
)
"""Functions that change what a tensor is, and not its values alone."""


def refuse_reshaping(name: str) -> None:
    if name in RESHAPED:
        raise ArgumentError(
            f"{name} would change the shape or memory of a result that is computed when it is read; use the form "
            f"without an underscore, as in z = z.{name.removesuffix('_')}(...), or z = z.clone() first"
        )


def drawn(
    own: Looked, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The write ``function(view, *args, **kwargs)``, with random numbers drawn now where it draws some."""
    if function._schema.name.removeprefix("aten::") not in FILLS:
        return function, args, kwargs
    numbers = empty(own)
    function(numbers, *args, **kwargs)
    return aten.copy_.default, (numbers,), {}


def written(own: Looked, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, records: bool) -> Expression:
    """What the memory of a view holds when ``function(view, *args, **kwargs)`` has written into it.

    Arguments are as they are now: the loop may overwrite them later. Values are `Looked` where they are late.
    """
    if not own.geometry.like.numel():
        return own.expression
    name = function._schema.name.removeprefix("aten::")
    found = token_wise(own, name, function, args, kwargs) if records else None
    if found is not None:
        return found
    kept, spec = pytree.tree_flatten((args, kwargs))
    kept = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in kept]

    def write(view: Tensor, values: list[Tensor]) -> None:
        rest = iter(values)
        leaves = [next(rest) if isinstance(leaf, Looked) else leaf for leaf in kept]
        own_args, own_kwargs = pytree.tree_unflatten(leaves, spec)
        function(view, *own_args, **own_kwargs)

    return Repeated(own.expression, own.geometry, write, [leaf for leaf in kept if isinstance(leaf, Looked)])


def as_fill(own: Tensor, geometry: Geometry, args: tuple[Any, ...]) -> tuple[Any, tuple[Tensor, Tensor]] | None:
    """``own[mask] = value``, ``index_put_`` with ``args``, as ``masked_fill_``, if one value is for all that it names.

    Such a write needs no positions, so that the mask may be late, or say it of channels. Of rows that a tensor names,
    what stood there need not be computed: that is an index.
    """
    (mask, *others), value, *adds = args
    is_fill = isinstance(mask, Tensor) and mask.dtype is torch.bool and not others and not any(adds)
    if not is_fill or not isinstance(value, Tensor) or value.numel() != 1 or mask.shape != own.shape[: mask.ndim]:
        return None
    is_plain = type(mask) is Tensor
    if is_plain and Pick((mask,)).is_of_rows(geometry):
        return None
    broadcast = mask.reshape(*mask.shape, *[1] * (own.ndim - mask.ndim))
    return aten.masked_fill_.Tensor, (broadcast, value.reshape(()))


def token_wise(
    own: Looked, name: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Expression | None:
    """The same where every row that is written is computed alone."""
    if name == "index_put_":
        adds = args[2] if len(args) > 2 else kwargs.get("accumulate", False)
        return None if adds else over_rows(own, args[0], args[1])
    # Whatever PyTorch has to say of the arguments, it says now.
    function(*without_values((own, *args)), **without_values(kwargs))
    if name == "copy_":
        return over_all(own, args[0])
    if name in ("fill_", "zero_"):
        value = args[0] if name == "fill_" else 0
        return over_all(own, value if isinstance(value, (Tensor, Looked)) else torch.tensor(value))
    functional = getattr(getattr(aten, name.removesuffix("_"), None), function._overloadname, None)
    value = None if functional is None else recorded(functional, (own, *args), kwargs)
    return over_all(own, Looked.all_of(value)) if isinstance(value, Expression) else None


def without_values(tree: Any) -> Any:
    """Arguments with a stand-in for every tensor."""
    return mapped(without_value, tree)


def without_value(leaf: Any) -> Any:
    tensor = leaf.geometry.like if isinstance(leaf, Looked) else leaf
    return stand_in(tensor, tensor.stride()) if isinstance(tensor, Tensor) else leaf


def over_all(own: Looked, value: Tensor | Looked) -> Expression | None:
    """A value, which broadcasts to a view, over all that the view shows."""
    frame, like = own.geometry.frame, own.geometry.like
    shape = value.shape if isinstance(value, Tensor) else value.geometry.like.shape
    missing = like.ndim - len(shape)
    dims = [dim - missing if dim >= missing and shape[dim - missing] > 1 else None for dim in frame.dims]
    along = frame.dims[-1] - missing if frame.dims and frame.dims[-1] >= missing else None
    if isinstance(value, Looked):
        strides = value.geometry.channels.stride()
        if set(value.geometry.frame.dims) - set(dims) or any(dim is not None and strides[dim] for dim in dims):
            return None
    if any(size > 1 and not stride for size, stride in zip(like.shape, like.stride())):
        return None
    source = own.expression
    is_all = frame.count == source.frame.count and own.geometry.row_strides == source.frame.strides
    rows = None if is_all else own.geometry.numbers()
    return Written(source, rows, own.geometry, placed(value, Place(tuple(dims), along)), frame)


def over_rows(own: Looked, indices: list[Tensor | None], value: Tensor | Looked) -> Expression | None:
    """A value over the rows of an index."""
    geometry, pick = own.geometry, Pick(tuple(indices))
    if isinstance(value, Looked) or not pick.is_of_rows(geometry):
        return None
    numbers = pick.rows(geometry, own.expression.device)
    rows = numbers.reshape(-1)
    are_once = value.numel() == 1 or any(index is not None and is_mask(index) for index in indices)
    if not are_once and len(rows.unique()) < len(rows):
        # Which of two values stays is the device's choice.
        return None
    cut = pick.rows_first(geometry, numbers, value)
    return Written(own.expression, rows, geometry, Plain(cut, Place((0,), 0)), Frame(cut.shape, (0,)), are_chosen=True)
