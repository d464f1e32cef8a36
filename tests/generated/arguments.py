"""What a generated model is called with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor

from tests.generated.recipe import Recipe

VOCABULARY = 7
PADDING = 0
CHANNELS = 3

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Batch:
    """What a model is called with."""

    tokens: Tensor
    known: Tensor | None = None
    text: Tensor | None = None
    time: Tensor | None = None
    keep: Tensor | None = None
    context: Tensor | None = None
    context_keep: Tensor | None = None
    hidden: Tensor | None = None


def make_arguments(recipe: Recipe, generator: Generator) -> Arguments:
    return passed(recipe, make_batch(recipe, generator))


def passed(recipe: Recipe, batch: Batch) -> Arguments:
    """A batch in the arguments that the model of a recipe takes."""
    values = {f.name: getattr(batch, f.name) for f in fields(Batch)}
    present = {name: value for name, value in values.items() if value is not None}
    if recipe.given == "dict":
        return (present,), {}
    if recipe.given == "tuple":
        last = max(number for number, value in enumerate(values.values()) if value is not None)
        return (tuple(values.values())[: last + 1],), {}
    if recipe.given == "dataclass":
        return (batch,), {}
    tokens = present.pop("tokens")
    return (tokens,), present


def make_batch(recipe: Recipe, generator: Generator) -> Batch:
    samples, tokens = recipe.samples, recipe.tokens

    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def flags(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) > 0.4

    def laid(x: Tensor) -> Tensor:
        return x.transpose(0, 1).contiguous() if recipe.tokens_first else x

    batch = Batch(floats(samples, CHANNELS, 2, tokens // 2) if recipe.input == "image" else torch.empty(0))
    if recipe.input == "ids":
        ids = torch.randint(VOCABULARY, (samples, tokens), generator=generator)
        ids[:, 0] = 1
        batch.tokens = laid(ids)
    elif recipe.input != "image":
        batch.tokens = laid(floats(samples, tokens, CHANNELS))
    if recipe.input == "masked floats":
        batch.known = laid(flags(samples, tokens))
    if recipe.text:
        batch.text = laid(floats(samples, recipe.text, CHANNELS))
    if recipe.timed:
        batch.time = torch.rand(samples, generator=generator, dtype=torch.float64)
    if recipe.padding == "input":
        batch.keep = flags(samples, tokens)
        batch.keep[:, 0] = True
    if recipe.context:
        batch.context = laid(floats(samples, recipe.context, CHANNELS))
    if recipe.context_mask:
        batch.context_keep = flags(samples, recipe.context)
        batch.context_keep[:, 0] = True
    if recipe.drops != "none":
        # As many in every sample; the first token stays.
        order = torch.rand(samples, tokens, generator=generator, dtype=torch.float64)
        order[:, 0] = -1
        count = int(torch.randint(0, tokens, (), generator=generator))
        batch.hidden = floats(samples, tokens).zero_().scatter(1, order.argsort(-1)[:, tokens - count :], 1.0)
    return batch
