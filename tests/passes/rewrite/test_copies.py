"""What a partial step allocates of all tokens: attention reads keys and values where they are cached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from marche_fx import ops
from marche_fx.passes.analysis.groups import find_shared_keys
from marche_fx.passes.rewrite.hooks import Hooks, insert_hooks
from tests.graphs import graph_text
from tests.passes.rewrite.test_split import CASES, Case, Shape, drawn
from tests.program import Program

SHAPE = Shape(2, 37, 4, 6)
"""No other dimension is as large as the tokens'."""


class Allocations(TorchDispatchMode):
    """Counts values that have a dimension of all tokens and memory of their own, by operator."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        read = {own.untyped_storage().data_ptr() for own in tensors((args, kwargs))}
        for own in tensors(results):
            if self.tokens in own.shape and own.untyped_storage().data_ptr() not in read:
                self.found[func.overloadpacket.__name__] += 1
        return results


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


@torch.no_grad()
def allocated(case: Case, *, observed: bool = False) -> tuple[Program, Counter[str]]:
    """What a step of five active tokens of ``case`` allocates, and a program of it."""
    torch.manual_seed(0)
    model = case.build(SHAPE).eval()
    arguments = drawn(case, SHAPE, torch.Generator().manual_seed(0), torch.float32)
    program = Program(model, case.step, arguments)
    if observed:
        program.split, _ = insert_hooks(program.split, program.plan, [lambda hooks: Hooks.attention(hooks, "all")])
    program.step(arguments, torch.arange(SHAPE.tokens).expand(SHAPE.samples, -1))
    values, active = program.values(arguments), torch.arange(5).expand(SHAPE.samples, -1).contiguous()
    with Allocations(SHAPE.tokens) as counted:
        program.run(program.split.incremental.module, values, [active], program.caches)
    return program, counted.found


GROUPED = "text, rotary, grouped queries, timestep"


@pytest.mark.parametrize("name", ["fused", GROUPED])
def test_attention_copies_no_keys_or_values(name: str) -> None:
    _, found = allocated(CASES[name])
    assert not found


def test_heads_that_share_keys_read_them_as_they_are_cached() -> None:
    program, _ = allocated(CASES[GROUPED])
    text = graph_text(program.split.incremental.module.graph)
    assert "enable_gqa=True" in text
    assert "expand" not in text
    assert all(find_shared_keys(site) is not None for site in program.plan.sites)


def test_observing_them_copies_none_either() -> None:
    _, found = allocated(CASES[GROUPED], observed=True)
    # Scores of the queries, and what becomes of them.
    assert "clone" not in found
    assert "index" not in found
    assert "repeat_interleave" not in found


def test_a_causal_mask_is_made_once_for_all_layers() -> None:
    program, found = allocated(CASES["causal"])
    # Numbers of keys, and the comparison; attention itself makes numbers of it in each of the two layers.
    assert found == {"arange": 1, "le": 1, "where": 2}
    text = graph_text(program.split.incremental.module.graph)
    assert text.count("causal_mask(") == 1
    assert text.splitlines()[0].startswith("causal_mask = causal_mask(")


def test_a_table_of_positions_is_gathered_once_for_queries_and_keys() -> None:
    program, _ = allocated(CASES[GROUPED])
    text = graph_text(program.split.incremental.module.graph)
    # Words, and in each of the two layers cosines and sines.
    assert text.count("gather_active(") == 1 + 2 * 2


# ------------------------------------------------------------------------------------------------- which are shared


class Grouped(nn.Module):
    """Keys and values of ``H / groups`` heads, which ``copied`` makes ``H`` of."""

    def __init__(
        self, copied: Callable[[Tensor, int], Tensor], heads: int = 4, groups: int = 2, width: int = 3
    ) -> None:
        super().__init__()
        self.copied, self.heads, self.groups = copied, heads, groups
        self.q = nn.Linear(heads * width, heads * width)
        self.kv = nn.Linear(heads * width, 2 * heads * width // groups)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q = self.q(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        k, v = self.kv(x).view(batch, tokens, 2, self.heads // self.groups, -1).permute(2, 0, 3, 1, 4).unbind()
        y = F.scaled_dot_product_attention(q, self.copied(k, self.groups), self.copied(v, self.groups))
        return y.transpose(1, 2).reshape(batch, tokens, width)


def side_by_side(x: Tensor, groups: int) -> Tensor:
    """As `transformers` does it."""
    batch, heads, tokens, width = x.shape
    return x[:, :, None].expand(batch, heads, groups, tokens, width).reshape(batch, heads * groups, tokens, width)


def interleaved(x: Tensor, groups: int) -> Tensor:
    return x.repeat_interleave(groups, 1)


def one_after_another(x: Tensor, groups: int) -> Tensor:
    """The first head for each, then the second: other heads share keys than enable_gqa says."""
    batch, heads, tokens, width = x.shape
    return x[:, None].expand(batch, groups, heads, tokens, width).reshape(batch, heads * groups, tokens, width)


def repeated(x: Tensor, groups: int) -> Tensor:
    return x.repeat(1, groups, 1, 1)


COPIES: dict[Callable[[Tensor, int], Tensor], bool] = {
    side_by_side: True,
    interleaved: True,
    one_after_another: False,
    repeated: False,
}


@pytest.mark.parametrize("copied", COPIES)
@settings(max_examples=8)
@given(draws=st.data())
@torch.no_grad()
def test_only_copies_side_by_side_are_shared(copied: Callable[[Tensor, int], Tensor], draws: st.DataObject) -> None:
    groups, heads, tokens = (draws.draw(st.integers(*own)) for own in ((2, 3), (2, 3), (3, 6)))
    torch.manual_seed(0)
    model = Grouped(copied, heads * groups, groups).double().eval()
    x = torch.randn(2, tokens, heads * groups * 3, dtype=torch.float64)
    program = Program(model, "forward", [x])
    assert ("enable_gqa" in graph_text(program.split.incremental.module.graph)) == COPIES[copied]
    oracle = program.oracle()
    every = torch.arange(tokens).expand(2, -1)
    for active in (every, every[:, 1:3], every[:, :1]):
        x = torch.randn_like(x)
        (found,), (expected,) = program.step([x], active), oracle.step([x], active)
        torch.testing.assert_close(found, expected)


@given(draws=st.data())
def test_attention_received_is_that_of_copied_keys(draws: st.DataObject) -> None:
    samples, heads, groups, tokens, asked = (draws.draw(st.integers(1, 4)) for _ in range(5))
    generator = torch.Generator().manual_seed(draws.draw(st.integers(0, 999)))
    q = torch.randn(samples, heads * groups, 5, 3, generator=generator)
    k = torch.randn(samples, heads, tokens, 3, generator=generator)
    mask = torch.randn(samples, heads * groups, 5, tokens, generator=generator)
    numbers = torch.arange(samples)[:, None]
    rows = torch.randint(5, (samples, asked), generator=generator)
    queried = torch.ones(samples, asked, dtype=torch.bool)
    given_mask = draws.draw(st.sampled_from([None, mask, mask[:, :1], mask[:, :1, :1]]))
    found = ops.attention_received(q, k, numbers, rows, queried, 0.5, given_mask, groups=groups)
    copied = k.repeat_interleave(groups, 1)
    torch.testing.assert_close(found, ops.attention_received(q, copied, numbers, rows, queried, 0.5, given_mask))
