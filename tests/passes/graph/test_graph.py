"""What one node is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marche_fx.passes.capture.capture import capture
from marche_fx.passes.graph.operands import argument, map_operands, operands, shape_of
from marche_fx.passes.graph.reach import ancestors, descendants
from marche_fx.passes.graph.source import describe, module_path, source_line

aten = torch.ops.aten


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], 1).relu()


def graph_of_two() -> torch.fx.Graph:
    return capture(Two().eval(), "forward", (torch.randn(2, 3, 4),)).graph_module.graph


def test_operands_are_the_tensors_in_the_order_of_the_schema() -> None:
    graph = graph_of_two()
    (cat,) = graph.find_nodes(op="call_function", target=aten.cat.default)
    assert [own and module_path(own) for own in operands(cat)] == ["first", "second"]
    assert argument(cat, "dim") == 1
    assert shape_of(cat) == (2, 6, 6)


def test_map_operands_changes_tensors_and_leaves_other_arguments() -> None:
    (cat,) = graph_of_two().find_nodes(op="call_function", target=aten.cat.default)
    args, kwargs = map_operands(cat, lambda number, operand: operands(cat)[1 - number])
    assert args == ([*reversed(operands(cat))], 1)
    assert not kwargs


def test_what_is_computed_from_what() -> None:
    graph = graph_of_two()
    (cat,) = graph.find_nodes(op="call_function", target=aten.cat.default)
    (relu,) = graph.find_nodes(op="call_function", target=aten.relu.default)
    linears = graph.find_nodes(op="call_function", target=aten.linear.default)
    assert {*linears, cat} <= ancestors([relu])
    assert relu in descendants(linears)
    assert not descendants([relu]) & {*linears, cat}


def test_a_node_is_described_by_operator_module_and_line() -> None:
    linear = graph_of_two().find_nodes(op="call_function", target=aten.linear.default)[1]
    assert source_line(linear).startswith("test_graph.py:")
    assert describe(linear) == f"aten.linear at second ({source_line(linear)})"
