"""Sessions whose calls are of one length after another, followed by the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime.program import Program
from marche_fx.runtime.records import StepRecord
from tests.generated.check import leaves, relative_error
from tests.oracle import Oracle
from tests.program import oracle_of

WIDTH, HEADS, WORDS, LONGEST = 8, 2, 11, 48


class Texts(nn.Module):
    """``ids [B, N] -> [B, N, V]`` for any N up to `LONGEST`.

    Args:
        place: how tokens know where they stand: ``"table"``, ``"rotary"``, ``"share"``, which depends on how many there
            are, or ``"none"``.
        mask: who sees whom: ``"none"``, ``"given"``, ``[N, N]`` among the arguments, ``"window"``, ``"blocks"``, causal
            from block to block, ``"causal"``, ``"distance"``, a bias, or ``"distant"``, one that depends on N.
        scale: whether rows are multiplied by the number of tokens.
    """

    def __init__(self, place: str = "table", mask: str = "none", *, scale: bool = False, depth: int = 2) -> None:
        super().__init__()
        self.place, self.mask, self.scale = place, mask, scale
        self.word, self.table = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.randn(LONGEST, WIDTH))
        self.label = nn.Embedding(3, WIDTH)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(depth))
        self.up = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(depth))
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, ids: Tensor, seen: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        count = ids.shape[1]
        x = self.word(ids)
        numbers = torch.arange(count, dtype=x.dtype)
        if self.place == "table":
            x = x + self.table[:count]
        elif self.place == "share":
            x = x + (numbers / count)[:, None].sin()
        if label is not None:
            x = x + self.label(label)[:, None]
        mask = self.masked(numbers, seen)
        for qkv, up, down in zip(self.qkv, self.up, self.down):
            q, k, v = qkv(x).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
            if self.place == "rotary":
                angles = numbers[:, None] / torch.arange(1, WIDTH // HEADS + 1)
                q, k = (own * angles.cos() + own.roll(2, -1) * angles.sin() for own in (q, k))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.mask == "causal")
            x = x + y.transpose(1, 2).flatten(2)
            x = x + down(F.gelu(up(F.layer_norm(x, (WIDTH,)))))
            if self.scale:
                x = x * (1 + 1 / count)
        return self.head(x)

    def masked(self, numbers: Tensor, seen: Tensor | None) -> Tensor | None:
        apart = numbers[:, None] - numbers
        if self.mask == "given":
            return seen
        if self.mask == "window":
            return apart.abs() <= 4
        if self.mask == "blocks":
            return (numbers[:, None] // 4) >= (numbers // 4)
        if self.mask == "distance":
            return -0.1 * apart.abs()
        return -apart.abs() / len(numbers) if self.mask == "distant" else None


def texts(place: str = "table", mask: str = "none", **options: Any) -> Texts:
    torch.manual_seed(0)
    return Texts(place, mask, **options).double().eval().requires_grad_(False)


def ids(count: int, samples: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(1, WORDS, (samples, LONGEST), generator=Generator().manual_seed(seed))[:, :count].clone()


Call = tuple[tuple[Any, ...], dict[str, Any], Any]
"""Arguments, and an index of the rows that are read."""


@torch.no_grad()
def follow(model: nn.Module, optimized: nn.Module, calls: Sequence[Call]) -> list[list[StepRecord]]:
    """What each call of a session computed; its rows are the oracle's, and the original's where all were computed."""
    oracle: Oracle | None = None
    program: Program | None = None
    found = []
    with marche_fx.decoding(optimized) as session:
        for args, kwargs, rows in calls:
            done = len(session.records)
            results = resolved(leaves(optimized(*args, **kwargs))[0][rows]).clone()
            records = session.records[done:]
            inputs = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            expected: list[Any] = []
            for own in records:
                if own.program is not program:
                    before = program if session.log.calls[-1].kept else None
                    oracle = at_length(oracle, before, own.program, model, inputs)
                    program = own.program
                assert oracle is not None
                assert own.computed is not None
                expected = oracle.step(inputs, own.reasons > 0, own.computed)
            assert relative_error(results, expected[0][rows]) < 1e-9
            if records[-1].active == records[-1].visible:
                assert relative_error(results, leaves(model(*args, **kwargs))[0][rows]) < 1e-9
            found.append(records)
    return found


def at_length(
    oracle: Oracle | None, before: Program | None, program: Program, model: nn.Module, inputs: list[Tensor]
) -> Oracle:
    """The oracle of a program, which goes on with the rows of one of another length."""
    found = oracle_of(program.plan, model)
    if oracle is not None and before is not None:
        found.step(inputs, torch.ones(program.shape, dtype=torch.bool))
        found.go_on(oracle, dict(kept_tokens(before.plan.axes.lengths, program.plan.axes.lengths)))
    return found


def kept_tokens(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The numbers of a token among those of all streams of before, and of after."""
    starts = zip(*(itertools.accumulate(own, initial=0) for own in (before, after)))
    for own, other, (start, new_start) in zip(before, after, starts):
        yield from ((start + number, new_start + number) for number in range(min(own, other)))


def programs(optimized: nn.Module) -> list[Program]:
    return [*optimization_of(optimized).steps["forward"].programs]


def first_tokens(short: Any, long: Any) -> Any:
    """A call of the sizes of ``short`` with the values of ``long``, as far as tokens stand first."""
    (own, spec), (other, _) = pytree.tree_flatten(short), pytree.tree_flatten(long)
    cut = [b[tuple(map(slice, a.shape))].clone() if isinstance(a, Tensor) else a for a, b in zip(own, other)]
    return pytree.tree_unflatten(cut, spec)
