"""A transformer in a forward of a test's own, and whether its calls give what the original's do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx import FullRefresh, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.capture.arguments import opened
from tests.networks import Transformer

TOKENS, WIDTH = 20, 8
X = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
MOVED = X.clone()
MOVED[:, 3] += 1
FULL, EAGER = FullRefresh(), SelectiveRefresh(0.0, warmup=0)


def transformer(**options: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(TOKENS, WIDTH, 2, depth=1, **options).eval()


class Around(nn.Module):
    """A transformer as ``inner`` in a forward of the test's own."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.inner = transformer()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def optimize(model: nn.Module, refresh: Any = None) -> nn.Module:
    return marche_fx.transform(model, refresh=refresh or FullRefresh(), compile=False)


def captures(optimized: nn.Module) -> int:
    return len(optimization_of(optimized).steps["forward"].programs)


def decodes_with_one_capture(optimized: nn.Module, model: nn.Module) -> None:
    """Two sessions of two steps give what the original does, and only the first captures it."""
    for _ in range(2):
        with marche_fx.decoding(optimized):
            assert same(optimized(X), model(X))
            assert same(optimized(MOVED), model(MOVED))
    assert captures(optimized) == 1


def active(optimized: nn.Module) -> list[int]:
    session = optimization_of(optimized).last_session
    assert session is not None
    return [record.active for record in session.records]


def same(ours: Any, original: Any) -> bool:
    """Equal tensors and values in containers of the same types."""
    (left, left_spec), (right, right_spec) = pytree.tree_flatten(opened(ours)), pytree.tree_flatten(opened(original))
    pairs = zip(left, right, strict=True)
    return left_spec == right_spec and all(
        torch.equal(a.clone(), b) if isinstance(b, Tensor) else a == b for a, b in pairs
    )


@torch.no_grad()
def check(model: nn.Module, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> nn.Module:
    """Each call of one session gives what the original gives."""
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        for args, kwargs in calls:
            assert same(optimized(*args, **kwargs), model(*args, **kwargs))
    return optimized


def refused(model: nn.Module, error: type[Exception], match: str, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad(), pytest.raises(error, match=match):
        optimize(model)(*args, **kwargs)


class LowRank(nn.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


def replace_linears(model: nn.Module, kind: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    for path, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            model.set_submodule(path, kind(module))
    return model.eval()
