"""Every rule of the table, checked by changing one row of an operand and looking at what moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from marche_fx.passes.rules import RULES, DimMap, dim_map, has_rule, kept_dimensions, operands

aten = torch.ops.aten

# ------------------------------------------------------------------------------------------------ the example


def test_linear_keeps_rows_and_mixes_channels() -> None:
    node = call(aten.linear.default, torch.randn(2, 5, 3), torch.randn(4, 3), torch.randn(4)).node
    found = dim_map(node)
    # Operand 0 is x [2, 5, 3], 1 the weight [4, 3], 2 the bias [4]; the output is [2, 5, 4].
    assert found.output == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (2, 0): 2}
    assert found.mixed == {(0, 2), (1, 1)}
    assert found.aligned == (((0, 2), (1, 1)),)
    assert found.is_token_wise(0, 1)


# ------------------------------------------------------------------------------------------------ the whole table


@dataclass(frozen=True)
class Sizes:
    b: int
    n: int
    h: int
    c: int
    m: int


@dataclass(frozen=True)
class Called:
    """An operator as a node, with the tensors of its placeholders."""

    node: fx.Node
    tensors: dict[fx.Node, Tensor]

    def run(self, changed: dict[fx.Node, Tensor] | None = None) -> Tensor:
        values = self.tensors | (changed or {})
        args, kwargs = fx.map_arg((self.node.args, self.node.kwargs), values.__getitem__)
        result = self.node.target(*args, **kwargs)  # type: ignore[operator]
        return result if isinstance(result, Tensor) else result[0]


def call(target: Any, *args: Any, **kwargs: Any) -> Called:
    graph = fx.Graph()
    tensors: dict[fx.Node, Tensor] = {}

    def placeholder(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"operand_{len(tensors)}")
        node.meta["val"] = value
        tensors[node] = value
        return node

    node_args, node_kwargs = pytree.tree_map(placeholder, (args, kwargs))
    node = graph.call_function(target, tuple(node_args), node_kwargs)
    node.meta["val"] = target(*args, **kwargs)
    return Called(node, tensors)


def r(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def no(*sizes: int) -> Tensor:
    return torch.zeros(sizes, dtype=torch.bool)


Arguments = tuple[Any, ...]

EXAMPLES: dict[Any, Callable[[Sizes], list[Arguments]]] = {
    aten.linear.default: lambda s: [(r(s.b, s.n, s.c), r(s.m, s.c), r(s.m)), (r(s.n, s.c), r(s.m, s.c))],
    aten.mm.default: lambda s: [(r(s.n, s.c), r(s.c, s.m))],
    aten.addmm.default: lambda s: [
        (r(s.m), r(s.n, s.c), r(s.c, s.m)),
        (r(s.n, s.m), r(s.n, s.c), r(s.c, s.m)),
    ],
    aten.bmm.default: lambda s: [(r(s.b, s.n, s.c), r(s.b, s.c, s.m))],
    aten.baddbmm.default: lambda s: [
        (r(s.b, s.n, s.m), r(s.b, s.n, s.c), r(s.b, s.c, s.m)),
        (r(s.m), r(s.b, s.n, s.c), r(s.b, s.c, s.m)),
    ],
    aten.matmul.default: lambda s: [
        (r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.c, s.m)),
        (r(s.b, s.h, s.n, s.c), r(s.c, s.m)),
        (r(s.n, s.c), r(s.b, s.c, s.m)),
        (r(s.b, s.n, s.c), r(s.c)),
        (r(s.c), r(s.b, s.c, s.m)),
    ],
    aten.einsum.default: lambda s: [
        ("bhid,bhjd->bhij", [r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.m, s.c)]),
        ("bihd, bjhd -> bhij", [r(s.b, s.n, s.h, s.c), r(s.b, s.m, s.h, s.c)]),
        ("bhij,bjhd->bihd", [r(s.b, s.h, s.n, s.m), r(s.b, s.m, s.h, s.c)]),
        ("bnc,bn->bc", [r(s.b, s.n, s.c), r(s.b, s.n)]),
    ],
    aten.scaled_dot_product_attention.default: lambda s: [
        (r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.m, s.c), r(s.b, s.h, s.m, s.c)),
        (r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.m, s.c), r(s.b, s.h, s.m, s.c), r(s.b, s.h, s.n, s.m)),
        (r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.m, s.c), r(s.b, s.h, s.m, s.c), r(s.b, 1, 1, s.m)),
        (r(s.b, s.n, s.c), r(s.b, s.m, s.c), r(s.b, s.m, s.c), r(s.n, s.m)),
    ],
    aten.embedding.default: lambda s: [(r(2, s.c), torch.zeros(s.b, s.n, dtype=torch.long))],
    aten.layer_norm.default: lambda s: [(r(s.b, s.n, s.c), [s.c], r(s.c), r(s.c)), (r(s.b, s.n, s.c), [s.n, s.c])],
    aten.rms_norm.default: lambda s: [(r(s.b, s.n, s.c), [s.c], r(s.c)), (r(s.b, s.n, s.c), [s.c])],
    aten.softmax.int: lambda s: [(r(s.b, s.h, s.n, s.m), -1), (r(s.b, s.n, s.c), 1)],
    aten._softmax.default: lambda s: [(r(s.b, s.n, s.c), -1, False)],
    aten.log_softmax.int: lambda s: [(r(s.b, s.n, s.c), 2)],
    aten._log_softmax.default: lambda s: [(r(s.b, s.n, s.c), 1, False)],
    aten.cumsum.default: lambda s: [(r(s.b, s.n, s.c), 1)],
    aten.sum.dim_IntList: lambda s: [(r(s.b, s.n, s.c), [1]), (r(s.b, s.n, s.c), [0, -1], True), (r(s.b, s.n), None)],
    aten.mean.dim: lambda s: [(r(s.b, s.n, s.c), [-1], True), (r(s.b, s.n, s.c), [1])],
    aten.amax.default: lambda s: [(r(s.b, s.n, s.c), [-1], True), (r(s.b, s.n, s.c), [1])],
    aten.amin.default: lambda s: [(r(s.b, s.n, s.c), [-1]), (r(s.b, s.n, s.c),)],
    aten.var.correction: lambda s: [(r(s.b, s.n, s.c), [-1])],
    aten.any.dim: lambda s: [(no(s.b, s.n, s.c), 1), (no(s.b, s.n, s.c), -1, True)],
    aten.view.default: lambda s: reshapes(s),
    aten.reshape.default: lambda s: reshapes(s),
    aten._unsafe_view.default: lambda s: reshapes(s),
    aten.permute.default: lambda s: [(r(s.b, s.n, s.h, s.c), [0, 2, -1, 1])],
    aten.transpose.int: lambda s: [(r(s.b, s.n, s.h, s.c), 1, -2), (r(s.n, s.c), 0, 1)],
    aten.unsqueeze.default: lambda s: [(r(s.b, s.n, s.c), 1), (r(s.b, s.n, s.c), -1), (r(s.b, s.n), 0)],
    aten.squeeze.dim: lambda s: [(r(s.b, 1, s.n), 1), (r(s.b, s.n, 1), -1)],
    aten.squeeze.dims: lambda s: [(r(1, s.b, 1, s.n), [0, 2])],
    aten.select.int: lambda s: [(r(s.b, s.n, s.c), 1, 0), (r(3, s.b, s.n), 0, -1)],
    aten.expand.default: lambda s: [(r(s.b, 1, s.n), [-1, s.h, -1]), (r(s.n, s.c), [s.b, s.n, s.c])],
    aten.slice.Tensor: lambda s: [(r(s.b, s.n + 1, s.c), 1, 1, 99), (r(s.b, s.n, s.c), 1, 0, 99), (r(s.b, s.n), 0)],
    aten.cat.default: lambda s: [([r(s.b, s.n, s.c), r(s.b, s.m, s.c)], 1), ([r(s.b, s.n), r(s.b, s.n)], -1)],
    aten.split.Tensor: lambda s: [(r(s.b, s.n, 2 * s.c), s.c, -1)],
    aten.split_with_sizes.default: lambda s: [(r(s.b, s.n, s.c + s.m), [s.c, s.m], 2)],
    aten._to_copy.default: lambda s: [(r(s.b, s.n, s.c),)],
    aten.clone.default: lambda s: [(r(s.b, s.n, s.c),)],
    aten.copy.default: lambda s: [(r(s.b, s.n), r(s.n)), (r(s.b, s.n), r(s.b, s.n))],
    # Operators that PyTorch itself calls pointwise need no line in the table.
    aten.add.Tensor: lambda s: [(r(s.b, s.n, s.c), r(s.n, s.c)), (r(s.b, s.n, 1), r(1, s.c)), (r(s.b, s.n), 1)],
    aten.where.self: lambda s: [(no(s.b, 1, 1, s.m), r(1), r(s.b, s.h, s.n, s.m))],
    aten.gelu.default: lambda s: [(r(s.b, s.n, s.c),)],
}


def reshapes(s: Sizes) -> list[Arguments]:
    return [
        (r(s.b, s.n, s.h * s.c), [s.b, s.n, s.h, s.c]),
        (r(s.b, s.n, s.h, s.c), [s.b, s.n, -1]),
        (r(s.b, s.n, s.c), [s.b * s.n, s.c]),
        (r(s.b * s.h, s.n, s.c), [s.b, s.h, s.n, s.c]),
        (r(s.b, s.n, s.c), [s.b, 1, s.n, s.c]),
        (r(s.b, s.n, 1), [s.b, s.n]),
        (r(s.n * s.m, s.c), [s.n, s.m * s.c]),
    ]


DIFFERENT = Sizes(b=2, n=5, h=3, c=4, m=6)
EQUAL = Sizes(b=4, n=4, h=4, c=4, m=4)


@pytest.mark.parametrize("sizes", [DIFFERENT, EQUAL], ids=["different", "equal"])
@pytest.mark.parametrize("target", EXAMPLES, ids=str)
def test_a_changed_row_moves_the_rows_that_the_rule_says(target: Any, sizes: Sizes) -> None:
    for arguments in EXAMPLES[target](sizes):
        check(call(target, *arguments), exactly=True)


@given(sizes=st.builds(Sizes, *[st.integers(1, 4)] * 5))
def test_no_rule_depends_on_sizes(sizes: Sizes) -> None:
    for target, examples in EXAMPLES.items():
        for arguments in examples(sizes):
            check(call(target, *arguments), exactly=False)


def test_every_rule_has_an_example() -> None:
    assert [str(target) for target in RULES if target not in EXAMPLES] == []


def check(called: Called, *, exactly: bool) -> None:
    """Compare the rule's claims with what the operator does; ``exactly`` finds needless claims of mixing too."""
    own = dim_map(called.node)
    assert has_rule(called.node)
    for index, operand in enumerate(operands(called.node)):
        for dim, size in enumerate(called.tensors[operand].shape if operand is not None else ()):
            assert operand is not None
            where = f"{called.node.target} operand {index} dimension {dim}"
            moved = [moved_elements(called, operand, dim, position) for position in range(size)]
            if own.is_token_wise(index, dim):
                out = own.output[index, dim]
                for position in range(size):
                    assert rows_with(moved[position], out) <= {position}, f"{where} is mixed"
                    # A copy only takes the shape of its first operand.
                    is_read = bool(rows_with(moved[position], out)) or called.node.target is aten.copy.default
                    assert is_read or not exactly, f"{where} is not read"
            elif (index, dim) not in own.mixed:
                assert size == 1, f"{where} is neither kept nor mixed"
            elif exactly and size > 1:
                kept = [
                    out
                    for out, out_size in enumerate(moved[0].shape)
                    if out_size == size and all(rows_with(moved[p], out) == {p} for p in range(size))
                ]
                assert not kept, f"{where} is said to be mixed but is dimension {kept} of the output"
    for group in own.aligned:
        check_alignment(called, own, group)


