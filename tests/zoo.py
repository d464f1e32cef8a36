"""Models that nobody here wrote, small and with random weights; ``python -m tests.zoo`` prints a row for each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor, nn
from torch.utils import _pytree as pytree
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaDecoderModel

import marche_fx
from marche_fx import runtime
from marche_fx.ops import join_positions
from marche_fx.report import SiteReport, StepReport, step_report
from marche_fx.transform import optimization_of
from tests.oracle import Oracle
from tests.program import Program

# What their type hints say of constructors and base classes does not hold.
diffusers: Any = import_module("diffusers")
transformers: Any = import_module("transformers")
x_transformers: Any = import_module("x_transformers")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

VOCABULARY = 31
WIDTH = 16
TEXT = (11, WIDTH)
"""Sequence lengths: one is the width, one is not."""


@dataclass(frozen=True)
class Entry:
    """A model and what reading its code says about it.

    Attributes:
        arguments: for ``(samples, tokens, generator)`` a step's arguments, all of them new.
        attention, mlps: sites on the token axis, all of which must be claimed.
        apart: module paths, with wildcards, of further sites, which are not on the token axis, and why not.
        full: operators that must run on all tokens. tokens: lengths of the arguments that the model takes.
        share: what a step with one active token may take of the FLOPs of one with all.
        tolerance: relative; float32 inside a model that was converted to float64 is the reason for a larger one.
    """

    name: str
    build: Callable[[], nn.Module]
    arguments: Callable[[int, int, Generator], Arguments]
    attention: int
    mlps: int
    apart: dict[str, str] = field(default_factory=dict, hash=False)
    full: tuple[str, ...] = ()
    tokens: tuple[int, ...] = TEXT
    share: float = 0.2
    tolerance: float = 1e-10


# ------------------------------------------------------------------------------------------------------ arguments


def floats(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def ids(samples: int, tokens: int, generator: Generator, count: int = VOCABULARY) -> Tensor:
    return torch.randint(count, (samples, tokens), generator=generator)


def padding(samples: int, tokens: int, generator: Generator) -> Tensor:
    """Bool ``[B, N]``, which tokens are no padding; the first is none."""
    return torch.rand(samples, tokens, generator=generator) > torch.linspace(0, 0.8, tokens)


def text(samples: int, tokens: int, generator: Generator) -> Arguments:
    mask = padding(samples, tokens, generator).long()
    return (), {"input_ids": ids(samples, tokens, generator), "attention_mask": mask}


def uncached_text(samples: int, tokens: int, generator: Generator) -> Arguments:
    args, kwargs = text(samples, tokens, generator)
    return args, kwargs | {"use_cache": False}


def text_with_square_mask(samples: int, tokens: int, generator: Generator) -> Arguments:
    mask = padding(samples, tokens, generator)[:, None, None, :].expand(-1, 1, tokens, -1)
    return (), {"input_ids": ids(samples, tokens, generator), "attention_mask": mask, "use_cache": False}


def plain_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (ids(samples, tokens, generator),), {}


def padded_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (ids(samples, tokens, generator), ~padding(samples, tokens, generator)), {}


def embedded(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (floats(samples, tokens, WIDTH, generator=generator),), {}


def kept_patches(samples: int, tokens: int, generator: Generator) -> Arguments:
    """Embeddings of a class token and half of the patches, and the order that restores all of them."""
    kept = floats(samples, 1 + tokens // 2, WIDTH, generator=generator)
    return (), {"hidden_states": kept, "ids_restore": torch.rand(samples, tokens, generator=generator).argsort(-1)}


def canvas(samples: int, tokens: int, generator: Generator) -> Arguments:
    """Ids of a block of text, its logits of the step before, keys and values of what stands before it."""
    prompt = [floats(samples, 1, 5, 8, generator=generator) for _ in range(4)]
    return (ids(samples, tokens, generator), floats(samples, tokens, VOCABULARY, generator=generator), *prompt), {}


def image_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    side = round(tokens**0.5)
    return (), {
        "input_ids": ids(samples, tokens, generator, 17).view(samples, side, side),
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "pooled_text_emb": floats(samples, 8, generator=generator),
        "micro_conds": floats(samples, 5, generator=generator),
    }


def latents(samples: int, tokens: int, generator: Generator) -> dict[str, Tensor]:
    """An image of ``tokens`` patches of two by two, and a timestep."""
    side = 2 * round(tokens**0.5)
    return {
        "hidden_states": floats(samples, 4, side, side, generator=generator),
        "timestep": torch.randint(10, (samples,), generator=generator),
    }


def labelled_latents(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (), latents(samples, tokens, generator) | {
        "class_labels": torch.randint(10, (samples,), generator=generator)
    }


def captioned_latents(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (), latents(samples, tokens, generator) | {
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "encoder_attention_mask": padding(samples, 5, generator).double(),
    }


def pooled_latents(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (), latents(samples, tokens, generator) | {
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "pooled_projections": floats(samples, 8, generator=generator),
    }


def captioned_image_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    """The timestep has no samples: `AdaLayerNorm` cuts its first dimension in two."""
    return (), {
        "hidden_states": ids(samples, tokens, generator, 9),
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "timestep": torch.randint(10, (), generator=generator),
    }


def image(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (floats(samples, 3, tokens, tokens, generator=generator),), {}


# --------------------------------------------------------------------------------------------------------- models


def language_model(model_class: Any, **options: Any) -> Callable[[], nn.Module]:
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 64,
    }
    return lambda: model_class(model_class.config_class(**{**sizes, **options}))


def grouped_queries(model_class: Any, **options: Any) -> Callable[[], nn.Module]:
    return language_model(model_class, num_attention_heads=4, num_key_value_heads=2, head_dim=4, **options)


def bart_encoder() -> nn.Module:
    config = transformers.BartConfig(
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
    )
    return transformers.BartModel(config).encoder


def t5_encoder() -> nn.Module:
    config = transformers.T5Config(
        d_model=WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        vocab_size=VOCABULARY,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
    )
    return transformers.T5EncoderModel(config)


def vit_mae_decoder() -> nn.Module:
    config = transformers.ViTMAEConfig(
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        decoder_hidden_size=WIDTH,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    return transformers.ViTMAEForPreTraining(config).decoder


class BlockDiffusion(nn.Module):
    """The step of DiffusionGemma's loop on tensors: a block of text reads itself and what stands before it."""

    def __init__(self) -> None:
        super().__init__()
        text_config = transformers.DiffusionGemmaTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            layer_types=["sliding_attention", "full_attention"],
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            global_head_dim=8,
            num_global_key_value_heads=1,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=8,
        )
        config = transformers.DiffusionGemmaConfig(text_config=text_config, attn_implementation="sdpa")
        # The loop over the experts that were hit is no function of tensors.
        config.text_config._experts_implementation = "batched_mm"
        self.decoder = DiffusionGemmaDecoderModel(config)

    def forward(self, ids: Tensor, logits: Tensor, *prompt: Tensor) -> Tensor:
        cached = transformers.DynamicCache([(prompt[0], prompt[1]), (prompt[2], prompt[3])])
        return self.decoder(ids, cache=cached, self_conditioning_logits=logits).last_hidden_state


