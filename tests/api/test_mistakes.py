"""What users pass by mistake: a pipeline, and a model that keeps a cache of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import marche_fx
from marche_fx import ArgumentError, UnsupportedModelError

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("held", "named"),
    [
        ({"vae": nn.Linear(2, 2), "transformer": nn.Linear(2, 2), "scheduler": 3}, "transformer"),
        ({"scheduler": 3, "unet": nn.Linear(2, 2)}, "unet"),
    ],
)
def test_a_pipeline_is_refused_with_the_line_to_write(held: dict[str, Any], named: str) -> None:
    with pytest.raises(ArgumentError, match=rf"pipe\.{named} = marche_fx\.transform\(pipe\.{named}\)") as refused:
        marche_fx.transform(SimpleNamespace(**held))  # type: ignore[type-var]
    assert "scheduler" not in str(refused.value)


def test_what_holds_no_module_is_refused_by_its_class() -> None:
    with pytest.raises(ArgumentError, match=r"^transform takes a torch\.nn\.Module as its model, got int$"):
        marche_fx.transform(3)  # type: ignore[type-var]


def llama() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.LlamaConfig(vocab_size=20, num_key_value_heads=2, **sizes)
    return transformers.LlamaForCausalLM(config).eval()


IDS = torch.full((1, 8), 3)


@torch.no_grad()
def test_a_cache_that_a_step_returns_or_is_given_is_refused_with_what_to_pass() -> None:
    optimized = marche_fx.transform(llama(), compile=False)
    with marche_fx.decoding(optimized), pytest.raises(UnsupportedModelError, match=r"DynamicCache.*use_cache=False"):
        optimized(IDS).logits.argmax()
    cache = transformers.DynamicCache()
    with marche_fx.decoding(optimized), pytest.raises(ArgumentError, match=r"DynamicCache.*use_cache=False"):
        optimized(IDS, past_key_values=cache).logits.argmax()


@torch.no_grad()
def test_what_these_messages_say_works() -> None:
    model = llama()
    optimized = marche_fx.transform(model, compile=False)
    torch.testing.assert_close(optimized(IDS, use_cache=False).logits, model(IDS).logits)
    model.config.use_cache = False
    torch.testing.assert_close(marche_fx.transform(model, compile=False)(IDS).logits, model(IDS).logits)
