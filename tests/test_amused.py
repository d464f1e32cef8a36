"""A client that nobody here wrote: the text-to-image pipeline of diffusers, its loop untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import FullRefresh, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.records import StepRecord

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

STEPS, TOKENS, MASK = 6, 36, 31


def make_tokenizer(folder: Path) -> Any:
    """One token for each letter, at the end of a word and before."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=9)


@pytest.fixture
def pipeline(tmp_path: Path) -> Any:
    """aMUSEd of random weights, for images of 12 x 12 pixels and 6 x 6 tokens inside."""
    torch.manual_seed(0)
    transformer = diffusers.UVit2DModel(
        hidden_size=16,
        cond_embed_dim=16,
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
        encoder_hidden_size=16,
        vocab_size=MASK + 1,
        codebook_size=24,
        in_channels=16,
        block_out_channels=16,
        num_res_blocks=1,
        downsample=True,
        upsample=True,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        sample_size=12,
    )
    vqvae = diffusers.VQModel(
        block_out_channels=[8],
        latent_channels=8,
        norm_num_groups=4,
        num_vq_embeddings=24,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    text = transformers.CLIPTextConfig(
        vocab_size=54,
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        max_position_embeddings=9,
    )
    made = diffusers.AmusedPipeline(
        vqvae.eval(),
        make_tokenizer(tmp_path),
        transformers.CLIPTextModelWithProjection(text).eval(),
        transformer.eval(),
        diffusers.AmusedScheduler(mask_token_id=MASK),
    )
    made.set_progress_bar_config(disable=True)
    return made


def generate(pipeline: Any, **options: Any) -> Tensor:
    """Image tokens ``[1, 12, 12]``."""
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": STEPS, "generator": generator, "output_type": "latent", **options}
    return pipeline("a red cat", return_dict=False, **options)[0]


def records(transformer: nn.Module) -> list[StepRecord]:
    session = optimization_of(transformer).last_session
    assert session is not None
    return session.records


@pytest.mark.parametrize("guidance", [1.0, 10.0])
def test_full_refresh_generates_the_tokens_of_the_original(pipeline: Any, guidance: float) -> None:
    expected = generate(pipeline, guidance_scale=guidance)
    pipeline.transformer = marche_fx.transform(pipeline.transformer, refresh=FullRefresh(), compile=False)
    with marche_fx.decoding(pipeline.transformer):
        found = generate(pipeline, guidance_scale=guidance)
    assert torch.equal(found, expected)
    assert [record.active for record in records(pipeline.transformer)] == [TOKENS] * STEPS


def test_partial_refresh_computes_fewer_rows(pipeline: Any) -> None:
    original, expected = pipeline.transformer, generate(pipeline)
    pipeline.transformer = marche_fx.transform(
        original, refresh=SelectiveRefresh(0.1, warmup=1, tolerance=0.3), compile=False
    )
    with marche_fx.decoding(pipeline.transformer):
        found = generate(pipeline)
    computed = records(pipeline.transformer)
    assert computed[0].active == TOKENS
    assert sum(record.rows for record in computed) < 0.9 * sum(record.original_rows for record in computed)
    assert (found == expected).float().mean() > 0.5
    # Sessions do not meet.
    with marche_fx.decoding(pipeline.transformer):
        assert torch.equal(generate(pipeline), found)


def test_the_pipeline_finds_in_the_transformed_model_what_it_looks_for(pipeline: Any, tmp_path: Path) -> None:
    original = pipeline.transformer
    pipeline.transformer = marche_fx.transform(original, refresh=FullRefresh(), compile=False)
    transformer = pipeline.transformer
    assert isinstance(transformer, diffusers.UVit2DModel)
    assert pipeline.components["transformer"] is transformer
    assert transformer.config is original.config
    pipeline.to(torch.float64)
    assert (transformer.dtype, transformer.device) == (torch.float64, torch.device("cpu"))
    with marche_fx.decoding(transformer):
        found = generate(pipeline, output_type="np")
    assert found.shape == (1, 12, 12, 3)
    transformer.save_pretrained(tmp_path / "saved")
    loaded = diffusers.UVit2DModel.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), original.parameters(), strict=True))


def test_another_attention_processor_is_captured_again(pipeline: Any) -> None:
    pipeline.transformer = marche_fx.transform(pipeline.transformer, refresh=FullRefresh(), compile=False)
    transformer = pipeline.transformer
    expected = generate(pipeline)
    pipeline.transformer.set_default_attn_processor()
    with marche_fx.decoding(transformer):
        assert torch.equal(generate(pipeline), expected)
    (program,) = optimization_of(transformer).steps["forward"].programs
    assert any(site.weights is not None for site in program.plan.sites), "attention is written out now"
