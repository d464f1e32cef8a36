"""Which dimensions of a graph's values are one axis, and which axes are products of others."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import fx

from ...errors import GraphError
from ..graph.operands import argument, operands, same_size, shape_of
from ..graph.source import describe
from ..rules.dim_map import DimMap
from ..rules.reshapes import RESHAPES, common_factors
from ..rules.table import dim_map

aten = torch.ops.aten

Dimension = tuple[fx.Node, int]
"""A dimension of a node's value."""

Axis = Any
"""One axis: a representative of the dimensions, and factors of dimensions, that are this axis."""


class Axes:
    """Union-find over dimensions, by what the rules say of every operator.

    `view` joins dimensions and cuts them, ``[B, H, N, d] -> [B * H, N, d]``: a joined dimension is a product of
    factors. Products of the same factors are one axis, and so are the factors of one axis where their sizes agree.
    Dimensions that `cat` joins from the same axes are one axis too.

    Raises:
        GraphError: a rule takes dimensions of different sizes for one.
    """

    def __init__(self, graph: fx.Graph) -> None:
        # Takes a quarter of a second to load, for this alone.
        from networkx.utils import UnionFind

        self.classes = UnionFind()
        self.factor_sizes: dict[Axis, int] = {}
        self.joined: list[tuple[Axis, tuple[Axis, ...]]] = []
        """Joined dimensions with their factors."""
        self.sums: list[tuple[Axis, tuple[Axis, ...]]] = []
        """Dimensions along which `cat` joined others, with these."""
        for node in graph.nodes:
            self.link(node)
        self.link_products()
        self.products = {self.classes[product]: factors for product, factors in reversed(self.joined)}
        self.parts_of = {
            self.classes[total]: tuple(self.classes[part] for part in parts) for total, parts in reversed(self.sums)
        }
        """Axes that `cat` made of others, with these."""

    def of(self, node: fx.Node, dim: int) -> Axis:
        return self.classes[node, dim]

    def factors(self, axis: Axis) -> tuple[Axis, ...]:
        """The axes that ``axis`` is the product of, none of them a product, from the slowest; itself if it is none."""
        axis = self.classes[axis]
        if axis not in self.products:
            return (axis,)
        return tuple(factor for part in self.products[axis] for factor in self.factors(part))

    def share_product(self, one: Axis, other: Axis) -> bool:
        """Whether a dimension is the product of ``one`` and a factor of the other, as channels are of heads."""
        wanted, others = {*self.factors(one)}, {*self.factors(other)}
        products = ({*self.factors(product)} for product in self.products)
        return any(wanted <= factors and not others.isdisjoint(factors - wanted) for factors in products)

    def with_parts(self, axis: Axis) -> tuple[Axis, ...]:
        """``axis`` and those that `cat` made it of, such as a sink and tokens."""
        return (axis, *self.parts_of.get(axis, ()))

    def parts(self, node: fx.Node, dim: int, wanted: Collection[Axis]) -> list[tuple[Axis, int]]:
        """A dimension as a product of axes with their sizes; those of ``wanted`` are kept whole.

        ``[B * N, D]`` has the parts ``[(B, 2), (N, 5)]`` in its first dimension.
        """
        axis = self.of(node, dim)
        if axis in wanted or axis not in self.products:
            return [(axis, shape_of(node)[dim])]
        patterns = {own: self.factors(own) for own in wanted}
        rest, found = self.factors(axis), []
        while rest:
            own = next((own for own, factors in patterns.items() if rest[: len(factors)] == factors), rest[0])
            factors = patterns.get(own, rest[:1])
            found.append((own, math.prod(self.size(factor) for factor in factors)))
            rest = rest[len(factors) :]
        return found

    def dims_with(self, node: fx.Node, wanted: Collection[Axis]) -> tuple[int, ...]:
        """The dimensions of a value that are one of ``wanted`` or a product with one, each as often as it has one."""
        return tuple(
            dim for dim in range(len(shape_of(node))) for axis, _ in self.parts(node, dim, wanted) if axis in wanted
        )

    def size(self, axis: Axis) -> int:
        place = self.classes[axis]
        return self.factor_sizes[place] if place in self.factor_sizes else int(shape_of(place[0])[place[1]])

    # ------------------------------------------------------------------------------------------------- linking

    def link(self, node: fx.Node) -> None:
        for dim in range(len(shape_of(node))):
            self.classes[node, dim]
        if node.op != "call_function":
            return
        own, tensors = dim_map(node), operands(node)
        for (index, dim), out in own.output.items():
            operand = tensors[index]
            if operand is not None:
                check_sizes(node, (operand, dim), (node, out))
                self.classes.union((operand, dim), (node, out))
        for members in aligned(own, tensors):
            for other in members[1:]:
                check_sizes(node, members[0], other)
                self.classes.union(members[0], other)
        if node.target in RESHAPES and tensors[0] is not None:
            sides = [[(value, dim) for dim in range(len(shape_of(value)))] for value in (tensors[0], node)]
            if all(isinstance(shape_of(value)[dim], int) for side in sides for value, dim in side):
                self.equate(node, *sides)
        elif node.target is aten.cat.default:
            dim = argument(node, "dim") % len(shape_of(node))
            parts = tuple((operand, dim) for operand in tensors if operand is not None)
            if all(len(shape_of(operand)) > dim and isinstance(shape_of(operand)[dim], int) for operand, _ in parts):
                self.sums.append(((node, dim), parts))

    def equate(self, node: fx.Node, one: Sequence[Axis], other: Sequence[Axis]) -> None:
        """The products of two lists of axes are one axis: note the factors that they share."""
        *sides, sizes = common_factors([self.size(axis) for axis in one], [self.size(axis) for axis in other])
        places = [(node, "factor", len(self.factor_sizes) + number) for number in range(len(sizes))]
        for place, size in zip(places, sizes):
            self.classes[place]
            self.factor_sizes[place] = size
        for axes, numbers in zip((one, other), sides):
            for axis, own in zip(axes, numbers):
                if len(own) == 1:
                    self.classes.union(axis, places[own[0]])
                elif own:
                    self.joined.append((axis, tuple(places[number] for number in own)))

    def link_products(self) -> None:
        """Products and sums of the same axes are one axis, and the other way round, until no more are found."""
        compared: set[tuple[int, int]] = set()
        grows = True
        while grows:
            grows = False
            by_parts: dict[tuple[Axis, ...], Axis] = {}
            by_factors: dict[tuple[Axis, ...], Axis] = {}
            by_product: dict[Axis, int] = {}
            by_total: dict[Axis, tuple[Axis, ...]] = {}
            for total, own in self.sums:
                grows |= self.unite(by_parts, total, own)
                grows |= self.unite_parts(by_total.setdefault(self.classes[total], own), own)
            for number, (product, own) in enumerate(list(self.joined)):
                grows |= self.unite(by_factors, product, own)
                factors = tuple(self.classes[factor] for factor in own)
                first = by_product.setdefault(self.classes[product], number)
                other = self.joined[first][1]
                if (first, number) not in compared and tuple(self.classes[factor] for factor in other) != factors:
                    compared.add((first, number))
                    self.equate(product[0], other, own)
                    grows = True

    def unite(self, known: dict[tuple[Axis, ...], Axis], axis: Axis, parts: tuple[Axis, ...]) -> bool:
        """Take ``axis`` for the one that is already known to be made of the same parts; whether that is news."""
        same = known.setdefault(tuple(self.classes[part] for part in parts), axis)
        if self.classes[same] == self.classes[axis]:
            return False
        self.classes.union(same, axis)
        return True

    def unite_parts(self, one: tuple[Axis, ...], other: tuple[Axis, ...]) -> bool:
        """Take the parts of one axis for the same where their sizes agree; whether that is news."""
        if [self.size(part) for part in one] != [self.size(part) for part in other]:
            return False
        news = [(a, b) for a, b in zip(one, other) if self.classes[a] != self.classes[b]]
        for a, b in news:
            self.classes.union(a, b)
        return bool(news)


def aligned(own: DimMap, tensors: Sequence[fx.Node | None]) -> list[list[Dimension]]:
    """Groups of operand dimensions that are one axis although no dimension of the value is."""
    groups = []
    for group in own.aligned:
        members = [(operand, dim) for index, dim in group if (operand := tensors[index]) is not None]
        groups.append([(operand, dim) for operand, dim in members if not same_size(shape_of(operand)[dim], 1)])
    return groups


def check_sizes(node: fx.Node, one: Dimension, other: Dimension) -> None:
    (first, first_dim), (second, second_dim) = one, other
    sizes = shape_of(first)[first_dim], shape_of(second)[second_dim]
    if not same_size(*sizes):
        raise GraphError(
            f"{describe(node)}: its rule in marche_fx/passes/rules.py takes dimension {first_dim} of {first} (size "
            f"{sizes[0]}) and dimension {second_dim} of {second} (size {sizes[1]}) for one axis."
        )
