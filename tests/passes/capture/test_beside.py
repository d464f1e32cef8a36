"""What a step writes into tensors that it holds and that are no weights, as a table that a function keeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.errors import UnsupportedModelError
from marche_fx.passes.capture.capture import capture


def places(x: Tensor) -> Tensor:
    """Numbers from one table that grows, as fairseq's: made anew in every call where one is missing."""
    if not hasattr(places, "table"):
        places.table = torch.zeros(0)  # type: ignore[attr-defined]
    table: Tensor = places.table.type_as(x)  # type: ignore[attr-defined]
    if table.numel() < x.shape[1] + 1:
        torch.arange(float(x.shape[1]), out=table)
    return table[:, None]


TABLES = {"counts": torch.zeros(5), "rows": torch.zeros(5)}


def copied(x: Tensor) -> Tensor:
    return TABLES["rows"].copy_(x[0, :, 0])[:, None]


def filled(x: Tensor) -> Tensor:
    return TABLES["rows"].fill_(2.0)[:, None]


def counted(x: Tensor) -> Tensor:
    return TABLES["counts"].add_(1)[:, None]


def partly_written(x: Tensor) -> Tensor:
    TABLES["counts"][:2] = 1.0
    return TABLES["counts"][:, None]


def read_before(x: Tensor) -> Tensor:
    before = TABLES["counts"] + x[0, :, 0]
    return TABLES["counts"].copy_(before)[:, None]


def read_while_written(x: Tensor) -> Tensor:
    return torch.cumsum(TABLES["rows"], 0, out=TABLES["rows"])[:, None]


def dropped(x: Tensor) -> Tensor:
    return F.dropout(TABLES["counts"], training=False).add_(1)[:, None]


class Placed(nn.Module):
    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.proj, self.of = nn.Linear(4, 4), of

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x) + self.of(x)


@pytest.mark.parametrize("of", [places, copied, filled])
def test_a_table_that_is_written_over_before_it_is_read_is_no_state(of: Callable[[Tensor], Tensor]) -> None:
    model, x = Placed(of).eval().requires_grad_(False), torch.randn(2, 5, 4)
    captured = capture(model, "forward", (x,))
    TABLES["rows"].fill_(-1.0)
    other, placeholders = torch.randn(2, 5, 4), captured.graph_module.graph.find_nodes(op="placeholder")
    given = {node: model.get_parameter(path) for node, path in captured.weights.items()} | dict(captured.constants)
    (found,) = captured.graph_module(*[given.get(node, other) for node in placeholders])
    assert torch.equal(found, model(other))


@pytest.mark.parametrize(
    ("of", "operator"),
    [
        (counted, "add_"),
        (partly_written, "fill_"),
        (read_before, "copy_"),
        (read_while_written, "cumsum"),
        (dropped, "add_"),
    ],
)
def test_a_step_that_reads_what_it_left_in_a_table_is_refused_by_its_name(
    of: Callable[[Tensor], Tensor], operator: str
) -> None:
    line = rf"aten\.{operator} \(test_beside\.py:\d+\)"
    match = rf"Placed\.forward writes the tensor in 'TABLES' of {re.escape(__name__)} in {line}"
    with pytest.raises(UnsupportedModelError, match=match):
        capture(Placed(of).eval().requires_grad_(False), "forward", (torch.randn(2, 5, 4),))


class Sums(nn.Module):
    """Holds a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.held = nn.Linear(4, 4), [torch.zeros(5, 4)]

    def forward(self, x: Tensor) -> Any:
        self.held[0].add_(x[0])
        return self.proj(x) + self.held[0]


def test_what_a_model_holds_in_a_list_is_named_by_the_list() -> None:
    with pytest.raises(UnsupportedModelError, match=r"Sums\.forward writes the tensor in 'held' in aten\.add_"):
        capture(Sums().eval().requires_grad_(False), "forward", (torch.randn(2, 5, 4),))
