"""The examples run."""

from __future__ import annotations

import pytest

from examples import custom_policy, mar, own_loop


def test_mar_prints_images_and_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    mar.main(steps=6, samples=1)
    printed = capsys.readouterr().out
    assert "torch.Size([1, 1, 28, 28])" in printed
    assert "decoder_blocks.3.attn" in printed


def test_own_loop_fills_every_mask(capsys: pytest.CaptureFixture[str]) -> None:
    own_loop.main()
    assert "SessionReport" in capsys.readouterr().out


def test_custom_policy_computes_fewer_rows(capsys: pytest.CaptureFixture[str]) -> None:
    custom_policy.main(steps=6)
    assert "forward_mae_decoder" in capsys.readouterr().out
