"""Children that a step calls as they are, see `passes.graph.opaque`: what they give for a row, and that it is alone.

Before:  idx = nonzero(chosen);  y = linear(index(x, idx), w);  out = index_add(zeros, idx, y);  ...
After:   out = marche_fx.opaque([x], owner, "layers.0.mlp", ...)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from ...checks import tensor_in_words
from ...errors import UnsupportedModelError
from ..graph.opaque import FLOPS, OPAQUE, described, name_of, number_of, paths_of, results_of
from ..graph.operands import same_sizes
from .apart_rows import check_rows_are_apart


@dataclass(frozen=True)
class Called:
    """What a child gave in the real call before a trace.

    Attributes:
        spec: of its results. ranks: of each, which tells whether it has all dimensions of its rows or these as one;
            None where it is None. widths, dtypes: of those that are tensors. flops: of a row.
    """

    spec: pytree.TreeSpec
    ranks: tuple[int | None, ...]
    widths: tuple[int, ...]
    dtypes: tuple[str, ...]
    flops: float = field(compare=False)

    @classmethod
    def of(cls, name: str, rows: tuple[Tensor, ...], results: Any, flops: float) -> Called:
        leaves, spec = pytree.tree_flatten(results)
        lead, count = rows[0].shape[:-1], math.prod(rows[0].shape[:-1])
        for own in leaves:
            fits = own is None or (isinstance(own, Tensor) and own.shape[:-1] in (lead, (count,)))
            if not fits:
                raise refusal(
                    name, f"returns {kind_of(own)} for rows {list(rows[0].shape)}, which is no row for each of them"
                )
        found = results_of(leaves)
        if not found:
            raise refusal(name, "returns no tensor")
        ranks = tuple(None if own is None else own.ndim for own in leaves)
        widths, dtypes = (own.shape[-1] for own in found), (name_of(own.dtype) for own in found)
        return cls(spec, ranks, tuple(widths), tuple(dtypes), flops)

    def results(self, tensors: list[Tensor]) -> Any:
        """What the child returns, of the operator's results ``[*L, W]``."""
        rest = iter(tensors)
        leaves = [None if rank is None else as_rank(next(rest), rank) for rank in self.ranks]
        return pytree.tree_unflatten(leaves, self.spec)


def as_rank(rows: Tensor, rank: int) -> Tensor:
    return rows if rows.ndim == rank else rows.flatten(0, -2)


def refusal(name: str, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name!r}, which token_wise names, {why}. It must treat each token by itself: leave it out of token_wise, or "
        "name a child inside of it"
    )


Calls = Mapping[str, Called]
"""By the paths of children."""


@contextmanager
def children_rehearsed(
    model: nn.Module, unseen: Callable[[], AbstractContextManager[None]]
) -> Iterator[dict[str, Called]]:
    """Gives what a model's children that are called as they are give for a row, after a call of the model.

    Args:
        unseen: what they do inside of it, no trace will see.

    Raises:
        UnsupportedModelError: one is called with what are no rows, or gives none, or mixes them.
    """
    found: dict[str, Called] = {}

    def rehearsed(path: str, forward: Callable[..., Any], *rows: Any, **others: Any) -> Any:
        check_arguments(path, rows, others)
        versions = [own._version for own in rows]
        with unseen(), FlopCounterMode(display=False) as counter:
            results = forward(*rows)
        if [own._version for own in rows] != versions:
            raise refusal(path, "writes into what it is given")
        count = math.prod(rows[0].shape[:-1])
        called = Called.of(path, rows, results, counter.get_total_flops() / count)
        if found.setdefault(path, called) != called:
            raise refusal(path, "is called several times in a step and gives other kinds of results each time")
        with unseen():
            why = check_rows_are_apart(lambda *own: results_of(forward(*own)), rows)
        if why:
            raise refusal(path, why)
        return results

    with replaced(model, {path: functools.partial(rehearsed, path) for path in paths_of(model)}):
        yield found


def owner_of(model: nn.Module, calls: Calls) -> int:
    """What graphs call a model of which these children were called."""
    if not calls:
        return 0
    FLOPS.setdefault(model, {}).update({path: own.flops for path, own in calls.items()})
    return number_of(model)


def check_arguments(name: str, rows: tuple[Any, ...], others: Mapping[str, Any]) -> None:
    if others or not rows or not all(is_rows(own) for own in rows):
        given = [*map(kind_of, rows), *(f"{key}={kind_of(own)}" for key, own in others.items())]
        raise refusal(name, f"is called with ({', '.join(given)}) and not with tensors [B, N, D] of floats alone")
    if not all(same_sizes(own.shape[:-1], rows[0].shape[:-1]) for own in rows):
        raise refusal(name, f"is called with tensors {described(rows)}, which have no rows in common")


def is_rows(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point()


def kind_of(value: object) -> str:
    return tensor_in_words(value) if isinstance(value, Tensor) else type(value).__name__


@contextmanager
def children_as_operators(model: nn.Module, owner: int, calls: Calls) -> Iterator[None]:
    """Inside, each of these children is one operator of a trace."""

    def traced(path: str, _: Callable[..., Any], *rows: Any, **others: Any) -> Any:
        check_arguments(path, rows, others)
        own = calls[path]
        return own.results(OPAQUE([*rows], owner, path, [*own.widths], [*own.dtypes]))

    with replaced(model, {path: functools.partial(traced, path) for path in calls}):
        yield


def own_children(module: fx.GraphModule, model: nn.Module) -> None:
    """Have the graph of another process call the children of this model."""
    for node in module.graph.find_nodes(op="call_function", target=OPAQUE):
        rows, _, *others = node.args
        node.args = (rows, number_of(model), *others)
    module.recompile()


@contextmanager
def replaced(model: nn.Module, methods: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, children of a copied model run other methods, which are given theirs first."""
    modules = {path: model.get_submodule(path) for path in methods}
    before = {path: vars(own).get("forward") for path, own in modules.items()}
    for path, own in modules.items():
        vars(own)["forward"] = functools.partial(methods[path], own.forward)
    try:
        yield
    finally:
        for path, own in modules.items():
            if before[path] is None:
                del vars(own)["forward"]
            else:
                vars(own)["forward"] = before[path]
