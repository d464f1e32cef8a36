"""Blocks: attention within one stream of tokens or two, attention to a context, and MLPs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.generated.attention import Attend, attention, heads_joined, samples_first
from tests.generated.heads import Heads
from tests.generated.mixers import Mixer
from tests.generated.mlp import make_mlp
from tests.generated.norms import make_norm
from tests.generated.recipe import Layer, Recipe
from tests.generated.windows import Windows


class Stream(nn.Module):
    """What a layer keeps for one stream of tokens: norms, projections, MLP and modulation."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        width = recipe.width
        self.layer, self.dim = layer, 0 if recipe.tokens_first else 1
        self.norm1, self.norm2 = make_norm(layer.norm, width), make_norm(layer.norm, width)
        after = layer.norm if layer.place == "sandwich" else "none"
        self.after1, self.after2 = make_norm(after, width), make_norm(after, width)
        self.heads = Heads(recipe, layer)
        self.project = nn.Linear(width, width)
        self.mlp = make_mlp(recipe, layer.mlp)
        self.modulation = nn.Linear(width, 4 * width) if layer.modulated else None

    def enter(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = x if self.layer.place == "post" else self.norm1(x)
        if self.modulation is None or time is None:
            return x
        self_shift, scale, _, _ = self.modulation(time).unsqueeze(self.dim).chunk(4, dim=-1)
        return x * (1 + scale) + self_shift

    def leave(self, x: Tensor, entered: Tensor, attended: Tensor, time: Tensor | None) -> Tensor:
        attended = self.after1(self.project(attended))
        if self.modulation is not None and time is not None:
            _, _, gate, mlp_gate = self.modulation(time).unsqueeze(self.dim).chunk(4, dim=-1)
        else:
            gate = mlp_gate = torch.ones((), dtype=x.dtype)
        post = self.layer.place == "post"
        if self.layer.parallel:
            x = x + gate * attended
            x = x if self.mlp is None else x + mlp_gate * self.mlp(entered)
            return self.norm1(x) if post else x
        x = self.norm1(x + gate * attended) if post else x + gate * attended
        if self.mlp is None:
            return x
        if post:
            return self.norm2(x + mlp_gate * self.mlp(x))
        return x + mlp_gate * self.after2(self.mlp(self.norm2(x)))


class Block(nn.Module):
    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        self.layer, self.dim, self.split = layer, 0 if recipe.tokens_first else 1, recipe.split
        own = recipe.registers + recipe.tokens
        self.mixer = None if layer.mixer == "none" else Mixer(layer.mixer, own, recipe.width)
        self.image = Stream(recipe, layer)
        self.text = Stream(recipe, layer) if recipe.text else None
        self.windows = None if layer.window == "none" else Windows(recipe, layer)
        self.attend = Attend(recipe, layer, recipe.length if self.windows is None else self.windows.length)
        self.cross = Cross(recipe, layer) if layer.cross else None

    def forward(
        self,
        x: Tensor,
        text: Tensor | None,
        time: Tensor | None,
        keep: Tensor | None,
        context: Tensor | None,
        context_keep: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        if self.windows is not None:
            x = self.windows.fold(x)
            entered = self.image.enter(x, None)
            x = self.image.leave(x, entered, self.attend(self.image.heads(entered), entered, None), None)
            return self.windows.unfold(x), text
        if self.mixer is not None:
            x = self.mixer(x.transpose(0, 1)).transpose(0, 1) if self.dim == 0 else self.mixer(x)
        entered = self.image.enter(x, time)
        if self.text is None or text is None:
            x = self.image.leave(x, entered, self.attend(self.image.heads(entered), entered, keep), time)
        else:
            length = x.shape[self.dim]
            text_entered = self.text.enter(text, time)
            pairs = zip(self.image.heads(entered), self.text.heads(text_entered))
            q, k, v = (torch.cat(pair, dim=self.dim) for pair in pairs)
            attended = self.attend((q, k, v), torch.cat([entered, text_entered], dim=self.dim), keep)
            if self.layer.mixes_streams:
                attended = attended.softmax(self.dim)
            if self.split:
                ours, theirs = attended.split([length, attended.shape[self.dim] - length], dim=self.dim)
            else:
                ours = attended.narrow(self.dim, 0, length)
                theirs = attended.narrow(self.dim, length, attended.shape[self.dim] - length)
            x = self.image.leave(x, entered, ours, time)
            text = self.text.leave(text, text_entered, theirs, time)
        if self.cross is not None and context is not None:
            x = x + self.cross(x, context, context_keep)
        return x, text


class Cross(nn.Module):
    """Attention to a context."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        self.layer = replace(layer, bias="none", mask="none", sink="none")
        self.recipe = recipe
        self.norm = make_norm(layer.norm, recipe.width)
        self.heads = Heads(recipe, layer)
        self.project = nn.Linear(recipe.width, recipe.width)

    def forward(self, x: Tensor, context: Tensor, keep: Tensor | None) -> Tensor:
        tokens_first = self.recipe.tokens_first
        q, k, v = (samples_first(t, tokens_first) for t in self.heads(self.norm(x), context))
        if keep is not None:
            keep = keep[:, None, :] if self.layer.headless else keep[:, None, None, :]
        y = attention(self.layer, self.recipe.heads, q, k, v, None, keep)
        return self.project(heads_joined(y, tokens_first))