def uvit(resample: bool) -> Callable[[], nn.Module]:
    return lambda: diffusers.UVit2DModel(
        hidden_size=WIDTH,
        hidden_dropout=0.0,
        cond_embed_dim=8,
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
        encoder_hidden_size=8,
        vocab_size=17,
        codebook_size=16,
        in_channels=WIDTH,
        block_out_channels=WIDTH,
        num_res_blocks=1,
        downsample=resample,
        upsample=resample,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.0,
        intermediate_size=32,
    )


PATCHES = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
}


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(**PATCHES, out_channels=4, num_embeds_ada_norm=10)


def pixart() -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        **PATCHES, out_channels=8, cross_attention_dim=WIDTH, caption_channels=8, use_additional_conditions=False
    )


def sd3() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        **PATCHES,
        joint_attention_dim=8,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=8,
        out_channels=4,
        pos_embed_max_size=8,
    )


def vq_diffusion() -> nn.Module:
    return diffusers.Transformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        sample_size=4,
        num_vector_embeds=9,
        num_embeds_ada_norm=10,
        norm_type="ada_norm",
        cross_attention_dim=8,
        activation_fn="geglu-approximate",
        attention_bias=True,
    )


def x_encoder(**options: Any) -> Callable[[], nn.Module]:
    return lambda: x_transformers.TransformerWrapper(
        num_tokens=VOCABULARY,
        max_seq_len=64,
        attn_layers=x_transformers.Encoder(dim=WIDTH, depth=2, heads=2, attn_dim_head=8, **options),
    )


class TorchEncoder(nn.Module):
    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.encoder(self.embedding(ids), src_key_padding_mask=padding)


class TorchAttention(nn.Module):
    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, WIDTH)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        mixed, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return (self.head(x + mixed), weights) if self.need_weights else self.head(x + mixed)


