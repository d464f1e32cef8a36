"""LazyMAR's head: what it computes when, and the same from an independent slow version."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from marche_fx.errors import ArgumentError
from marche_fx.models.head import DiffLoss, SimpleMLPAdaLN
from marche_fx.rivals import RIVALS, with_sampler
from marche_fx.rivals.lazymar import LazySampler
from tests.denoising.heads import CHANNELS, CONDITION, calls_of, normal, randomised


def a_head(steps: int, depth: int = 6) -> DiffLoss:
    return randomised(DiffLoss(CHANNELS, CONDITION, depth, 16, steps, 1.0)).double()


def lazy(head: DiffLoss) -> DiffLoss:
    return with_sampler(head, RIVALS["lazymar"](head.gen_diffusion)(0, 1))


def is_full(left: int, count: int) -> bool:
    return left in range(0, count, 7) or left == count - 1


class SlowHead:
    """The same by histories: of every block and half of guidance, what it gave at each step at which it ran."""

    def __init__(self, net: SimpleMLPAdaLN, halves: list[Tensor], cfg: float, count: int) -> None:
        self.net, self.halves, self.cfg, self.count = net, halves, cfg, count
        self.left = count
        self.deltas: dict[tuple[int, int, int], Tensor] = {}
        self.mlps: dict[tuple[int, int, int], Tensor] = {}
        self.noises: dict[tuple[int, int], Tensor] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.left -= 1
        half = x[: len(self.halves[0])]
        full = [left for left in range(self.left, self.count) if is_full(left, self.count)]
        positions = []
        for number, _ in enumerate(self.halves):
            if number == 0 or full[0] == self.left:
                output = self.half(number, half, t[: len(half)], full[0])
                self.noises[number, self.left], position = output.chunk(2, -1)
                positions.append(position)
        noise = self.noises[0, self.left]
        if len(self.halves) == 2:
            gap = self.noises[0, full[0]] - self.noises[1, full[0]]
            noise = noise - gap + self.cfg * gap
        joined = torch.cat([noise, positions[0]], -1)
        return torch.cat([joined] * len(self.halves))

    def half(self, number: int, x: Tensor, t: Tensor, full: int) -> Tensor:
        x = self.net.input_proj(x)
        y = self.net.time_embed(t) + self.net.cond_embed(self.halves[number])
        for block, module in enumerate(self.net.res_blocks):
            key = number, block
            if block in (1, 2, 3, 4) and full != self.left:
                x = x + self.deltas[(*key, full)]
                continue
            shift, scale, gate = module.adaLN_modulation(y).chunk(3, -1)  # type: ignore[operator]
            h = module.in_ln(x) * (1 + scale) + shift  # type: ignore[operator]
            if full == self.left or self.left > 0.9 * self.count:
                self.mlps[(*key, self.left)] = module.mlp(h)  # type: ignore[operator]
            latest = min(left for half, own, left in self.mlps if (half, own) == key)
            after = x + gate * self.mlps[(*key, latest)]
            self.deltas[(*key, self.left)] = after - x
            x = after
        return self.net.final_layer(x, y)


@given(steps=st.integers(2, 40), depth=st.integers(1, 7), rows=st.integers(1, 4), cfg=st.sampled_from([1.0, 2.5]))
@settings(max_examples=30, deadline=None)
def test_it_equals_the_slow_version(steps: int, depth: int, rows: int, cfg: float) -> None:
    head = a_head(steps, depth)
    halves = [normal(rows, CONDITION, seed=own) for own in range(1 if cfg == 1 else 2)]
    noise = normal(steps, rows, CHANNELS, seed=5)
    with torch.no_grad():
        found = lazy(head).sample(torch.cat(halves), cfg=cfg, noise=noise)
        slow = SlowHead(head.net, halves, cfg, steps)
        expected = head.gen_diffusion.sample(slow, torch.cat([noise] * len(halves), 1))
    torch.testing.assert_close(found[:rows], expected[:rows])


def test_sixteen_of_a_hundred_steps_are_computed_in_full_and_the_others_of_the_conditional_half() -> None:
    head, rows = a_head(100), 3
    ran: Counter[str] = Counter()
    for number, block in enumerate(head.net.res_blocks):
        for part in ("mlp", "adaLN_modulation"):
            block.get_submodule(part).register_forward_pre_hook(
                lambda _, given, name=f"{part} {number}": ran.update({name: len(given[0])})
            )
    with torch.no_grad():
        calls = calls_of(head, lambda: lazy(head).sample(normal(2 * rows, CONDITION), cfg=3.0))
    assert Counter(count for _, count in calls) == {2 * rows: 16, rows: 84}
    assert [count for _, count in calls[:9]] == [2 * rows, 2 * rows, *[rows] * 6, 2 * rows]
    skipped, last = [f"{{}} {number}" for number in (1, 2, 3, 4)], "{} 5"
    for part, kept in (("mlp", 6), ("adaLN_modulation", 84)):
        assert {ran[name.format(part)] for name in skipped} == {16 * 2 * rows}
        # Their MLPs run in the first tenth of the steps too, of which two are in full.
        assert {ran[f"{part} 0"], ran[last.format(part)]} == {16 * 2 * rows + kept * rows}


@pytest.mark.parametrize(
    ("depth", "width", "condition", "fewer"), [(6, 1024, 768, 3.5), (8, 1280, 1024, 3.1), (12, 1536, 1280, 2.9)]
)
def test_its_flops_are_those_that_its_code_has(depth: int, width: int, condition: int, fewer: float) -> None:
    """MAR-B, L and H."""
    head = DiffLoss(16, condition, 1, 8, 100)
    with torch.device("meta"):
        head.net = SimpleMLPAdaLN(16, width, condition, depth)
    counted = []
    for own in (head, lazy(head)):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            own.sample(torch.empty(8, condition, device="meta"), cfg=3.0)
        counted.append(counter.get_total_flops())
    assert counted[0] / counted[1] == pytest.approx(fewer, abs=0.06)


def test_another_denoiser_is_refused_by_name() -> None:
    sampler = LazySampler(a_head(5).gen_diffusion)
    with pytest.raises(ArgumentError, match="written for MAR's denoiser, got function"):
        sampler.sample(lambda x, t: x, normal(5, 2, CHANNELS))