def check_alignment(called: Called, own: DimMap, group: tuple[tuple[int, int], ...]) -> None:
    """Dimensions that are one axis can be put into another order together without changing the value."""
    tensors = operands(called.node)
    changed: dict[fx.Node, Tensor] = {}
    for index, dim in group:
        operand = tensors[index]
        assert operand is not None
        changed[operand] = changed.get(operand, called.tensors[operand]).flip(dim)
    if len(changed) > 1:
        torch.testing.assert_close(called.run(changed), called.run())


def moved_elements(called: Called, operand: fx.Node, dim: int, position: int) -> Tensor:
    """Which elements of the value change when those of ``operand`` at ``position`` do."""
    tensor = called.tensors[operand]
    poison = float("nan") if tensor.is_floating_point() else 1
    changed = tensor.index_fill(dim, torch.tensor([position]), poison)
    before, after = called.run(), called.run({operand: changed})
    return (after != before) & (before == before)


def rows_with(moved: Tensor, dim: int) -> set[int]:
    return set(moved.movedim(dim, 0).flatten(1).any(1).nonzero().flatten().tolist())


# ------------------------------------------------------------------------------------------------ the fallbacks


def test_an_operator_without_a_rule_mixes_everything() -> None:
    node = call(aten.flip.default, torch.randn(2, 5), [1]).node
    assert not has_rule(node)
    assert dim_map(node).mixed == {(0, 0), (0, 1)}
    assert dim_map(node).output == {}


