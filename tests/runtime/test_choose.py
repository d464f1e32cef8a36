"""Which tokens a step computes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marche_fx.refresh import Refresh
from marche_fx.runtime.choose import BUCKET, MOST, Active, choose_streams, highest


def choose_active(must: Tensor, visible: Tensor | None, refresh: Refresh) -> Active:
    """The choice for one stream of tokens."""
    return choose_streams(must, visible, refresh, [must.shape[1]]).streams[0]


def test_changed_tokens_come_first_then_the_highest_priority() -> None:
    must = torch.zeros(2, 30, dtype=torch.bool)
    must[0, [4, 9]] = True
    must[1, 17] = True
    priority = torch.arange(30.0).expand(2, 30)
    active = choose_active(must, None, Refresh(2, priority))
    # Two changed tokens and two refreshed ones make a bucket of eight; priority fills it up.
    assert active.positions.tolist() == [[4, 9, 24, 25, 26, 27, 28, 29], [17, 23, 24, 25, 26, 27, 28, 29]]
    assert not active.complete
    assert active.visible == 30


@given(st.data())
def test_room_for_the_observed_tokens_is_as_little_as_holds_them(data: st.DataObject) -> None:
    samples, tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 60))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    must = torch.rand(samples, tokens, generator=generator) < 0.4
    queried = must & (torch.rand(samples, tokens, generator=generator) < data.draw(st.sampled_from([0.0, 0.2, 1.0])))
    visible = None
    if data.draw(st.booleans()):
        visible = torch.rand(samples, tokens, generator=generator) < 0.7
        visible[:, 0] = True
    count = data.draw(st.sampled_from([0, tokens]))
    active = choose_streams(must, visible, Refresh(count), [tokens], (), queried).streams[0]
    counts = (queried if visible is None else queried & visible).sum(1)
    most = int(counts.max())
    if most == 0:
        assert active.queried == active.count
    else:
        assert most <= active.queried < most + BUCKET
    assert choose_streams(must, visible, Refresh(count), [tokens]).streams[0].queried == min(BUCKET, active.count)


@given(st.data())
def test_every_choice_keeps_its_promises(data: st.DataObject) -> None:
    samples, tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 60))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    must = torch.rand(samples, tokens, generator=generator) < data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    visible = None
    if data.draw(st.booleans()):
        visible = torch.rand(samples, tokens, generator=generator) < data.draw(st.sampled_from([0.3, 0.7]))
        visible[:, 0] = True
    refresh = Refresh(data.draw(st.integers(0, tokens)), torch.rand(samples, tokens, generator=generator))
    active = choose_active(must, visible, refresh)
    positions = active.positions
    chosen = torch.zeros(samples, tokens, dtype=torch.bool).scatter(1, positions, True)
    shown = torch.ones_like(must) if visible is None else visible
    assert (positions.diff(dim=1) > 0).all(), "ascending, none twice"
    assert (chosen | ~(must & shown)).all(), "what must run runs"
    assert active.visible == int(shown.sum(1).max())
    assert active.count <= active.visible
    assert active.count % BUCKET == 0 or active.count == active.visible
    assert active.complete == (active.count == active.visible)
    assert active.queried <= active.count
    if active.complete:
        assert (chosen | ~shown).all()
    else:
        assert active.count <= MOST * active.visible
        assert active.count < int((must & shown).sum(1).max()) + refresh.count + BUCKET
        # No token left out has a higher priority than a visible one chosen for its priority.
        assert refresh.priority is not None
        for sample in range(samples):
            left = refresh.priority[sample][shown[sample] & ~chosen[sample]]
            taken = refresh.priority[sample][chosen[sample] & shown[sample] & ~must[sample]]
            assert not len(left) or not len(taken) or left.max() <= taken.min()


def test_invisible_tokens_fill_up_only_samples_with_too_few() -> None:
    visible = torch.zeros(2, 6, dtype=torch.bool)
    visible[0, [1, 3, 5]] = True
    visible[1, 2] = True
    active = choose_active(torch.ones(2, 6, dtype=torch.bool), visible, Refresh(6))
    assert active.positions.tolist() == [[1, 3, 5], [0, 1, 2]]
    assert active.complete


def test_nothing_to_do_still_gives_one_bucket() -> None:
    active = choose_active(torch.zeros(1, 40, dtype=torch.bool), None, Refresh(0))
    assert active.count == BUCKET


@given(st.data())
def test_the_refresh_set_of_a_bounded_step_is_the_one_that_was_foretold(data: st.DataObject) -> None:
    """Those that are read and left out were chosen by it; priorities are often equal."""
    samples, tokens, count = data.draw(st.integers(1, 4)), data.draw(st.integers(20, 60)), data.draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    must = torch.rand(samples, tokens, generator=generator) < 0.2
    priority = torch.randint(data.draw(st.integers(1, 4)), (samples, tokens), generator=generator).float()
    active = choose_active(must, None, Refresh(count, priority, queried=1))
    computed = torch.zeros_like(must).scatter(1, active.positions, True)
    assert computed[highest(priority, ~must, count)].all()
    assert computed[must].all()
