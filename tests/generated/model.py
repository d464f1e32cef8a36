"""The model of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.generated.arguments import CHANNELS, PADDING, VOCABULARY, Batch
from tests.generated.blocks import Block
from tests.generated.compiled import FUNCTIONS
from tests.generated.copies import doubled, guided
from tests.generated.recipe import Recipe
from tests.generated.written import WRITES


@dataclass
class Results:
    rows: Tensor
    text: Tensor | None = None
    pooled: Tensor | None = None
    first: Tensor | None = None
    score: Tensor | None = None
    length: int | None = None
    hidden: Tensor | None = None
    softmax: Tensor | None = None


class Generated(nn.Module):
    """The model of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, width = recipe, recipe.width
        self.dim = 0 if recipe.tokens_first else 1
        self.embed = nn.Embedding(VOCABULARY, width) if recipe.input == "ids" else nn.Linear(CHANNELS, width)
        if recipe.input == "masked floats":
            self.mask_token = nn.Parameter(torch.zeros(width))
        if recipe.position == "learned":
            self.position = nn.Parameter(torch.zeros(recipe.tokens, width))
        if recipe.text:
            self.embed_text = nn.Linear(CHANNELS, width)
            self.text_head = nn.Linear(width, CHANNELS)
        if recipe.context:
            self.embed_context = nn.Linear(CHANNELS, width)
        if recipe.drops != "none":
            self.blank = nn.Parameter(torch.zeros(recipe.tokens, width))
        if recipe.registers:
            self.registers = nn.Parameter(torch.zeros(recipe.registers, width))
        if recipe.timed:
            self.embed_time = nn.Sequential(nn.Linear(2, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(recipe, layer) for layer in recipe.layers)
        if recipe.skips:
            self.skips = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(len(recipe.layers) // 2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHANNELS)

    def forward(self, given: Any, **more: Any) -> Any:
        batch = self.opened(given, more)
        if self.recipe.writes in WRITES:
            WRITES[self.recipe.writes](batch.tokens.transpose(0, 1) if self.recipe.tokens_first else batch.tokens)
        if self.recipe.leaves != "none":
            self.left = batch.tokens.shape if self.recipe.leaves == "sizes" else [*batch.tokens.shape, "sizes"]
        x, put_back = self.dropped(self.embedded(batch), batch.hidden)
        if self.recipe.drops == "before":
            x = put_back(x)
        text = None if batch.text is None else self.embed_text(batch.text)
        context = None if batch.context is None else self.embed_context(batch.context)
        time = None
        if batch.time is not None:
            time = self.embed_time(torch.stack([batch.time.cos(), batch.time.sin()], dim=-1))
        if self.recipe.draws == "never":
            # Where tokens are dropped for each sample: draws for as many tokens as are kept are refused.
            drawn_for = x.narrow(self.dim, 0, 1) if self.recipe.drops == "between" else x
            x = torch.where((torch.rand_like(drawn_for[..., 0]) < 0.0)[..., None], torch.zeros_like(x), x)
        elif self.recipe.draws == "always":
            # Whatever is drawn it is left out, as a label is of the unconditional half.
            x = x + torch.where(torch.rand(3) < 1.0, 0.5, 2.0).to(x.dtype).mean()
        keep, context_keep = self.kept(batch), batch.context_keep
        if self.recipe.copies != "none":
            x, text, context = (self.doubled(own, 1 - self.dim) for own in (x, text, context))
            time, keep, context_keep = (self.doubled(own, 0) for own in (time, keep, context_keep))
        saved: list[Tensor] = []
        hidden = None
        for _ in range(2 if self.recipe.shared else 1):
            saved.clear()
            for number, block in enumerate(self.blocks):
                if self.recipe.skips and number >= len(self.blocks) - len(self.skips):
                    skip = self.skips[number - len(self.blocks) + len(self.skips)]
                    x = skip(torch.cat([x, saved.pop()], dim=-1))
                x, text = block(x, text, time, keep, context, context_keep)
                if self.recipe.drops == "between" and number == 0:
                    x = put_back(x)
                if self.recipe.skips and number < len(self.skips):
                    saved.append(x)
                hidden = x if hidden is None else hidden
        if self.recipe.branches and x.shape[self.dim] > 3:
            x = x + x.shape[self.dim] / 7
        if self.recipe.copies != "none":
            x, text, hidden = (self.guided(own) for own in (x, text, hidden))
        if self.recipe.writes == "computed":
            batch.tokens[:] = (x.mean() > 0).to(batch.tokens.dtype)
        return self.closed(x, text, hidden)

    def dropped(self, x: Tensor, hidden: Tensor | None) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """``x`` without hidden tokens, and what puts blanks in their place again."""
        if hidden is None:
            return x, lambda x: x
        kept, shape = (1 - hidden).nonzero(as_tuple=True), x.shape

        def put_back(x: Tensor) -> Tensor:
            whole = self.blank.expand(shape).clone()
            whole[kept] = x.reshape(-1, shape[-1])
            return whole

        return x[kept].reshape(shape[0], -1, shape[-1]), put_back

    def guided(self, x: Any) -> Any:
        return None if x is None else guided(self.recipe.copies, x, 1 - self.dim)

    def doubled(self, x: Any, dim: int) -> Any:
        return None if x is None else doubled(self.recipe.copies, x, dim)

    def opened(self, given: Any, more: dict[str, Any]) -> Batch:
        if self.recipe.given == "dict":
            return Batch(**given)
        if self.recipe.given == "tuple":
            return Batch(*given)
        return given if self.recipe.given == "dataclass" else Batch(given, **more)

    def embedded(self, batch: Batch) -> Tensor:
        recipe, x = self.recipe, batch.tokens
        if recipe.input == "image":
            x = x.flatten(2).permute(2, 0, 1) if recipe.tokens_first else x.flatten(2).transpose(1, 2)
        x = self.embed(x)
        if self.recipe.compiled != "none":
            x = FUNCTIONS[self.recipe.compiled](x)
        if batch.known is not None:
            x = torch.where(batch.known[..., None], x, self.mask_token)
        if recipe.position != "none":
            position = self.positions(x)
            x = x + (position[:, None] if recipe.tokens_first else position)
        if recipe.registers:
            if recipe.tokens_first:
                x = torch.cat([self.registers[:, None].expand(-1, x.shape[1], -1), x], dim=0)
            else:
                x = torch.cat([self.registers.expand(x.shape[0], -1, -1), x], dim=1)
        return x

    def positions(self, x: Tensor) -> Tensor:
        if self.recipe.position == "learned":
            return self.position
        angles = torch.arange(self.recipe.tokens, device=x.device)[:, None] / torch.arange(1, x.shape[-1] + 1)
        return angles.sin().to(x.dtype)

    def kept(self, batch: Batch) -> Tensor | None:
        """Bool ``[B, N]``: which of all tokens that meet are no padding."""
        recipe = self.recipe
        if recipe.padding == "none":
            return None
        keep = batch.keep
        if keep is None:
            keep = batch.tokens != PADDING
            keep = keep.transpose(0, 1) if recipe.tokens_first else keep
        parts = [keep]
        if recipe.registers:
            parts.insert(0, keep.new_ones(keep.shape[0], recipe.registers))
        if recipe.text:
            parts.append(torch.ones(keep.shape[0], recipe.text, dtype=torch.bool, device=keep.device))
        return torch.cat(parts, dim=1)

    def closed(self, x: Tensor, text: Tensor | None, hidden: Tensor | None) -> Any:
        recipe = self.recipe
        if recipe.registers:
            x = x[recipe.registers :] if recipe.tokens_first else x[:, recipe.registers :]
        x = self.norm(x)
        rows = self.head(x)
        if recipe.input == "image":
            rows = rows.permute(1, 2, 0) if recipe.tokens_first else rows.transpose(1, 2)
            rows = rows.unflatten(2, (2, -1))
        found: dict[str, Any] = {"rows": rows}
        if text is not None:
            found["text"] = self.text_head(text)
        for name in recipe.results:
            found[name] = {
                "pooled": lambda: x.mean(dim=self.dim),
                "first": lambda: x.select(self.dim, 0),
                "score": lambda: x.square().mean(),
                "length": lambda: x.shape[self.dim],
                "hidden": lambda: hidden,
                "softmax": lambda: self.head(x).softmax(dim=self.dim),
            }[name]()
        if recipe.returned == "dict":
            return found
        if recipe.returned == "dataclass":
            return Results(**found)
        return tuple(found.values()) if len(found) > 1 else rows


def build(recipe: Recipe) -> Generated:
    """The model of ``recipe``, the same at every call."""
    if recipe.compiled != "none":
        # Dynamo compiles a function for few shapes; one with ``fullgraph=True`` fails then.
        torch.compiler.reset()
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = Generated(recipe).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                around = 1.0 if parameter.ndim == 1 and (parameter == 1).all() else 0.0
                spread = 0.5 if parameter.ndim == 1 else 1.2 / math.sqrt(parameter.shape[-1])
                parameter.copy_(around + spread * torch.randn(parameter.shape))
    return model
