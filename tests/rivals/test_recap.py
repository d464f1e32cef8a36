"""ReCAP: which decoding steps are local, in the transformer and in the head."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from marche_fx.bench import Settings, mar_workload, parse_variants
from marche_fx.bench.candidates import make_candidates
from marche_fx.bench.turn import TransformerTurn
from marche_fx.denoising import Denoising
from marche_fx.rivals import RIVALS, with_sampler
from marche_fx.rivals.recap import is_local
from marche_fx.speed.clock import clock_for
from tests.denoising.heads import CHANNELS, CONDITION, bundled_head, calls_of, normal, replaced
from tests.evaluate.tiny import tiny_garments


def as_in_its_loop(of: int) -> Iterator[bool]:
    """Whether each step is local, by the loop of its code: from half of the steps on, one follows each full one."""
    count = 0
    while count < of:
        yield False
        if count > of // 2 - 1 and count + 1 < of:
            yield True
            count += 1
        count += 1


def test_local_steps_are_those_of_its_loop() -> None:
    for of in (2, 3, 8, 9, 64, 96):
        assert [is_local(step, of) for step in range(of)] == list(as_in_its_loop(of))


def test_the_transformers_steps_are_partial_where_the_heads_are() -> None:
    workload = mar_workload(tiny_garments(), 2, 3.0, 8)
    [candidate] = make_candidates(workload, parse_variants(["recap-eager"], []), Settings(steps=8))
    with TransformerTurn(candidate, clock_for(torch.device("cpu"))) as turn:
        for number in range(8):
            turn.step(number)
    decoder = [own for own in turn.records if own.name == "forward_mae_decoder"]
    assert [own.rows < own.original_rows for own in decoder] == [is_local(step, 8) for step in range(8)]


def test_a_local_step_denoises_in_forty_of_a_hundred_steps() -> None:
    head = bundled_head(100)
    at = RIVALS["recap"](head.gen_diffusion)
    z, counts = normal(6, CONDITION), []
    with torch.no_grad():
        for step in range(30, 37):
            own = with_sampler(head, at(step, 64))
            counts.append(len(calls_of(head, partial(own.sample, z, cfg=3.0))))
    assert counts == [100, 100, 100, 40, 100, 40, 100]


def test_it_draws_as_a_head_respaced_to_forty_does() -> None:
    head = bundled_head(100)
    z, noise = normal(3, CONDITION), normal(40, 3, CHANNELS, seed=2)
    with torch.no_grad():
        found = with_sampler(head, RIVALS["recap"](head.gen_diffusion)(33, 64)).sample(z, noise=noise)
        expected = replaced(head, Denoising(steps=40)).sample(z, noise=noise)
    torch.testing.assert_close(found, expected)
