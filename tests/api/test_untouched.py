"""The original, and everything reachable from it, is left as it was: by explain, by a capture, by one that fails."""

from __future__ import annotations

import functools
import gc
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import CaptureError
from marche_fx.api import step
from marche_fx.passes.capture.leftovers import is_traced
from tests.around import EAGER, TOKENS, Around, X, captures, optimize, same, transformer
from tests.reachable import Snapshot, stand_ins

Pair = namedtuple("Pair", "left right")


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


def explain(model: nn.Module) -> None:
    marche_fx.explain(model, X)


def call(model: nn.Module) -> None:
    marche_fx.transform(model, refresh="exact", compile=False, verify=False)(X)


def call_and_compare(model: nn.Module) -> None:
    marche_fx.transform(model, refresh="exact", compile=False)(X)


def fail(model: Any) -> None:
    model.fails = True
    with pytest.raises(CaptureError):
        marche_fx.explain(model, X)


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


class Shares(nn.Module):
    """Containers of every kind, most of them shared by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()
        settings: dict[str, Any] = {"scale": 1.0, "row": [1, 2], "tensor": torch.ones(())}
        settings["itself"] = settings
        layers: list[Any] = [self.inner, self.inner.head]
        for block in layers:
            block.settings = settings
            block.queue = deque([1.0, torch.ones(())], maxlen=3)
            block.counts = defaultdict(list, a=[1.0])
            block.ordered = OrderedDict(a=1.0)
            block.pair = Pair(1.0, [torch.ones(())])
            block.names = {"a", "b"}
            block.helper = Helper({1: torch.ones(())})
            block.bound = self.scale
        self.register_forward_hook(lambda module, args, output: output * settings["scale"])

    def scale(self, x: Tensor) -> Tensor:
        own: Any = self.inner
        return x * own.settings["scale"] * own.pair.left * own.queue[0] * own.counts["a"][0]

    def forward(self, x: Tensor) -> Tensor:
        inner: Any = self.inner
        x = inner.bound(inner(x))
        if hasattr(self, "fails") and x.sum() > 1e9:
            return -x
        return x


@pytest.mark.parametrize("way", [explain, call, call_and_compare, fail])
@torch.no_grad()
def test_every_object_reachable_from_the_model_stays_itself(way: Callable[[nn.Module], None]) -> None:
    model: Any = Shares().eval()
    if way is fail:
        model.fails = True
    before, original = model(X), Snapshot(model)
    way(model)
    assert original.changes() == []
    assert torch.equal(model(X), before)
    model.inner.settings["scale"] = 0.5
    assert torch.equal(model(X), before / 4)


@torch.no_grad()
def test_settings_that_layers_share_reach_the_captured_step_in_the_next_session() -> None:
    model: Any = Shares().eval()
    optimized = optimize(model)
    assert same(optimized(X), model(X))
    for change in (
        lambda: model.inner.settings.update(scale=0.5),
        lambda: model.inner.queue.__setitem__(0, 2.0),
        lambda: model.inner.counts["a"].__setitem__(0, 3.0),
        lambda: setattr(model.inner, "pair", Pair(4.0, [])),
    ):
        change()
        assert same(optimized(X), model(X))
    assert captures(optimized) == 1


@torch.no_grad()
def test_containers_of_every_kind_cost_one_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    made, count = step.make_plan, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        count.append(args)
        return made(*args, **kwargs)

    monkeypatch.setattr(step, "make_plan", counting)
    optimized = optimize(Shares().eval(), EAGER)
    for _ in range(3):
        with marche_fx.decoding(optimized):
            optimized(X)
    assert len(count) == 1


class Offloaded(nn.Module):
    """A layer whose weights are there while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()
        self.position = nn.Parameter(torch.randn(TOKENS, X.shape[-1]))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        if x.sum() > 1e9:
            x = x * 2
        return self.inner(x)


@torch.no_grad()
def test_a_capture_that_fails_leaves_weights_where_they_were() -> None:
    model = Offloaded().eval()

    def load(module: Offloaded, args: Any) -> None:
        module.position.data = module.position.data.double()

    def unload(module: Offloaded, args: Any, output: Tensor) -> None:
        module.position.data = module.position.data.float()

    weights = {name: (weight, weight.data_ptr()) for name, weight in model.named_parameters()}
    model.register_forward_pre_hook(load)
    model.register_forward_hook(unload)
    with pytest.raises(CaptureError):
        marche_fx.explain(model, X.double().float())
    assert {name: (weight, weight.data_ptr()) for name, weight in model.named_parameters()} == weights


@torch.no_grad()
def test_the_real_call_draws_nothing_from_the_global_generators() -> None:
    model = Around(lambda model, x: model.inner(x) + 0 * torch.rand(1).item())
    torch.manual_seed(7)
    marche_fx.explain(model, X)
    found = torch.rand(2)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(2))


@torch.no_grad()
def test_what_hooks_keep_for_somebody_else_is_no_state() -> None:
    model, kept = transformer(), list[Tensor]()
    model.head.register_forward_hook(lambda module, args, output: kept.append(output))
    optimized = optimize(model)
    for _ in range(3):
        with marche_fx.decoding(optimized):
            assert same(optimized(X), model(X))
    assert captures(optimized) == 1
    assert not any(map(is_traced, kept))


def write_weight(model: Any, x: Tensor) -> Tensor:
    model.inner.head.weight.mul_(0.5)
    model.inner.head.weight[0].add_(1)
    model.norm.running_mean += 1
    model.norm.num_batches_tracked.zero_()
    return model.inner(x)


@torch.no_grad()
def test_what_the_real_call_writes_into_weights_and_buffers_is_undone() -> None:
    model = Around(write_weight, norm=nn.BatchNorm1d(X.shape[-1]))
    model.get_submodule("norm").num_batches_tracked.fill_(3)  # type: ignore[operator]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(marche_fx.UnsupportedModelError, match="writes"):
        marche_fx.explain(model, X)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


COUNTED = {"calls": 0}


def counts(model: Any, x: Tensor) -> Tensor:
    COUNTED["calls"] += 1
    return model.inner(x)


def on_collection(phase: str, info: Any) -> None:
    COUNTED["calls"] += 1


@pytest.mark.parametrize("collected", [False, True])
@torch.no_grad()
def test_counters_outside_of_the_model_cost_no_captures(collected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, count = step.make_plan, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        count.append(args)
        return made(*args, **kwargs)

    def collects(model: Any, x: Tensor) -> Tensor:
        gc.collect()
        return model.inner(x)

    monkeypatch.setattr(step, "make_plan", counting)
    model = Around(collects if collected else counts)
    optimized = optimize(model)
    gc.callbacks.append(on_collection)
    try:
        for _ in range(3):
            with marche_fx.decoding(optimized):
                assert same(optimized(X), model(X))
    finally:
        gc.callbacks.remove(on_collection)
    assert len(count) == 1
