"""One capture for many lengths: what is made of it is what a trace of one length gives, or there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marche_fx.passes.capture.alike import first_difference
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.captured import Capture
from marche_fx.passes.capture.lengths import (
    AnyLength,
    LengthError,
    capture_any_length,
    differs_in_sizes,
    refuse_dropping,
)
from tests.generated.choose import numbered_recipe
from tests.generated.model import build
from tests.graphs import Function, graph_text
from tests.lengths import LENGTHS, Counted, Doubled, call_with, of_any_length, text_model, words


def any_length(model: nn.Module, first: Any, second: Any) -> AnyLength:
    return capture_any_length(model, capture(model, "forward", (first,)), (second,), {})


def test_a_graph_for_any_length_and_the_one_of_a_length() -> None:
    def step(x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1], dtype=x.dtype) / x.shape[1]
        return (x.view(2, x.shape[1], 2, 4)[:, :, 0] + places[:, None]).chunk(2, -1)[0]

    model = Function(step).eval()
    found = any_length(model, torch.randn(2, 6, 8), torch.randn(2, 9, 8))
    assert "sym_size" in graph_text(found.capture.graph_module.graph)
    made = found.at(model, (torch.randn(2, 13, 8),), {})
    assert made is not None
    assert graph_text(made.graph_module.graph) == (
        "arange = aten.arange(0, 13, dtype=torch.float32, layout=torch.strided, device=cpu)\n"
        "div = aten.div(arange, 13)\n"
        "view = aten.view(leaves_0, [2, 13, 2, 4])\n"
        "select = aten.select(view, 2, 0)\n"
        "unsqueeze = aten.unsqueeze(div, 1)\n"
        "add = aten.add(select, unsqueeze)\n"
        "slice_3 = aten.slice(add, 2, 0, 2)\n"
        "return slice_3"
    )


@torch.no_grad()
def test_made_for_a_length_is_what_a_trace_of_it_gives() -> None:
    model = text_model(depth=2)
    found = any_length(model, words(LENGTHS[0]), words(LENGTHS[1]))
    for length in LENGTHS[2:6]:
        made = found.at(model, (words(length),), {})
        assert made is not None
        assert not first_difference(made, capture(model, "forward", (words(length),)))
        assert torch.equal(run(made, model, words(length)), model(words(length)))


class Leaves(nn.Module):
    """Leaves the sizes of its argument."""

    def forward(self, x: Tensor) -> Tensor:
        self.sizes, self.listed = x.shape, [x.shape[1], "tokens"]
        return x.relu()


def test_sizes_that_a_step_leaves_are_left_for_any_length() -> None:
    model = Leaves().eval()
    found = any_length(model, torch.randn(2, 6, 8), torch.randn(2, 9, 8))
    made = found.at(model, (torch.randn(2, 13, 8),), {})
    assert made is not None
    assert made.tables.left == {("", "sizes"): torch.Size([2, 13, 8]), ("", "listed"): [13, "tokens"]}


def run(made: Capture, model: nn.Module, ids: Tensor) -> Tensor:
    values = [
        model.get_parameter(made.weights[node]) if node in made.weights else made.constants.get(node, ids)
        for node in made.graph_module.graph.find_nodes(op="placeholder")
        if made.weights.get(node) != "frequencies"
    ]
    frequencies = [node for node, path in made.weights.items() if path == "frequencies"]
    if frequencies:
        nodes = made.graph_module.graph.find_nodes(op="placeholder")
        values.insert(nodes.index(frequencies[0]), model.get_buffer("frequencies"))
    (result,) = made.graph_module(*values)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2, 9, 13])
@torch.no_grad()
def test_generated_models(number: int) -> None:
    recipe = of_any_length(numbered_recipe(7, number))
    model = build(recipe)
    first, second, third = (call_with(recipe, recipe.tokens + more) for more in (2, 4, 6))
    known = capture(model, "forward", *first)
    assert differs_in_sizes(known, *second)
    found = capture_any_length(model, known, *second)
    made = found.at(model, *third)
    assert made is not None
    assert not first_difference(made, capture(model, "forward", *third))


def test_a_length_that_goes_another_way_is_not_made() -> None:
    model = Doubled().eval()
    found = any_length(model, words(20), words(30))
    assert found.at(model, (words(16),), {}) is not None
    assert found.at(model, (words(15),), {}) is None
    with pytest.raises(LengthError, match=r"another path for other lengths \(lengths.py:\d+\)"):
        any_length(model, words(12), words(30))


def test_a_length_that_is_a_number_is_fixed_and_the_line_named() -> None:
    with pytest.raises(LengthError, match=r"Counted.forward fixes the size 30 of an argument \(lengths.py:\d+\)"):
        any_length(Counted().eval(), words(12), words(30))


def test_what_fits_one_length_alone_is_fixed_and_the_line_named() -> None:
    position = torch.randn(9)
    with pytest.raises(LengthError, match=r"fixes the size 9 of an argument \(test_lengths.py:\d+\)"):
        any_length(
            Function(lambda x: x + position if x.shape[1] == 9 else x).eval(), torch.ones(2, 6), torch.ones(2, 9)
        )


def test_a_branch_that_fixes_a_length_is_named_and_not_what_is_called_next() -> None:
    def doubled_at_nine(x: Tensor) -> Tensor:
        n = x.shape[1]
        twice = n == 9
        double = 2 if twice else 1
        return x.relu() * double

    line = doubled_at_nine.__code__.co_firstlineno + 3
    with pytest.raises(LengthError, match=rf"fixes the size 9 of an argument \(test_lengths.py:{line}\)"):
        any_length(Function(doubled_at_nine).eval(), torch.ones(2, 6), torch.ones(2, 9))


class Remembers(nn.Module):
    """Makes a table for the length that it meets, and another for another."""

    def __init__(self) -> None:
        super().__init__()
        self.text = text_model()
        self.table = torch.zeros(0)

    def forward(self, ids: Tensor) -> Tensor:
        if len(self.table) != ids.shape[1]:
            self.table = torch.arange(ids.shape[1], dtype=torch.float32).cos()
        return self.text(ids) * self.table[:, None]


def test_tables_of_one_length_are_no_tables_of_another() -> None:
    with pytest.raises(LengthError):
        any_length(Remembers().eval(), words(12), words(30))


def test_sizes_of_one_and_other_kinds_of_arguments_are_no_other_lengths() -> None:
    model = Function(lambda x: x * 2).eval()
    known = capture(model, "forward", (torch.ones(2, 6),))
    assert differs_in_sizes(known, (torch.ones(2, 7),), {})
    assert differs_in_sizes(known, (torch.ones(3, 7),), {})
    for other in (torch.ones(2, 6), torch.ones(2, 1), torch.ones(2, 7, 1), torch.ones(2, 7).double()):
        assert not differs_in_sizes(known, (other,), {})
    assert not differs_in_sizes(known, (torch.ones(2, 7), 1), {})


def test_indexing_is_the_same_with_symbols() -> None:
    table = torch.randn(1, 50, 3)

    def step(x: Tensor) -> Tensor:
        # Of these a trace with numbers leaves no slice but the table's, and that one from 0 on.
        return x[:, :, None, :][:, :, 0][:, : x.shape[1]] + table[:, : x.shape[1]]

    found = any_length(Function(step).eval(), torch.ones(2, 6, 3), torch.ones(2, 9, 3))
    made = found.at(Function(step).eval(), (torch.ones(2, 13, 3),), {})
    assert made is not None
    assert "aten.slice(c_lifted_tensor_0, 1, 0, 13)" in graph_text(made.graph_module.graph)
    assert graph_text(made.graph_module.graph).count("aten.slice") == 1


class Listed(nn.Module):
    """Takes its ids through a list, as Lumina-DiMOO does, which pads texts that it is given as lists."""

    def __init__(self) -> None:
        super().__init__()
        self.text = text_model()

    def forward(self, ids: Tensor) -> Tensor:
        return self.text(torch.tensor(ids.tolist()))


def test_values_that_are_numbers_are_not_taken_for_tokens_that_are_dropped() -> None:
    known = capture(Listed().eval(), "forward", (words(12),), {})
    with pytest.raises(LengthError, match=r"reads values as numbers of Python, as tolist does \(test_lengths.py:\d+\)"):
        refuse_dropping(known)
