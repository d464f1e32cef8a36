"""Which parts of a recipe go together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.generated.recipe import Layer, Recipe


def coherent(recipe: Recipe) -> Recipe:
    """The recipe without what does not go together."""
    if recipe.padding == "ids" and recipe.input != "ids":
        recipe = replace(recipe, padding="input")
    if recipe.text or recipe.registers or recipe.tokens_first or recipe.tokens < 4 or recipe.tokens in (5, 7):
        recipe = replace(recipe, layers=tuple(replace(layer, window="none") for layer in recipe.layers))
    if recipe.text or recipe.registers or recipe.tokens_first or recipe.shared or recipe.tokens < 3:
        recipe = replace(recipe, drops="none")
    if recipe.drops == "between":
        # What a layer knows of all tokens does not fit those that are kept.
        form = "matmul" if recipe.layers[0].form in ("bmm", "baddbmm") else recipe.layers[0].form
        first = Layer(form=form, norm=recipe.layers[0].norm, cross=recipe.layers[0].cross)
        recipe = replace(recipe, layers=(first, *recipe.layers[1:]), skips=False, copies="none")
        recipe = replace(recipe, results=tuple(name for name in recipe.results if name != "hidden"))
    if recipe.input == "image" and recipe.tokens % 2:
        recipe = replace(recipe, input="floats")
    layers = tuple(coherent_layer(recipe, layer) for layer in recipe.layers)
    if not any("padding" in layer.mask for layer in layers):
        recipe = replace(recipe, padding="none")
    if not any(layer.cross for layer in layers):
        recipe = replace(recipe, context=0)
    if not any(layer.modulated for layer in layers):
        recipe = replace(recipe, timed=False)
    return replace(
        recipe,
        layers=layers,
        skips=recipe.skips and len(layers) > 1,
        context_mask=recipe.context_mask and recipe.context > 0,
    )


def coherent_layer(recipe: Recipe, layer: Layer) -> Layer:
    changed: dict[str, Any] = {}
    if layer.window != "none":
        # A window has no time, padding or context of its own.
        layer = replace(layer, modulated=False, cross=False, mixer="none")
        layer = replace(layer, mask="none") if "padding" in layer.mask else layer
    if layer.form == "fused":
        changed |= {"cap": False}
        changed |= {"sink": "none"} if layer.sink == "logit" else {}
        changed |= {"bias": "table"} if layer.bias == "decay" else {}
        changed |= {"mask_as": "bool"} if layer.mask_as == "where" else {}
        changed |= {"bias": "none", "sink": "none"} if layer.mask == "flag" else {}
    else:
        changed |= {"mask": "causal"} if layer.mask == "flag" else {}
        changed |= {"repeat": "expand"} if layer.repeat == "gqa" else {}
    if layer.repeat == "shared" and (layer.form not in ("matmul", "bmm", "einsum") or layer.key_heads != 1):
        changed |= {"repeat": "expand"}
    if layer.key_heads in (0, recipe.heads) or recipe.heads % layer.key_heads:
        changed |= {"key_heads": 0, "repeat": "expand"}
    elif layer.projection in ("unbound", "interleaved", "chunked"):
        changed |= {"projection": "split"}
    if "padding" in layer.mask and recipe.padding == "none":
        changed |= {"mask": "causal" if "causal" in layer.mask else "none"}
    if changed.get("mask", layer.mask) == "none":
        changed |= {"mask_as": "bool"}
    if recipe.text and layer.mlp == "convolution":
        changed |= {"mlp": "gelu"}
    headless = layer.headless and recipe.heads == 1
    if headless and layer.projection in ("unbound", "interleaved"):
        changed |= {"projection": "chunked"}
    if layer.heads_first and changed.get("repeat", layer.repeat) in ("gqa", "shared"):
        changed |= {"heads_first": False}
    if headless:
        changed |= {"heads_first": False}
    if layer.mask in ("none", "flag", "padding", "padding and causal", "queries"):
        changed |= {"mask_rank": 2}
    is_added = layer.form in ("matmul", "bmm", "einsum") and layer.bias not in ("none", "decay")
    return replace(
        layer,
        mixes_streams=layer.mixes_streams and recipe.text > 0,
        cross=layer.cross and recipe.context > 0,
        modulated=layer.modulated and recipe.timed,
        bias_first=layer.bias_first and is_added,
        headless=headless,
        **changed,
    )
