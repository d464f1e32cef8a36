"""Tensors and calls that the examples of rules are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from marche_fx.passes.graph.opaque import TOKEN_WISE, number_of


@dataclass(frozen=True)
class Sizes:
    b: int
    n: int
    h: int
    c: int
    m: int


DIFFERENT = Sizes(b=2, n=5, h=3, c=4, m=6)
EQUAL = Sizes(b=4, n=4, h=4, c=4, m=4)

Example = tuple[Any, ...]
"""Arguments; a dictionary at the end holds those given by name."""

Examples = Callable[[Sizes], list[Example]]


def positional(example: Example) -> Sequence[Any]:
    return example[:-1] if isinstance(example[-1], dict) else example


def by_name(example: Example) -> dict[str, Any]:
    return example[-1] if isinstance(example[-1], dict) else {}


def r(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def z(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.complex128)


def no(*sizes: int) -> Tensor:
    return torch.zeros(sizes, dtype=torch.bool)


def chosen(rows: int, columns: int) -> Tensor:
    """A mask that chooses some of every row and of every column."""
    return (torch.arange(rows)[:, None] + torch.arange(columns)) % 2 == 0


def ids(below: int, *sizes: int) -> Tensor:
    return torch.randint(below, sizes)


def backwards(dim: int, *sizes: int) -> Tensor:
    """Positions along ``dim``, the last first."""
    positions = torch.arange(sizes[dim]).flip(0)
    return positions.view([-1 if own == dim else 1 for own in range(len(sizes))]).expand(sizes).contiguous()


class Children(nn.Module):
    """A model whose child treats rows apart, and mixes what is in each."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Softmax(-1)
        vars(self)[TOKEN_WISE] = ("child",)


CHILDREN = Children()


def called(s: Sizes) -> list[Example]:
    kind = (number_of(CHILDREN), "child", [s.c], ["float64"])
    return [([r(s.b, s.n, s.c)], *kind), ([r(s.n, s.c)], *kind)]


def each(targets: Iterable[Any], examples: Examples) -> dict[Any, Examples]:
    return dict.fromkeys(targets, examples)


def reshapes(s: Sizes) -> list[Example]:
    return [
        (r(s.b, s.n, s.h * s.c), [s.b, s.n, s.h, s.c]),
        (r(s.b, s.n, s.h, s.c), [s.b, s.n, -1]),
        (r(s.b, s.n, s.c), [s.b * s.n, s.c]),
        (r(s.b * s.h, s.n, s.c), [s.b, s.h, s.n, s.c]),
        (r(s.b, s.n, s.c), [s.b, 1, s.n, s.c]),
        (r(s.b, s.n, 1), [s.b, s.n]),
        (r(s.n * s.m, s.c), [s.n, s.m * s.c]),
    ]


def convolutions(s: Sizes) -> list[Example]:
    x, image = r(s.b, s.c, s.n), r(s.b, s.c, s.n, s.m)
    return [
        (x, r(s.m, s.c, 3), r(s.m), [1], [1], [1], False, [0], 1),
        (x, r(s.m, s.c, 1), None, [1], [0], [1], False, [0], 1),
        (x, r(s.m, s.c, 3), None, [2], [1], [1], False, [0], 1),
        (x, r(s.c, s.m, 1), r(s.m), [1], [0], [1], True, [0], 1),
        (x, r(s.c, 1, 3), r(s.c), [1], [1], [1], False, [0], s.c),
        (image, r(s.m, s.c, 3, 1), r(s.m), [1, 1], [1, 0], [1, 1], False, [0, 0], 1),
        (image, r(s.c, s.m, 2, 2), None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1),
        (r(s.b, 2 * s.c, s.n), r(2 * s.m, s.c, 3), r(2 * s.m), [1], [1], [1], False, [0], 2),
    ]


def attentions(s: Sizes) -> list[Example]:
    q, k, v = r(s.b, s.h, s.n, s.c), r(s.b, s.h, s.m, s.c), r(s.b, s.h, s.m, s.c)
    return [
        (q, k, v),
        (q, k, v, r(s.b, s.h, s.n, s.m)),
        (q, k, v, r(s.b, 1, 1, s.m)),
        (q, k, v, r(s.n, s.m), {"scale": 0.5}),
        (q, k, v, None, 0.0, True),
        (q, k, v, None, 0.5),
        (r(s.b, s.n, s.c), r(s.b, s.m, s.c), r(s.b, s.m, s.c), r(s.n, s.m)),
        (r(s.b, 2 * s.h, s.n, s.c), k, v, {"enable_gqa": True}),
        (q, r(s.b, 1, s.m, s.c), r(s.b, 1, s.m, s.c), {"enable_gqa": True}),
    ]


def group_norms(s: Sizes) -> list[Example]:
    image, weight = r(s.b, 2 * s.c, s.n, s.m), r(2 * s.c)
    sizes = (s.b, 2 * s.c, s.n * s.m)
    return [(image, weight, weight, *sizes, 2, 1e-5), (image, None, None, *sizes, 2 * s.c, 1e-5)]


def scatters(s: Sizes) -> list[Example]:
    x, src = r(s.b, s.n, s.c), r(s.b, s.n, s.c)
    return [
        (x, 1, backwards(1, s.b, s.n, s.c), src),
        (x, -1, backwards(2, s.b, s.n, s.c), src),
        (r(s.b + 1, s.n, s.c), 1, backwards(1, s.b, s.n, s.c), src),
        (x, 1, backwards(1, s.b, s.n, s.c), r(s.b + 1, s.n, s.c)),
    ]


def indices(s: Sizes) -> list[Example]:
    x = r(s.b, s.n, s.c)
    return [
        (x, [torch.arange(s.b)[:, None], ids(s.n, s.b, s.m)]),
        (x, [None, ids(s.n, s.m)]),
        (x, [None, ids(s.n, s.m, s.h)]),
        (x, [None, None, ids(s.c, s.m)]),
        (x, [ids(s.b, s.m), None, ids(s.c, s.m)]),
        (x, [None, torch.tensor(0)]),
    ]


def masks(s: Sizes) -> list[Example]:
    return [(r(s.b, s.n, s.c), [chosen(s.b, s.n)]), (r(s.b, s.n, s.c), [None, chosen(s.n, s.c)])]


def index_writes(s: Sizes) -> list[Example]:
    x, mask = r(s.b, s.n, s.c), chosen(s.b, s.n)
    return [
        (x, [torch.arange(s.b)[:, None], backwards(1, s.b, s.n)], r(s.b, s.n, s.c)),
        (x, [None, backwards(0, s.n)], r(s.b, s.n, s.c)),
        (x, [None, backwards(0, s.n)[1:]], r(s.c)),
        (x, [torch.arange(s.n) % s.b, None, torch.arange(s.n) % s.c], r(s.n, s.n), True),
        (x, [mask], r(int(mask.sum()), s.c)),
        (x, [mask], r(s.c)),
        (x, [mask], r(1, s.c)),
        (x, [mask], torch.tensor(0.5, dtype=torch.float64)),
        (x, [None, chosen(s.n, s.c)], r(s.b, 1)),
    ]


def x(s: Sizes) -> list[Example]:
    return [(r(s.b, s.n, s.c),)]


def two(s: Sizes) -> list[Example]:
    return [(r(s.b, s.n, s.c), r(s.b, s.n, s.c))]