GRID = "stands among convolutions over the grid"

# A head that predicts tokens (linear, activation, norm, linear) is an MLP, too.
ENTRIES = (
    Entry("BERT", language_model(transformers.BertForMaskedLM), text, 2, 3),
    Entry("BERT eager", language_model(transformers.BertForMaskedLM, attn_implementation="eager"), text, 2, 3),
    # Positions are counted from the ids that are no padding.
    Entry("RoBERTa", language_model(transformers.RobertaForMaskedLM), text, 2, 3),
    Entry("XLM-R", language_model(transformers.XLMRobertaForMaskedLM), text, 2, 3),
    Entry("MPNet", language_model(transformers.MPNetForMaskedLM), text, 2, 3),
    Entry("ELECTRA", language_model(transformers.ElectraForMaskedLM, embedding_size=WIDTH), text, 2, 3),
    Entry(
        "ELECTRA eager",
        language_model(transformers.ElectraForMaskedLM, embedding_size=8, attn_implementation="eager"),
        text,
        2,
        3,
    ),
    # The padding mask also zeroes embeddings, so it enters with the rows, and the mask of all keys is made inside.
    Entry(
        "ESM",
        language_model(
            transformers.EsmForMaskedLM,
            position_embedding_type="rotary",
            pad_token_id=1,
            mask_token_id=2,
            token_dropout=False,
        ),
        text,
        2,
        3,
    ),
    Entry(
        "ModernBERT",
        language_model(
            transformers.ModernBertForMaskedLM,
            num_hidden_layers=3,
            global_attn_every_n_layers=3,
            local_attention=4,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        ),
        text,
        3,
        4,
    ),
    Entry(
        "DeBERTa-v2",
        language_model(
            transformers.DebertaV2ForMaskedLM,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            position_biased_input=False,
        ),
        text,
        2,
        3,
    ),
    Entry("ALBERT", language_model(transformers.AlbertForMaskedLM, embedding_size=8), text, 2, 3),
    Entry(
        "DistilBERT",
        language_model(transformers.DistilBertForMaskedLM, dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=32),
        text,
        2,
        3,
    ),
    Entry("BART encoder", bart_encoder, text, 2, 2),
    Entry("T5 encoder", t5_encoder, text, 2, 2),
    Entry("ViT-MAE decoder", vit_mae_decoder, kept_patches, 2, 2, tokens=(16,)),
    Entry("Llama, not causal", grouped_queries(transformers.LlamaForCausalLM, is_causal=False), uncached_text, 2, 2),
    Entry("Llama, square mask", grouped_queries(transformers.LlamaForCausalLM), text_with_square_mask, 2, 2),
    Entry("Qwen2, not causal", grouped_queries(transformers.Qwen2ForCausalLM, is_causal=False), uncached_text, 2, 2),
    Entry("Qwen3, not causal", grouped_queries(transformers.Qwen3ForCausalLM, is_causal=False), uncached_text, 2, 2),
    # The third MLP embeds the logits of the step before; experts are products of gathered weights and no linears.
    Entry("DiffusionGemma decoder", BlockDiffusion, canvas, 2, 3, tolerance=1e-6),
    # Its RMSNorm takes means in float32.
    Entry(
        "aMUSEd",
        uvit(resample=False),
        image_ids,
        8,
        2,
        full=("aten.convolution", "aten.add"),
        tokens=(16,),
        share=0.75,
        tolerance=1e-6,
    ),
    Entry(
        "aMUSEd, resampled",
        uvit(resample=True),
        image_ids,
        8,
        2,
        full=("aten.convolution", "aten.add"),
        tokens=(64,),
        share=0.85,
        tolerance=1e-6,
    ),
    Entry(
        "DiT",
        dit,
        labelled_latents,
        2,
        2,
        tokens=(16,),
        share=0.4,
    ),
    Entry(
        "PixArt",
        pixart,
        captioned_latents,
        4,
        2,
        apart={"caption_projection.*": "embeds the caption"},
        tokens=(16,),
        share=0.4,
    ),
    Entry(
        "SD3",
        sd3,
        pooled_latents,
        2,
        3,
        tokens=(16,),
        share=0.4,
    ),
    # Its results are converted to float32.
    Entry("VQ-Diffusion", vq_diffusion, captioned_image_ids, 4, 2, tokens=(16,), share=0.4, tolerance=1e-6),
    Entry("x-transformers rotary", x_encoder(rotary_pos_emb=True), plain_ids, 2, 2),
    Entry("x-transformers alibi", x_encoder(alibi_pos_bias=True, alibi_num_heads=2), plain_ids, 2, 2),
    Entry("x-transformers relative", x_encoder(rel_pos_bias=True), plain_ids, 2, 2),
    Entry("x-transformers gated, RMS", x_encoder(ff_glu=True, use_rmsnorm=True), plain_ids, 2, 2),
    Entry("x-transformers flash", x_encoder(attn_flash=True), plain_ids, 2, 2),
    Entry("x-transformers flash rotary", x_encoder(attn_flash=True, rotary_pos_emb=True), plain_ids, 2, 2),
    Entry("x-transformers QK norm", x_encoder(attn_qk_norm=True), plain_ids, 2, 2),
    Entry("nn.TransformerEncoder", lambda: TorchEncoder(norm_first=False), plain_ids, 2, 2),
    Entry("nn.TransformerEncoder padded", lambda: TorchEncoder(norm_first=False), padded_ids, 2, 2),
    Entry("nn.TransformerEncoder pre-norm, padded", lambda: TorchEncoder(norm_first=True), padded_ids, 2, 2),
    Entry("nn.MultiheadAttention", lambda: TorchAttention(need_weights=False), embedded, 1, 0),
    Entry("nn.MultiheadAttention, weights", lambda: TorchAttention(need_weights=True), embedded, 1, 0, share=0.3),
)


