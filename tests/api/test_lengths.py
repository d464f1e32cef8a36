"""A step that is called with texts of many lengths is traced for two of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx.api.lengths import Lengths
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.lower.kept import KEPT
from tests.around import EAGER, optimize
from tests.lengths import LENGTHS, Around, Counted, Doubled, text_model, words
from tests.networks import small_mar


def lengths_of(optimized: nn.Module) -> Lengths:
    return optimization_of(optimized).steps["forward"].captures.lengths


@torch.no_grad()
def test_ten_lengths_are_two_traces_and_give_what_the_original_does() -> None:
    model = text_model(depth=2)
    optimized = optimize(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for length in LENGTHS * 2:
            ids = words(length)
            with marche_fx.decoding(optimized):
                for place in range(3):
                    ids[:, place] = 0
                    assert torch.equal(optimized(ids), model(ids))
    assert (lengths_of(optimized).traces, lengths_of(optimized).instances) == (2, len(LENGTHS) - 1)
    told = str(marche_fx.report(optimized))
    assert "forward: traced 2 times, and 9 captures made without a trace" in told
    assert "without a trace)" in told


@torch.no_grad()
def test_rows_are_cached_at_every_length() -> None:
    model = text_model(depth=2)
    optimized = optimize(model, EAGER)
    for length in (12, 17, 24):
        ids = words(length)
        with marche_fx.decoding(optimized):
            optimized(ids)[:, -1].clone()
            ids[:, 2] = 0
            optimized(ids)[:, 2].clone()
        session = optimization_of(optimized).last_session
        assert session is not None
        assert [record.active for record in session.records] == [length, 8]


@torch.no_grad()
def test_samples_may_differ_too() -> None:
    model = text_model()
    optimized = optimize(model)
    for length, samples in ((12, 2), (17, 3), (9, 4), (20, 2)):
        with marche_fx.decoding(optimized):
            assert torch.equal(optimized(words(length, samples)), model(words(length, samples)))
    assert lengths_of(optimized).traces == 2


@torch.no_grad()
def test_each_way_of_a_branch_on_the_length_is_captured_on_its_own() -> None:
    model = Doubled().eval()
    optimized = optimize(model)
    for length in (20, 30, 12, 25, 16):
        with marche_fx.decoding(optimized):
            assert torch.equal(optimized(words(length)), model(words(length)))
    assert (lengths_of(optimized).traces, lengths_of(optimized).instances) == (3, 3)


@torch.no_grad()
def test_why_lengths_are_captured_one_by_one_is_told_once() -> None:
    model = Counted().eval()
    optimized = optimize(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, length in enumerate(LENGTHS[:4]):
            with marche_fx.decoding(optimized):
                assert torch.equal(optimized(words(length)), model(words(length)))
            assert any("captured anew" in str(own.message) for own in caught) == (number > 1)
    (told,) = [str(own.message) for own in caught if "captured anew" in str(own.message)]
    assert "fixes the size 17 of an argument (lengths.py:" in told
    # The second length is traced twice, and then nothing is tried again.
    assert (lengths_of(optimized).traces, lengths_of(optimized).instances) == (5, 0)
    assert "since Counted.forward fixes" in str(marche_fx.report(optimized)).replace("\n", " ")


@torch.no_grad()
def test_a_changed_model_is_captured_for_any_length_again() -> None:
    model = Doubled().eval()
    optimized = optimize(model)
    for factor in (1.0, 2.0):
        # Shared by both.
        model.text.norm.eps = factor
        for length in (20, 30, 25):
            with marche_fx.decoding(optimized):
                assert torch.equal(optimized(words(length)), model(words(length)))
    assert lengths_of(optimized).traces == 4


@torch.no_grad()
def test_captures_made_without_a_trace_are_saved_like_others(tmp_path: Path) -> None:
    model = text_model()
    optimized = optimize(model)
    for length in LENGTHS[:3]:
        with marche_fx.decoding(optimized):
            optimized(words(length)).clone()
    marche_fx.save_captures(optimized, tmp_path / "steps")
    again = optimize(model)
    assert marche_fx.load_captures(again, tmp_path / "steps")
    for length in LENGTHS[:3]:
        with marche_fx.decoding(again):
            assert torch.equal(again(words(length)), model(words(length)))
    assert (lengths_of(again).traces, lengths_of(again).instances) == (0, 0)
    for length in LENGTHS[3:5]:
        with marche_fx.decoding(again):
            assert torch.equal(again(words(length)), model(words(length)))
    assert (lengths_of(again).traces, lengths_of(again).instances) == (0, 2)
    marche_fx.save_captures(again, tmp_path / "steps")
    third = optimize(model)
    assert marche_fx.load_captures(third, tmp_path / "steps")
    with marche_fx.decoding(third):
        assert torch.equal(third(words(LENGTHS[5])), model(words(LENGTHS[5])))
    assert (lengths_of(third).traces, lengths_of(third).instances) == (0, 1)


class Scaled(Around):
    """Reads a number beside the model."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.text(ids) * SCALE[0]


