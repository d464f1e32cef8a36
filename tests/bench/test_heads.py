"""Every variant has a head of its own: how often it is called in each decoding step, and with how many rows."""

from __future__ import annotations

import pytest

from marche_fx.bench import Bench, Row, Settings, bench, parse_variants
from marche_fx.bench.candidates import make_candidates
from marche_fx.bench.run import head_entrants, head_of, transformers_of
from marche_fx.bench.workload import mar_workload
from marche_fx.models import MAR
from marche_fx.rivals.emigm import is_guided
from marche_fx.rivals.recap import is_local
from marche_fx.speed.clock import clock_for
from tests.evaluate.tiny import silent, tiny_garments

STEPS = 8


def a_mar() -> MAR:
    """With enough sites for LazyMAR's schedule and enough denoising steps for ReCAP's."""
    return tiny_garments(decoder_depth=4, num_sampling_steps=10)


def calls(*words: str, cfg: float = 3.0) -> dict[str, list[list[int]]]:
    """By variant, of each decoding step the rows of each call of the head's network."""
    workload = mar_workload(a_mar(), 1, cfg, STEPS)
    settings = Settings(steps=STEPS, all_steps=True)
    candidates = make_candidates(workload, parse_variants(words, []), settings)
    entrants = head_entrants(candidates, clock_for(workload.device), settings)
    found: dict[str, list[list[int]]] = {}
    rows: list[int] = []
    hook = workload.model.get_submodule("diffloss.net.input_proj").register_forward_pre_hook(
        lambda _, given: rows.append(len(given[0]))
    )
    for candidate in candidates:
        with entrants[head_of(candidate, settings)].begin() as turn:
            steps = found[candidate.variant.name] = []
            for number in range(STEPS):
                rows.clear()
                turn.step(number)
                steps.append(list(rows))
    hook.remove()
    return found


def test_each_variant_calls_its_own_head() -> None:
    found = calls("eager", "ours:1-eager+denoising=4", "recap-eager", "lazymar-eager", "disa", "emigm")
    read = [own.read for own in mar_workload(a_mar(), 1, 3.0, STEPS).steps]
    assert found["eager"] == [[own] * 10 for own in read]
    assert found["ours-eager+denoising=4"] == [[own] * 4 for own in read]
    assert found["recap-eager"] == [[own] * (4 if is_local(step, STEPS) else 10) for step, own in enumerate(read)]
    # Of ten steps, counted down, 9, 7 and 0 are in full.
    kept = [1, 0.5, 1, *[0.5] * 6, 1]
    assert found["lazymar-eager"] == [[int(own * share) for share in kept] for own in read]
    assert [len(own) for own in found["disa"]] == [48, 41, 36, 29, 23, 17, 11, 5]
    halves = [own if is_guided(step, STEPS) else own // 2 for step, own in enumerate(read)]
    assert found["emigm"] == [[own] * 8 for own in halves]


def test_without_guidance_rivals_run_too() -> None:
    found = calls("lazymar-eager", "emigm", cfg=1.0)
    read = [own.read for own in mar_workload(a_mar(), 1, 1.0, STEPS).steps]
    assert found["lazymar-eager"] == [[own] * 10 for own in read]
    assert found["emigm"] == [[own] * 8 for own in read]


@pytest.fixture(scope="module")
def found() -> Bench:
    words = ["eager", "ours:1-eager", "ours:1-eager+denoising=4", "ours:1-eager+steps=4", "fewer:4", "disa", "emigm"]
    settings = Settings(batch=(2,), cfg=(3.0,), steps=STEPS, every=2, repeats=1)
    return bench(a_mar(), parse_variants(words, []), settings, name="tiny", console=silent())


def row(found: Bench, variant: str, part: str = "transformer") -> Row:
    (own,) = (own for own in found.rows if (own.variant, own.part) == (variant, part))
    return own


def test_a_transformer_that_several_have_is_timed_once(found: Bench) -> None:
    for one, other in (("eager", "disa"), ("ours-eager", "ours-eager+denoising=4")):
        assert row(found, one).seconds == row(found, other).seconds
        assert row(found, one, "head").seconds != row(found, other, "head").seconds
    candidates = make_candidates(
        mar_workload(a_mar(), 1, 3.0, 4), parse_variants(["eager", "disa", "emigm", "fewer:2"], []), Settings(steps=4)
    )
    assert [own.variant.name for own in transformers_of(candidates)] == ["eager", "emigm", "fewer:2"]


def test_a_whole_is_a_transformer_and_the_head_of_the_same_variant(found: Bench) -> None:
    for own in found.rows:
        if own.part == "whole":
            parts = row(found, own.variant).seconds + row(found, own.variant, "head").seconds
            assert own.seconds == pytest.approx(parts)


def test_shares_are_of_the_original_in_all_of_its_steps(found: Bench) -> None:
    for part in ("encoder", "decoder", "transformer"):
        ours, fewer = row(found, "ours-eager+steps=4", part), row(found, "fewer:4", part)
        assert fewer.flops_ratio is not None
        assert fewer.flops_ratio < 0.6
        # A full step has a few operators more.
        assert ours.flops_ratio == pytest.approx(fewer.flops_ratio, rel=0.1)
        assert ours.rows_ratio == pytest.approx(fewer.rows_ratio)
    # Half of the decoder's rows, where the unconditional half is left out.
    guided = sum(is_guided(step, STEPS) for step in range(STEPS))
    assert row(found, "emigm", "decoder").rows_ratio == (STEPS + guided) / (2 * STEPS)
    assert row(found, "emigm", "decoder").flops_ratio == pytest.approx((STEPS + guided) / (2 * STEPS))
    assert row(found, "ours-eager+steps=4").predicted_speedup is None
