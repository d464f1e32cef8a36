import torch
from torch import nn

import marche_fx
from marche_fx.models.text import TextDiffusion
from marche_fx.models.transformer import Attention, rotate

from .tiny import VOCABULARY, tiny_model


def test_logits_have_the_shape_of_the_pieces_whatever_their_number() -> None:
    model = tiny_model()
    for tokens in (1, 7, 700):
        assert model(torch.zeros(2, tokens, dtype=torch.int64)).shape == (2, tokens, VOCABULARY)


def test_the_bundled_size_fits_into_16_megabytes_at_two_bytes_a_parameter() -> None:
    assert sum(own.numel() for own in TextDiffusion().parameters()) <= 8e6


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance() -> None:
    model = tiny_model()
    angles = torch.outer(torch.arange(40), model.frequencies)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([-angles.sin(), angles.sin()], -1)
    x, y = torch.randn(2, 1, 1, 1, 16)
    turned, other = rotate(x, cos, sin), rotate(y, cos, sin)
    assert torch.allclose(turned.norm(dim=-1), x.norm().expand(1, 1, 40), atol=1e-5)
    products = (turned @ other.transpose(-1, -2))[0, 0]
    for distance in (-5, 0, 1, 30):
        assert torch.allclose(products.diagonal(distance), products.diagonal(distance)[0], atol=1e-4)


def test_the_first_half_of_the_heads_begins_by_looking_nearby() -> None:
    model = TextDiffusion(vocabulary=10, depth=1)
    attention = next(own for own in model.modules() if isinstance(own, Attention))
    nn.init.zeros_(attention.qkv.weight)
    q, k, _ = attention.qkv.bias.view(3, 8, 1, 32)
    angles = torch.outer(torch.arange(200), model.frequencies)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([-angles.sin(), angles.sin()], -1)
    weights = (rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2) / 32**0.5).softmax(-1)
    assert (weights[:4, 100].argmax(-1) - 100).tolist() == [1, -1, 2, -2]
    assert weights[:4, 100].max(-1).values.min() > 0.5


def test_marche_fx_claims_every_site() -> None:
    model = tiny_model().eval()
    ids = torch.arange(24).view(2, 12)
    plan = marche_fx.explain(model, ids)
    assert "4 of 4 sites" in str(plan)
    optimized = marche_fx.transform(model, refresh=marche_fx.FullRefresh(), compile=False)
    with torch.inference_mode(), marche_fx.decoding(optimized):
        for _ in range(3):
            assert torch.allclose(optimized(ids)[:, :], model(ids), atol=1e-5)
            ids = (ids * 7 + 1) % VOCABULARY
