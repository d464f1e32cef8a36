"""Models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Generator, Tensor, nn
from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaDecoderModel

from .entry import VOCABULARY, WIDTH, Arguments, Entry, Refused, floats, ids, padding

# What its type hints say of constructors and base classes does not hold.
transformers: Any = import_module("transformers")


def text(samples: int, tokens: int, generator: Generator) -> Arguments:
    mask = padding(samples, tokens, generator).long()
    return (), {"input_ids": ids(samples, tokens, generator), "attention_mask": mask}


def uncached_text(samples: int, tokens: int, generator: Generator) -> Arguments:
    args, kwargs = text(samples, tokens, generator)
    return args, kwargs | {"use_cache": False}


def text_with_square_mask(samples: int, tokens: int, generator: Generator) -> Arguments:
    mask = padding(samples, tokens, generator)[:, None, None, :].expand(-1, 1, tokens, -1)
    return (), {"input_ids": ids(samples, tokens, generator), "attention_mask": mask, "use_cache": False}


def uncached_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (ids(samples, tokens, generator),), {"use_cache": False}


def kept_patches(samples: int, tokens: int, generator: Generator) -> Arguments:
    """Embeddings of a class token and half of the patches, and the order that restores all of them."""
    kept = floats(samples, 1 + tokens // 2, WIDTH, generator=generator)
    return (), {"hidden_states": kept, "ids_restore": torch.rand(samples, tokens, generator=generator).argsort(-1)}


def canvas(samples: int, tokens: int, generator: Generator) -> Arguments:
    """Ids of a block of text, its logits of the step before, keys and values of what stands before it."""
    prompt = [floats(samples, 1, 5, 8, generator=generator) for _ in range(4)]
    return (ids(samples, tokens, generator), floats(samples, tokens, VOCABULARY, generator=generator), *prompt), {}


def image(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (floats(samples, 3, tokens, tokens, generator=generator),), {}


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


def mamba() -> nn.Module:
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(hidden_size=WIDTH, num_hidden_layers=2, vocab_size=VOCABULARY, state_size=4)
    )


def convnext() -> nn.Module:
    return transformers.ConvNextModel(
        transformers.ConvNextConfig(num_channels=3, hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, patch_size=2)
    )


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
)

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