def mamba() -> nn.Module:
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(hidden_size=WIDTH, num_hidden_layers=2, vocab_size=VOCABULARY, state_size=4)
    )


def convnext() -> nn.Module:
    return transformers.ConvNextModel(
        transformers.ConvNextConfig(num_channels=3, hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, patch_size=2)
    )


@dataclass(frozen=True)
class Refused:
    """A model without attention, and what a useful message says: operator, module and source line (a pattern)."""

    name: str
    build: Callable[[], nn.Module]
    arguments: Callable[[int, int, Generator], Arguments]
    says: tuple[str, ...]


def uncached_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (ids(samples, tokens, generator),), {"use_cache": False}


REFUSED = (
    Refused(
        "Mamba",
        mamba,
        uncached_ids,
        (r"aten\.convolution", r"backbone\.layers\.0\.mixer", r"modeling_mamba\.py:\d+"),
    ),
    Refused(
        "ConvNext",
        convnext,
        image,
        (r"aten\.convolution", r"(embeddings|encoder)\.[\w.]+", r"modeling_convnext\.py:\d+"),
    ),
)


def drawn_anew(model: nn.Module) -> nn.Module:
    """``model`` in float64 with weights large enough that a token tells on the others, gates included."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.double().eval().requires_grad_(False).parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.copy_(0.3 * noise if weight.ndim > 1 else weight + 0.1 * noise)
    return model


# ------------------------------------------------------------------------------------------------------- captures


class Captured:
    """An entry's model, its transformed twin, and its step rewritten, for arguments of one size."""

    def __init__(self, entry: Entry, samples: int, tokens: int) -> None:
        self.entry = entry
        self.samples = samples
        self.tokens = tokens
        torch.manual_seed(0)
        self.model = drawn_anew(entry.build())
        args, kwargs = self.arguments(torch.Generator().manual_seed(0))
        start = time.perf_counter()
        self.program = Program(self.model, "forward", args, kwargs)
        self.seconds = time.perf_counter() - start
        self.optimized = marche_fx.transform(self.model, refresh=marche_fx.FullRefresh(), compile=False, verify=False)
        # Capturing takes most of the time, so both run on one plan.
        planned = runtime.Program(self.program.plan, self.model, signals=(), compile=False)
        optimization_of(self.optimized).steps["forward"].programs.append(planned)

    def arguments(self, generator: Generator) -> Arguments:
        return self.entry.arguments(self.samples, self.tokens, generator)

    def step(self, arguments: Arguments, active: Sequence[Tensor]) -> list[Any]:
        """With the tokens ``active [B, A]`` of each stream."""
        return self.program.step(tensors(arguments), *active)

    def exact(self, arguments: Arguments) -> list[Any]:
        args, kwargs = arguments
        return pytree.tree_leaves(self.model(*args, **kwargs))

    def oracle(self) -> Oracle:
        return self.program.oracle()

    def every(self) -> list[Tensor]:
        """All positions of each stream ``[B, N]``."""
        return [torch.arange(length).expand(self.program.plan.samples, -1) for length in self.lengths]

    def some(self, chosen: slice) -> list[Tensor]:
        return [positions[:, chosen] for positions in self.every()]

    @property
    def lengths(self) -> tuple[int, ...]:
        return self.program.plan.axes.lengths

    @property
    def report(self) -> StepReport:
        return step_report(self.program.plan, self.program.split)


