"""The original, and everything reachable from it, is left as it was: by explain, by a capture, by one that fails."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import CaptureError
from tests.api.test_untouched_tables import Helper
from tests.api.ways import call, call_and_compare, explain, fail
from tests.around import TOKENS, Around, X, transformer
from tests.reachable import Snapshot

Pair = namedtuple("Pair", "left right")


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
