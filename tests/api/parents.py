"""Models whose loops call a child of theirs, for tests of these."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.lazy.tensor import resolved
from tests.networks import Transformer
from tests.sessions import D, N, steps


class Table(nn.Module):
    """An embedding of a class of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(3, D))

    def forward(self, ids: Tensor) -> Tensor:
        return self.rows[ids]


def network(depth: int) -> nn.Module:
    found = Transformer(N, D, 2, depth=depth)
    found.head = nn.Linear(D, D)
    found.embedding = nn.Embedding(3, D)
    found.table = Table()
    return found


class Parent(nn.Module):
    """The object with the loop, whose network is a child, beside one without attention."""

    def __init__(self, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.net = inner or network(2)
        self.head = nn.Linear(D, D)
        self.layers = nn.ModuleList(network(1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).square().mean()

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [resolved(self.net(x)[:, 8:12]).clone() for x in steps]

    def with_head(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.head(self.net(x)[:, 8:12]) for x in steps]

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def by_method(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.predict(x)[:, 8:12] for x in steps]

    def by_layer(self, steps: list[Tensor]) -> list[Tensor]:
        found = []
        for x in steps:
            for layer in self.layers:
                x = layer(x)
            found.append(x)
        return found

    def with_embedding(self, steps: list[Tensor]) -> list[Tensor]:
        # As of a prompt and of a mask, before the loop and in it.
        embedding = self.net.get_submodule("embedding")
        first = embedding(torch.tensor([0])) + embedding(torch.tensor([1]))
        return [resolved((self.net(x)[:, 8:12] + first + embedding(torch.tensor([2]))) * 1).clone() for x in steps]

    def with_table(self, steps: list[Tensor]) -> list[Tensor]:
        table = self.net.get_submodule("table")
        first = table(torch.tensor([0])) + table(torch.tensor([1])) + table(torch.tensor([2]))
        return [resolved((self.net(x)[:, 8:12] + first + table(torch.tensor([2]))) * 1).clone() for x in steps]

    def head_alone(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.head(x) for x in steps]


class Guided(Transformer):
    """Calls its own ``forward``, which no hook of PyTorch sees."""

    def guided(self, x: Tensor) -> Tensor:
        return 2 * self.forward(x) - self.forward(x)


class Remembering(Guided):
    """Guided by calls of its ``forward`` that set an attribute, which no step may."""

    before: Tensor

    def __init__(self) -> None:
        super().__init__(N, D, 2, depth=2)
        self.head = nn.Linear(D, D)
        self.register_buffer("before", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        shift = 0 * self.before
        self.register_buffer("before", x.mean(), persistent=False)
        return super().forward(x + shift, *mask)


class Critic(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.to_score = nn.Linear(D, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_score(self.net(x))


class WithCritic(nn.Module):
    """A network that the loop calls by a method, and a critic that has the same one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Guided(N, D, 2, depth=2)
        self.net.head = nn.Linear(D, D)
        self.critic = Critic(self.net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).square().mean()

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net.guided(x)[:, 8:12] + 0 for x in steps]

    def both(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net.guided(x)[:, 8:12] + self.get_submodule("other")(x)[:, 8:12] for x in steps]

    def held(self, steps: list[Tensor]) -> list[Tensor]:
        decode = self.net.guided
        return [decode(x)[:, 8:12] + 0 for x in steps]

    def criticised(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.net.guided(x)[:, 8:12] + self.critic(x)[:, 8:12] for x in steps]


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Parent()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def generate(self, steps: list[Tensor]) -> list[Tensor]:
        return [self.model.net(x)[:, 8:12] + 0 for x in steps]


def made(kind: type[nn.Module] = Parent) -> Any:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


def decoded(model: nn.Module, loop: str, refresh: Any = None) -> tuple[Any, list[Tensor], list[str]]:
    """The transformed model, what its loop gives, and what the user is told."""
    optimized = marche_fx.transform(model, loop=loop, refresh=refresh or SelectiveRefresh(0.1, warmup=1), compile=False)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        found = getattr(optimized, loop)(steps())
    assert not torch_module._global_forward_pre_hooks
    assert not torch_module._global_forward_hooks
    told = [str(own.message) for own in caught if "never called" in str(own.message)]
    return optimized, found, told