def test_a_number_in_place_of_a_tensor_is_no_operand() -> None:
    node = call(aten.add.Tensor, torch.randn(2, 5), 1).node
    assert [operand is None for operand in operands(node)] == [False, True]


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((2, 5, 12), (2, 5, 3, 4), {0: 0, 1: 1}),
        ((2, 5, 3, 4), (2, 5, 12), {0: 0, 1: 1}),
        ((2, 3, 5, 4), (6, 5, 4), {2: 1, 3: 2}),
        ((2, 5, 4), (10, 4), {2: 1}),
        ((4, 4, 4), (4, 4, 2, 2), {0: 0, 1: 1}),
        # What stands between two equal sizes decides: the rows of [2, 6] are not those of [6, 2].
        ((2, 6), (6, 2), {}),
        ((2, 6, 3), (4, 3, 3), {2: 2}),
        # A dimension of size 1 stays what it is beside its neighbours: one sample remains a sample.
        ((1, 5, 12), (1, 5, 3, 4), {0: 0, 1: 1}),
        ((1, 5, 4), (1, 1, 5, 4), {0: 0, 1: 2, 2: 3}),
        ((1, 5, 1, 4), (1, 5, 4), {0: 0, 1: 1, 3: 2}),
        ((5, 4), (1, 5, 4), {0: 1, 1: 2}),
    ],
)
def test_view_keeps_dimensions_whose_elements_stay_together(
    before: tuple[int, ...], after: tuple[int, ...], kept: dict[int, int]
) -> None:
    assert kept_dimensions(before, after) == kept
