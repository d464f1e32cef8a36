"""How often a step waits for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import (
    AdaptiveBudget,
    AttentionReceived,
    CosineBudget,
    DriftRefresh,
    FullRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    StalenessRefresh,
)
from marche_fx.lazy.rows import RowNumbers
from marche_fx.lazy.tensor import LateTensor
from marche_fx.models.mar import mask_by_order
from marche_fx.runtime.stream import LOOKED
from tests.refresh.test_own_policies import FastMovers
from tests.sessions import TOKENS, WIDTH, grid_mar, inputs, records, transformer

READS = {
    getattr(Tensor, name)
    for name in ("item", "tolist", "numpy", "cpu", "nonzero", "masked_select", "equal", "is_nonzero", "unique")
} | {Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__contains__}
"""Methods that wait for a device. `Tensor.tolist` of a tensor on the host reads memory and calls no operator."""

OPERATORS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2")
"""Operators that do, also where C++ calls them; an index by a mask does too."""


class Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.reads = HostReads(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if LateTensor in types:
            # Modes are off while they answer.
            with self, self.reads:
                return LateTensor.__torch_dispatch__(func, types, args, kwargs)
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        is_mask = name in ("index", "index_put", "index_put_") and any(
            own is not None and own.dtype in (torch.bool, torch.uint8) for own in args[1]
        )
        self.count += is_mask or name in OPERATORS
        return func(*args, **(kwargs or {}))


class HostReads(TorchFunctionMode):
    """Counts how often values of a tensor are brought to the host, a method that calls an operator once."""

    def __init__(self, operators: Operators) -> None:
        super().__init__()
        self.operators = operators
        self.methods = 0

    @property
    def count(self) -> int:
        return self.methods + self.operators.count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.operators.count
        result = func(*args, **(kwargs or {}))
        if func in READS:
            self.methods += 1
            self.operators.count = before
        return result


@contextmanager
def host_reads() -> Iterator[HostReads]:
    with Operators() as operators, operators.reads as found, pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowNumbers, "share", known_on_the_host(found, RowNumbers.share))
        yield found


def known_on_the_host(found: HostReads, share: Callable[..., Any]) -> Callable[..., bool]:
    """The same, which reads nothing: numbers of rows that no mask or index gave are on the host."""

    def of(numbers: RowNumbers, tokens: Tensor) -> Any:
        assert tokens.device.type == "cpu"
        methods, operators = found.methods, found.operators.count
        value = float(share(numbers, tokens))
        found.methods, found.operators.count = methods, operators
        return value

    return of


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x[0] > 0),
        lambda x: int(x[0]),
        lambda x: float(x[0]),
        lambda x: [0, 1, 2, 3][x[0].long()],
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: x.cpu(),
        lambda x: 1.0 in x,
    ],
)
def test_the_counter_of_host_reads_counts_one(read: Callable[[Tensor], Any]) -> None:
    x = torch.ones(3)
    with host_reads() as found:
        x.add(1).topk(2).values.softmax(-1)
    assert found.count == 0
    with host_reads() as found:
        read(x)
    assert found.count == 1


POLICIES: list[RefreshPolicy] = [
    SelectiveRefresh(0.1, warmup=1),
    SelectiveRefresh(0.1, warmup=1, age=False, sites="all"),
    SelectiveRefresh(CosineBudget(0.2, 0.1, 6), warmup=1),
    SelectiveRefresh(AdaptiveBudget(0.1), warmup=1),
    InterleavedRefresh(period=3, warmup=1),
    DriftRefresh(0.1, warmup=1),
    DriftRefresh(AdaptiveBudget(0.1), warmup=1, exact_sites=1),
    StalenessRefresh(0.1, warmup=1),
    RandomRefresh(0.1, warmup=1),
    NeighbourRefresh(0.1, warmup=1, grid=(6, 6)),
    SelectiveRefresh(0.05, warmup=1) + NeighbourRefresh(0.05, warmup=1, grid=(6, 6)) + DriftRefresh(0.05, warmup=1),
    FullRefresh(),
    FastMovers(),
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@torch.no_grad()
def test_a_step_reads_at_most_once_what_is_on_the_device(policy: RefreshPolicy) -> None:
    optimized = marche_fx.transform(transformer(2), refresh=policy, compile=False, verify=False)
    # What a capture looks at is in the graph, not on a device.
    optimized(inputs(1)[0])
    counts = []
    with marche_fx.decoding(optimized):
        for x in inputs(7):
            with host_reads() as found:
                optimized(x)[:, :2].sum()
            counts.append(found.count)
    observes = any(isinstance(signal, AttentionReceived) for signal in policy.signals)
    is_partial = [record.active < TOKENS for record in records(optimized)]
    assert counts == [int(own or observes) for own in is_partial], "none where all tokens run, unless it observes some"
    assert (sum(is_partial) > 2) == (not isinstance(policy, FullRefresh))


@pytest.mark.parametrize(("how", "own"), [("rows by index", 0), ("query", 0), ("mask", 1)])
@torch.no_grad()
def test_other_ways_to_say_which_rows_are_read_cost_what_the_index_does(how: str, own: int) -> None:
    """An index by a mask brings to the host how many rows it gives, on any tensor."""
    mask = torch.zeros(2, TOKENS, dtype=torch.bool)
    mask[:, 3:6] = True
    rows = mask if how == "mask" else mask.nonzero(as_tuple=True)
    with host_reads() as found:
        inputs(1)[0][rows]
    assert found.count == own
    query = (lambda x: mask) if how == "query" else None
    policy = SelectiveRefresh(0.1, warmup=1)
    optimized = marche_fx.transform(transformer(2), refresh=policy, query=query, compile=False, verify=False)
    optimized(inputs(1)[0])
    counts = []
    with marche_fx.decoding(optimized):
        for x in inputs(4):
            with host_reads() as found:
                optimized(x)[rows]
            counts.append(found.count)
    assert counts == 4 * [1 + own]


@pytest.mark.parametrize("policy", [POLICIES[3], POLICIES[6], POLICIES[10], FullRefresh()], ids=str)
@torch.no_grad()
def test_a_step_that_drops_tokens_reads_once_more_than_the_model_itself(policy: RefreshPolicy) -> None:
    """MAR's encoder and decoder each call `nonzero` of the mask, which is part of what is captured."""
    mar = grid_mar()
    optimized = marche_fx.transform(mar, refresh=policy, compile=False, verify=False)
    orders = mar.sample_orders(2)
    with marche_fx.decoding(optimized):
        for step in range(7):
            masks = [mask_by_order(mar.seq_len - 4 * own, orders, 2, mar.seq_len) for own in (step, step + 1)]
            index = (masks[0] - masks[1]).nonzero(as_tuple=True)
            arguments = torch.ones(2, mar.seq_len, 4) * (1 - masks[0])[..., None], masks[0], torch.ones(2, WIDTH)
            counts = []
            for model in (mar, optimized):
                with host_reads() as found:
                    # Somebody reads it as a whole.
                    x = model.forward_mae_encoder(*arguments).contiguous()
                counts.append(found.count)
                with host_reads() as found:
                    model.forward_mae_decoder(x, masks[0])[index]
                counts.append(found.count)
            if step > 0:
                assert counts[:2] == [1, 1]
                assert max(counts[2:]) <= 2
    assert len(records(optimized)) == 14


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("policy", POLICIES, ids=str)
@torch.no_grad()
def test_a_step_waits_for_the_gpu_at_most_once(policy: RefreshPolicy) -> None:
    """But in its first calls, where a session looks at their inputs once more to tell streams apart."""
    optimized = marche_fx.transform(transformer(2).float().cuda(), refresh=policy, compile=False, verify=False)
    with marche_fx.decoding(optimized):
        for number, x in enumerate(inputs(LOOKED + 5, torch.float32, "cuda")):
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    optimized(x)[:, :2].sum()
            finally:
                torch.cuda.set_sync_debug_mode("default")
            assert len([own for own in caught if "synchroniz" in str(own.message)]) <= 1 + (0 < number <= LOOKED)
    assert min(record.active for record in records(optimized)) < TOKENS or isinstance(policy, FullRefresh)
