"""Trees of tensors and plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from marche_fx.passes.capture.arguments import Fields, closed, flattened, is_closed, named_leaves, opened, take_apart


@dataclass(frozen=True)
class Masked:
    x: Tensor
    options: dict[str, Any] = field(default_factory=dict)
    made: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.made.append(1)


def test_a_dataclass_opens_into_its_fields_and_closes_again() -> None:
    x = torch.ones(2)
    tree = [Masked(x, {"inner": Masked(x), "none": None})]
    found = opened(tree)
    assert isinstance(found[0], Fields)
    assert pytree.tree_leaves(found) == [x, x, 1, None, 1]
    assert pytree.tree_leaves(opened(found)) == pytree.tree_leaves(found)
    assert closed(found) == tree, "without running __post_init__ a second time"


X = torch.ones(2)
LEAVES = st.sampled_from(
    [torch.ones(2), torch.nn.Parameter(torch.ones(2)), None, 1, 2.5, "a", torch.float32, Masked(X)]
)
TREES = st.recursive(
    LEAVES,
    lambda own: st.one_of(
        st.lists(own, max_size=3), st.lists(own, max_size=3).map(tuple), st.dictionaries(st.sampled_from("cab"), own)
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(args=st.lists(TREES, max_size=3).map(tuple), kwargs=st.dictionaries(st.sampled_from("zxy"), TREES))
def test_what_is_told_of_simple_trees_without_going_through_them_is_what_pytorch_tells(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    leaves, spec = flattened(args, kwargs)
    expected, expected_spec = pytree.tree_flatten((args, kwargs))
    assert spec == expected_spec
    assert [id(own) for own in leaves] == [id(own) for own in expected]
    found = opened((args, kwargs))
    mapped = pytree.tree_map(lambda own: take_apart(own) if is_closed(own) else own, (args, kwargs))
    assert pytree.tree_structure(found) == pytree.tree_structure(mapped)
    assert pytree.tree_structure(closed(found)) == expected_spec


def test_an_instance_of_another_class_has_another_specification() -> None:
    @dataclass
    class Other:
        x: Tensor

    x = torch.ones(2)
    assert pytree.tree_structure(opened(Other(x))) != pytree.tree_structure(opened(Masked(x)))
    assert pytree.tree_structure(opened(Other(x))) == pytree.tree_structure(opened(Other(x + 1)))


def test_a_leaf_is_named_by_its_argument() -> None:
    x = torch.ones(2)
    assert list(named_leaves(((x, [1, 2]), {"mask": {"a": 3}}))) == [
        ("positional argument 0", x),
        ("positional argument 1", 1),
        ("positional argument 1", 2),
        ("argument 'mask'", 3),
    ]


class Attrs:
    """As `attrs.define` makes classes."""

    __slots__ = ("name", "x")
    __attrs_attrs__ = (SimpleNamespace(name="x"), SimpleNamespace(name="name"))

    def __init__(self, x: Any, name: str) -> None:
        self.x, self.name = x, name


def test_instances_of_classes_of_attrs_are_taken_apart() -> None:
    own = Attrs([torch.ones(2)], "a")
    leaves = pytree.tree_leaves(opened((own,)))
    assert leaves == [own.x[0], "a"]
    (back,) = closed(opened((own,)))
    assert type(back) is Attrs
    assert back.x[0] is own.x[0]
    assert back.name == "a"
