"""Children that a graph calls as they are: one operator, of which the model's user says that it treats rows apart.

What a mixture of experts does with the rows that chose an expert has no fixed sizes, and no trace may ask for them. As
one operator ``marche_fx.opaque`` the child is called with the rows that there are, in a step of all or of few.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...checks import tensor_in_words
from ...errors import UnsupportedModelError

TOKEN_WISE = "_marche_fx_token_wise"
"""Where a model that steps are captured of has the paths of these children."""

OWNERS: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
"""Such models, by the numbers that graphs have for them."""

NUMBERS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

FLOPS: WeakKeyDictionary[nn.Module, dict[str, float]] = WeakKeyDictionary()
"""What each of their children computed for a row, by path, in the call before a trace."""

COUNT = itertools.count()


def paths_of(model: nn.Module) -> tuple[str, ...]:
    """The children of a model that are called as they are."""
    found: tuple[str, ...] = vars(model).get(TOKEN_WISE, ())
    return found


def number_of(model: nn.Module) -> int:
    """What graphs call a model by; they hold no objects, and may be written to a file."""
    number = NUMBERS.get(model)
    if number is None:
        number = NUMBERS[model] = next(COUNT)
        OWNERS[number] = model
    return number


LIBRARY = torch.library.Library("marche_fx", "FRAGMENT")
LIBRARY.define("opaque(Tensor[] rows, int owner, str path, int[] widths, str[] dtypes) -> Tensor[]")
# rows: ``[*L, D]`` each, with sizes L that all have in common. widths, dtypes: of results ``[*L, W]``.


def opaque(rows: Sequence[Tensor], owner: int, path: str, widths: Sequence[int], dtypes: Sequence[str]) -> list[Tensor]:
    """Call a child with rows.

    Raises:
        UnsupportedModelError: the child gives other results than in the call before the trace.
    """
    model = OWNERS.get(owner)
    if model is None or path not in paths_of(model):
        raise UnsupportedModelError(f"the model of which a step calls {path!r} is gone, or has it no longer")
    # Its hooks are in the graph.
    found = results_of(model.get_submodule(path).forward(*rows))
    lead = rows[0].shape[:-1]
    expected = [(math.prod(lead) * width, dtype) for width, dtype in zip(widths, dtypes)]
    if [(own.numel(), name_of(own.dtype)) for own in found] != expected:
        raise UnsupportedModelError(
            f"{path!r}, which token_wise names, gives {described(found)} for rows {list(rows[0].shape)}; it gave "
            f"results of {', '.join(map(str, widths))} channels of {', '.join(dtypes)} where the step was captured. "
            "Leave it out of token_wise"
        )
    return [apart(own, rows).reshape(*lead, width) for own, width in zip(found, widths)]


def opaque_shapes(
    rows: Sequence[Tensor], owner: int, path: str, widths: Sequence[int], dtypes: Sequence[str]
) -> list[Tensor]:
    lead = rows[0].shape[:-1]
    return [rows[0].new_empty((*lead, width), dtype=getattr(torch, own)) for width, own in zip(widths, dtypes)]


LIBRARY.impl("opaque", opaque, "CompositeExplicitAutograd")
torch.library.register_fake("marche_fx::opaque", opaque_shapes, lib=LIBRARY)

OPAQUE = torch.ops.marche_fx.opaque.default


def results_of(results: object) -> list[Tensor]:
    return [own for own in pytree.tree_leaves(results) if isinstance(own, Tensor)]


def apart(result: Tensor, rows: Sequence[Tensor]) -> Tensor:
    """A result in memory of its own, as operators give them."""
    memory = {own.untyped_storage().data_ptr() for own in rows}
    return result.clone() if result.untyped_storage().data_ptr() in memory else result


def flops_of_row(owner: int, path: str) -> float:
    """0 where the model is gone."""
    model = OWNERS.get(owner)
    return 0.0 if model is None else FLOPS.get(model, {}).get(path, 0.0)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def described(tensors: Sequence[Tensor]) -> str:
    return ", ".join(map(tensor_in_words, tensors)) or "no tensors"
