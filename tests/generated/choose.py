"""Recipes at random: drawn by hypothesis, or the one of a number."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.generated.coherent import coherent
from tests.generated.mixers import MIXERS
from tests.generated.recipe import Layer, Recipe

Choose = Callable[..., Any]
"""Chooses one of its arguments, the simplest first."""


def choose_recipe(choose: Choose) -> Recipe:
    heads = choose(1, 2, 2, 3)
    head_width = choose(2, 2, 4)
    samples = choose(1, 2, 2, 3)
    tokens = choose(2, 3, 4, 5, 6, 7, samples + 1, heads * head_width, heads + 1)
    text = choose(0, 0, 0, 0, 2, 3, tokens)
    recipe = Recipe(
        samples=samples,
        tokens=max(tokens, 2),
        heads=heads,
        head_width=head_width,
        input=choose("floats", "ids", "masked floats", "image"),
        position=choose("none", "learned", "computed"),
        text=text,
        split=bool(text) and choose(False, True),
        context=choose(0, 0, 2, 3, tokens),
        context_mask=choose(False, True),
        registers=0 if text else choose(0, 0, 0, 1, 2),
        padding=choose("none", "input", "ids"),
        timed=choose(False, True),
        tokens_first=choose(False, False, True),
        shared=choose(False, False, False, True),
        branches=choose(False, False, True),
        given=choose("tensors", "keywords", "dict", "tuple", "dataclass"),
        returned=choose("tuple", "dict", "dataclass"),
        results=choose((), (), ("pooled",), ("first",), ("score", "length"), ("hidden", "pooled"), ("softmax",)),
        seed=choose(*range(100)),
    )
    depth = choose(1, 1, 2, 2, 3) if not recipe.shared else choose(1, 1, 2)
    recipe = replace(recipe, layers=tuple(choose_layer(choose) for _ in range(depth)))
    recipe = replace(recipe, skips=choose(False, True))
    # Added later, so chosen last: a seed keeps its other choices.
    recipe = replace(recipe, layers=tuple(choose_scores(choose, layer) for layer in recipe.layers))
    recipe = replace(recipe, samples=choose(1, recipe.samples), layers=choose_places(choose, recipe.layers))
    return coherent(
        replace(
            recipe,
            copies=choose("none", "none", "none", "cat", "repeat", "expand", "interleave"),
            default_dtype=choose("float32", "float32", "bfloat16", "float64"),
            policy=choose("exact", "attention", "attention", "drift"),
            drops=choose(*["none"] * 6, "before", "between"),
            draws=choose("none", "none", "never", "always"),
            writes=choose(*["none"] * 7, "filled", "indexed", "moved", "in a view", "computed"),
            compiled=choose(*["none"] * 4, "plain", "whole"),
            leaves=choose("none", "none", "sizes", "list"),
            picked=choose(False, False, True),
        )
    )


def choose_layer(choose: Choose) -> Layer:
    return Layer(
        norm=choose("layer", "rms", "layer written out", "rms written out", "none"),
        place=choose("pre", "pre", "post", "sandwich"),
        form=choose("fused", "fused", "matmul", "bmm", "baddbmm", "einsum"),
        projection=choose("separate", "chunked", "unbound", "split", "interleaved", "keys and values"),
        key_heads=choose(0, 0, 0, 1, 2),
        repeat=choose("expand", "interleave", "gqa"),
        bias=choose(
            "none", "none", "none", "table", "alibi", "decay", "buckets", "relative table", "disentangled", "input"
        ),
        mask=choose(
            *("none", "none", "none", "padding", "padding", "window", "block", "causal", "flag"),
            *("padding and causal", "groups", "queries"),
        ),
        mask_as=choose("bool", "additive", "where"),
        cap=choose(False, False, False, True),
        normalized=choose("none", "none", "none", "cosine", "rms", "layer"),
        sink=choose("none", "none", "none", "none", "logit", "key"),
        rotary=choose("none", "none", "buffer", "computed", "complex"),
        dropout=choose(False, True),
        cross=choose(False, False, True),
        parallel=choose(False, False, True),
        mlp=choose("gelu", "relu", "split", "swiglu", "experts", "top experts", "none", "convolution"),
        mixer=choose(*["none"] * 14, *MIXERS),
        modulated=choose(False, True),
    )


def choose_scores(choose: Choose, layer: Layer) -> Layer:
    return replace(
        layer,
        bias=choose(*[layer.bias] * 4, "query table"),
        bias_first=choose(False, True),
        headless=choose(False, True),
    )


def choose_places(choose: Choose, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Where samples, heads and tokens stand."""
    is_windowed = choose(False, False, False, True)
    return tuple(
        replace(
            layer,
            window=choose("none", "rows", "columns", "frames") if is_windowed else "none",
            heads_first=choose(False, False, False, True),
            mask_rank=choose(2, 2, 3, 4),
            mixes_streams=choose(False, False, True),
            **choose({}, {}, {}, {"key_heads": 1, "repeat": "shared"}),
        )
        for layer in layers
    )


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    return choose_recipe(lambda *options: draw(st.sampled_from(options)))


def numbered_recipe(seed: int, number: int) -> Recipe:
    """One of the recipes of ``seed``, the same at every call."""
    generator = random.Random(f"{seed} {number}")
    return choose_recipe(lambda *options: generator.choice(options))
