"""Nothing of a trace is left wherever a model keeps tables that it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tests.api.ways import call, call_and_compare, explain, fail
from tests.around import Around, X
from tests.reachable import stand_ins


def table(count: int) -> Tensor:
    return torch.arange(count)[:, None] / 10


class Tables(dict[int, Tensor]):
    def __missing__(self, count: int) -> Tensor:
        self[count] = table(count)
        return self[count]


class Slotted:
    __slots__ = ("made",)

    def of(self, count: int) -> Tensor:
        if not hasattr(self, "made"):
            self.made = table(count)
        return self.made


@dataclass
class Helper:
    made: dict[int, Tensor] = field(default_factory=dict)

    def of(self, count: int) -> Tensor:
        return self.made.setdefault(count, table(count))


@functools.lru_cache
def remembered(count: int) -> Tensor:
    return table(count)


@functools.cache
def remembered_by_tensor(x: Tensor) -> Tensor:
    return x * 0 + 0.1


def memo(function: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    made: dict[int, Tensor] = {}

    def found(count: int) -> Tensor:
        if count not in made:
            made[count] = function(count)
        return made[count]

    return found


enclosed = memo(table)
GLOBAL: dict[int, Tensor] = {}
LAST: Tensor | None = None
HELPER = Helper()


def from_global(count: int) -> Tensor:
    return GLOBAL.setdefault(count, table(count))


def set_global(count: int) -> Tensor:
    global LAST
    LAST = table(count) + 1
    return LAST


class Keeps(nn.Module):
    """Makes tables in every place that a model may keep them in."""

    of_class: ClassVar[dict[int, Tensor]] = {}
    last_of_class: ClassVar[Tensor | None] = None
    buffer: Tensor | None

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.plain: dict[int, Tensor] = {}
        self.subclass = Tables()
        self.slotted = Slotted()
        self.helper = Helper()
        self.last: Tensor | None = None
        self.row: list[Tensor] = []
        self.register_buffer("buffer", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        return x + getattr(self, f"from_{self.where}")(count, x)

    def from_plain(self, count: int, x: Tensor) -> Tensor:
        return self.plain.setdefault(count, table(count))

    def from_subclass(self, count: int, x: Tensor) -> Tensor:
        return self.subclass[count]

    def from_slotted(self, count: int, x: Tensor) -> Tensor:
        return self.slotted.of(count)

    def from_helper(self, count: int, x: Tensor) -> Tensor:
        return self.helper.of(count)

    def from_class(self, count: int, x: Tensor) -> Tensor:
        return self.of_class.setdefault(count, table(count))

    def from_name_of_class(self, count: int, x: Tensor) -> Tensor:
        Keeps.last_of_class = table(count)
        return Keeps.last_of_class

    def from_attribute(self, count: int, x: Tensor) -> Tensor:
        if self.last is None:
            self.last = table(count)
        return self.last

    def from_list(self, count: int, x: Tensor) -> Tensor:
        if not self.row:
            self.row.append(table(count))
        return self.row[0]

    def from_buffer(self, count: int, x: Tensor) -> Tensor:
        if self.buffer is None:
            self.buffer = table(count)
        return self.buffer

    def from_remembered(self, count: int, x: Tensor) -> Tensor:
        return remembered(count)

    def from_tensor(self, count: int, x: Tensor) -> Tensor:
        return remembered_by_tensor(x)

    def from_enclosed(self, count: int, x: Tensor) -> Tensor:
        return enclosed(count)

    def from_global(self, count: int, x: Tensor) -> Tensor:
        return from_global(count)

    def from_set_global(self, count: int, x: Tensor) -> Tensor:
        return set_global(count)

    def from_global_helper(self, count: int, x: Tensor) -> Tensor:
        return HELPER.of(count)


WHERE = [name.removeprefix("from_") for name in vars(Keeps) if name.startswith("from_")]


def forget() -> None:
    global LAST
    LAST = Keeps.last_of_class = None
    remembered.cache_clear()
    remembered_by_tensor.cache_clear()
    for own in (Keeps.of_class, GLOBAL, HELPER.made):
        own.clear()


def forward(model: Any, x: Tensor) -> Tensor:
    x = model.inner(model.keeps(x))
    if hasattr(model, "fails") and x.sum() > 1e9:
        return -x
    return x


def around(where: str) -> Around:
    return Around(forward, keeps=Keeps(where))


def left_in(model: nn.Module) -> list[Tensor]:
    """Tensors of a trace, wherever a model of this file keeps its tables."""
    cells = [cell.cell_contents for cell in enclosed.__closure__ or ()]
    return stand_ins(model, GLOBAL, HELPER, [LAST], *cells)


@pytest.mark.parametrize("way", [explain, call, call_and_compare, fail])
@pytest.mark.parametrize("where", WHERE)
@torch.no_grad()
def test_nothing_traced_is_left_where_a_model_keeps_its_tables(where: str, way: Callable[[nn.Module], None]) -> None:
    forget()
    model = around(where)
    expected = around(where)(X)
    forget()
    way(model)
    assert not left_in(model)
    found = model(X)
    assert type(found) is Tensor
    assert torch.equal(found, expected)
