"""What an operator does to the dimensions of its operands: what every rule answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import fx

from ..graph.operands import Place, operands, same_size, shape_of


@dataclass(frozen=True)
class DimMap:
    """What an operator does to the dimensions of its tensor operands.

    Attributes:
        output: the output dimension that an operand's dimension is.
        mixed: operand dimensions along which an output element reads more than its own position.
        aligned: operand dimensions that are one axis of the operation although no output dimension is.
    """

    output: dict[Place, int] = field(default_factory=dict)
    mixed: frozenset[Place] = frozenset()
    aligned: tuple[tuple[Place, ...], ...] = ()

    def is_token_wise(self, operand: int, dim: int) -> bool:
        """Whether an output row reads no other row of ``operand`` along ``dim``."""
        return (operand, dim) in self.output and (operand, dim) not in self.mixed


Rule = Callable[[fx.Node], DimMap]
"""What an operator does to dimensions, told of a node of it."""


def finished(
    node: fx.Node, output: dict[Place, int], mixed: Iterable[Place] = (), aligned: tuple[tuple[Place, ...], ...] = ()
) -> DimMap:
    """Complete a map.

    What does not reach the output is mixed, unless it has a single position. Where one operand is mixed along an output
    dimension, no other keeps its rows there: the weight of a layer norm cannot be taken for some channels only.
    """
    every = {(index, dim) for index, operand in enumerate(operands(node)) for dim in range(len(shape_of(operand)))}
    tensors = operands(node)
    mixed = set(mixed)
    mixed |= {(index, dim) for index, dim in every - set(output) if not same_size(shape_of(tensors[index])[dim], 1)}
    mixed_dims = {output[place] for place in mixed if place in output}
    mixed |= {place for place, out in output.items() if out in mixed_dims}
    return DimMap(output, frozenset(mixed), aligned)
