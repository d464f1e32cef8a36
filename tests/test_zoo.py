"""Models nobody here wrote: every site is found, full refresh is exact, partial refresh is what the oracle says."""

from __future__ import annotations

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import marche_fx
from tests.zoo import ENTRIES, REFUSED
from tests.zoo.captured import apart, captured, drawn_anew, full_operators, is_claimed
from tests.zoo.entry import Entry, Refused
from tests.zoo.errors import error_at_full_refresh, errors_against_oracle, relative_error
from tests.zoo.loop import told


def sizes(entry: Entry) -> list[tuple[int, int]]:
    """Samples and tokens: three samples and one, and each length."""
    return list(zip((1, 3), entry.tokens * 2))


BY_SIZE = [
    pytest.param(entry, samples, tokens, id=f"{entry.name}, {samples} x {tokens}")
    for entry in ENTRIES
    for samples, tokens in sizes(entry)
]
BY_MODEL = [pytest.param(entry, *sizes(entry)[-1], id=entry.name) for entry in ENTRIES]


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_SIZE)
def test_every_site_is_found_and_claimed(entry: Entry, samples: int, tokens: int) -> None:
    report = captured(entry, samples, tokens).report
    sites = [site for site in report.sites if not apart(entry, site)]
    assert sum(site.kind == "attention" for site in sites) == entry.attention
    assert sum(site.kind == "MLP" for site in sites) == entry.mlps
    assert [site for site in sites if not is_claimed(site)] == []
    assert full_operators(report) == set(entry.full)


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.apart], ids=lambda entry: entry.name)
def test_sites_apart_are_reported_as_not_claimed(entry: Entry) -> None:
    sites = [site for site in captured(entry, *sizes(entry)[-1]).report.sites if apart(entry, site)]
    assert sites
    assert [site for site in sites if is_claimed(site)] == []


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_SIZE)
def test_full_refresh_equals_the_original(entry: Entry, samples: int, tokens: int) -> None:
    assert error_at_full_refresh(captured(entry, samples, tokens)) <= entry.tolerance


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_SIZE)
def test_partial_refresh_equals_the_oracle(entry: Entry, samples: int, tokens: int) -> None:
    partial, at_all_rows = errors_against_oracle(captured(entry, samples, tokens))
    assert partial <= entry.tolerance
    assert at_all_rows <= entry.tolerance


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_MODEL)
@torch.no_grad()
def test_one_active_token_takes_few_flops(entry: Entry, samples: int, tokens: int) -> None:
    own = captured(entry, samples, tokens)
    own.program.reset()
    arguments = own.arguments(torch.Generator().manual_seed(3))
    counted = []
    for active in (own.every(), own.some(slice(3, 4))):
        with FlopCounterMode(display=False) as counter:
            own.step(arguments, active)
        counted.append(counter.get_total_flops())
    assert counted[1] <= entry.share * counted[0]


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_MODEL)
@torch.no_grad()
def test_a_stale_token_tells_on_the_others(entry: Entry, samples: int, tokens: int) -> None:
    own, generator = captured(entry, samples, tokens), torch.Generator().manual_seed(4)
    own.program.reset()
    own.step(own.arguments(generator), own.every())
    arguments = own.arguments(generator)
    found, exact = own.step(arguments, own.some(slice(1, None)))[0], own.exact(arguments)[0]
    moved = (found - exact).abs() > 1e-4 * exact.abs().max()
    # The stale token's own row is a part of the result that small.
    assert moved.double().mean() > 2 / sum(own.lengths)


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_MODEL)
@torch.no_grad()
def test_unchanged_arguments_need_no_refresh(entry: Entry, samples: int, tokens: int) -> None:
    own = captured(entry, samples, tokens)
    own.program.reset()
    arguments = own.arguments(torch.Generator().manual_seed(5))
    own.step(arguments, own.every())
    assert relative_error(own.step(arguments, own.some(slice(2, 4))), own.exact(arguments)) <= entry.tolerance


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_MODEL)
@torch.no_grad()
def test_the_original_is_left_as_it_was(entry: Entry, samples: int, tokens: int) -> None:
    """By the capture, which is what `explain` does too, by `transform`, and by a session."""
    own = captured(entry, samples, tokens)
    error_at_full_refresh(own)
    assert own.original.changes() == []
    for found, expected in zip(own.exact(own.given), own.expected, strict=True):
        assert torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected


@pytest.mark.parametrize(("entry", "samples", "tokens"), BY_MODEL)
def test_a_loop_that_gains_is_told_nothing(entry: Entry, samples: int, tokens: int) -> None:
    messages, session = told(captured(entry, samples, tokens))
    assert session.rows_ratio < 0.85
    assert session.streams == 1
    assert all(entry.told and entry.told in own for own in messages), messages
    assert len(messages) == bool(entry.told)


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
def test_a_model_without_attention_is_refused_by_name(refused: Refused) -> None:
    args, kwargs = refused.arguments(3, 16, torch.Generator().manual_seed(0))
    with pytest.raises(marche_fx.UnsupportedModelError) as error:
        marche_fx.explain(drawn_anew(refused.build()), *args, **kwargs)
    for said in refused.says:
        assert re.search(said, str(error.value)), str(error.value)