SCALE = [2.0]


@torch.no_grad()
def test_a_saved_capture_of_many_lengths_holds_for_what_it_was_made_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scaled().eval()
    optimized = optimize(model)
    for length in LENGTHS[:2]:
        with marche_fx.decoding(optimized):
            optimized(words(length)).clone()
    marche_fx.save_captures(optimized, tmp_path / "steps")
    monkeypatch.setitem(globals(), "SCALE", [3.0])
    again = optimize(model)
    assert marche_fx.load_captures(again, tmp_path / "steps")
    with pytest.warns(UserWarning, match=r"a saved capture of \w+\.forward is not used"), marche_fx.decoding(again):
        assert torch.equal(again(words(LENGTHS[2])), model(words(LENGTHS[2])))
    assert (lengths_of(again).traces, lengths_of(again).instances) == (1, 0)


@torch.no_grad()
def test_a_saved_capture_of_many_lengths_keeps_what_it_was_decided_by(tmp_path: Path) -> None:
    model = Doubled().eval()
    optimized = optimize(model)
    for length in (20, 30):
        with marche_fx.decoding(optimized):
            optimized(words(length)).clone()
    marche_fx.save_captures(optimized, tmp_path / "steps")
    again = optimize(model)
    assert marche_fx.load_captures(again, tmp_path / "steps")
    for length in (12, 25):
        with marche_fx.decoding(again):
            assert torch.equal(again(words(length)), model(words(length)))
    assert (lengths_of(again).traces, lengths_of(again).instances) == (1, 1)


@torch.no_grad()
def test_a_step_that_drops_tokens_is_traced_once_for_each_length() -> None:
    mar = small_mar(side=4, buffer=2).eval()
    optimized = marche_fx.transform(mar, compile=False)
    for samples in (2, 3, 4):
        masks = torch.zeros(samples, 16)
        masks[:, :4] = 1
        with marche_fx.decoding(optimized):
            optimized.forward_mae_encoder(torch.randn(samples, 16, 4), masks, torch.ones(samples, 16))
    found = optimization_of(optimized).steps["forward_mae_encoder"].captures.lengths
    assert (found.traces, found.instances) == (3, 0)
    assert "depends on values" in found.reason


@pytest.mark.slow
@torch.no_grad()
def test_all_lengths_after_the_first_are_one_compilation() -> None:
    model = text_model()
    optimized = marche_fx.transform(model, refresh=EAGER)
    KEPT.forget()
    before = KEPT.count
    compiled = []
    for length in (12, 17, 24, 9):
        ids = words(length)
        with marche_fx.decoding(optimized):
            assert torch.allclose(optimized(ids).clone(), model(ids), atol=1e-5)
            for count in (2, 5):
                ids[:, :count] = 0
                assert torch.isfinite(optimized(ids)[:, :count].clone()).all()
        compiled.append(KEPT.count - before)
    assert compiled == [2, 4, 4, 4]


@pytest.mark.slow
@torch.no_grad()
def test_more_samples_run_compiled_after_fewer_in_a_mar() -> None:
    """Of some tensors between layers nothing tells that their first size is that of the samples."""
    torch.manual_seed(0)
    mar = small_mar().eval()
    optimized = marche_fx.transform(mar, refresh="exact")
    orders = mar.sample_orders(5)
    noise = torch.randn(5, mar.seq_len, len(mar.diffloss.gen_diffusion), mar.token_embed_dim)
    for cfg in (1.0, 2.0):
        images = [own.sample_tokens(5, 3, cfg, orders=orders, noise=noise) for own in (mar, optimized)]
        torch.testing.assert_close(images[1], images[0], atol=1e-3, rtol=0.0)