@cache
def captured(entry: Entry, samples: int, tokens: int) -> Captured:
    return Captured(entry, samples, tokens)


def tensors(arguments: Arguments) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]


def is_claimed(site: SiteReport) -> bool:
    return site.claimed


def apart(entry: Entry, site: SiteReport) -> bool:
    return any(fnmatch(site.path, pattern) for pattern in entry.apart)


def full_operators(report: StepReport) -> set[str]:
    return {own.operator for own in report.in_full}


def relative_error(found: Sequence[Any], expected: Sequence[Any]) -> float:
    """The largest difference over the largest value, of the worst result; infinite where kinds or shapes differ."""
    worst = 0.0
    for own, other in zip(found, expected, strict=True):
        if not isinstance(other, Tensor):
            assert own == other
            continue
        if own.shape != other.shape or own.dtype != other.dtype:
            return float("inf")
        error = (own.double() - other.double()).abs().max() / other.double().abs().max()
        worst = max(worst, float(error.nan_to_num(nan=float("inf"))))
    return worst


# ------------------------------------------------------------------------------------------------------- sequences


@torch.no_grad()
def error_at_full_refresh(own: Captured) -> float:
    """Of the transformed model in one generation, every step with new arguments."""
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    with marche_fx.decoding(own.optimized):
        for _ in range(3):
            args, kwargs = arguments = own.arguments(generator)
            found = pytree.tree_map_only(Tensor, torch.clone, own.optimized(*args, **kwargs))
            worst = max(worst, relative_error(pytree.tree_leaves(found), own.exact(arguments)))
    return worst


def active_sets(samples: int, lengths: Sequence[int], generator: Generator) -> Iterator[list[Tensor]]:
    """Of one generation, ``[B, A]`` for each stream: all rows, others in each sample, one row, the same, all rows."""
    orders = [torch.rand(samples, length, generator=generator).argsort(-1) for length in lengths]
    for chosen in (slice(None), slice(3), slice(-1, None), slice(-1, None), slice(2, 7), slice(None)):
        yield [order[:, chosen] for order in orders]


@torch.no_grad()
def errors_against_oracle(own: Captured) -> tuple[float, float]:
    """Of a generation with new arguments in every step; and against the original where all rows are active."""
    own.program.reset()
    oracle, generator = own.oracle(), torch.Generator().manual_seed(2)
    worst = at_all_rows = 0.0
    for active in active_sets(own.program.plan.samples, own.lengths, generator):
        arguments = own.arguments(generator)
        found = own.step(arguments, active)
        expected = oracle.step(tensors(arguments), join_positions(active, own.lengths))
        worst = max(worst, relative_error(found, expected))
        if all(positions.shape[1] == length for positions, length in zip(active, own.lengths)):
            at_all_rows = max(at_all_rows, relative_error(found, own.exact(arguments)))
    return worst, at_all_rows


# ----------------------------------------------------------------------------------------------------------- table


def row(entry: Entry) -> list[str]:
    own = captured(entry, 3, entry.tokens[0])
    report = own.report
    sites = [site for site in report.sites if not apart(entry, site)]
    attention = sum(site.kind == "attention" for site in sites)
    return [
        str(report.nodes),
        f"{attention}/{entry.attention}",
        f"{len(sites) - attention}/{entry.mlps}",
        str(sum(map(is_claimed, sites))),
        " ".join(sorted(full_operators(report))),
        f"{1 / report.saving(0.1):.2f}",
        f"{error_at_full_refresh(own):.0e}",
        f"{errors_against_oracle(own)[0]:.0e}",
        f"{own.seconds:.1f}",
    ]


def main(names: Sequence[str]) -> None:
    headings = ("operators", "attention", "MLPs", "claimed", "in full", "FLOPs at 10%", "error, full", "error, oracle")
    table, failures = Table("model", *headings, "capture, s"), []
    for entry in ENTRIES:
        if not names or any(name in entry.name for name in names):
            try:
                table.add_row(entry.name, *row(entry))
            except Exception as error:
                failures.append(f"{entry.name}: {type(error).__name__}: {error}")
    console = Console(width=160)
    console.print(table)
    for failure in failures:
        console.print(failure, markup=False, highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])
