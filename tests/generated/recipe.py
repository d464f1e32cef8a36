"""Recipes: what a generated model is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any


class Described:
    """A dataclass whose repr names only what differs from the simplest."""

    def __repr__(self) -> str:
        own: Any = self
        named = [(f, getattr(self, f.name)) for f in fields(own)]
        told = [f"{f.name}={value!r}" for f, value in named if value != f.default]
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Layer(Described):
    """One block of attention and MLP, preceded by an operator that mixes tokens.

    Attributes:
        form: how attention is written. projection: how q, k and v are made. key_heads: heads of k and v, zero for as
            many as q has. repeat: how k and v are given to more heads; ``"shared"``, without a dimension for their one.
            headless: one head without a dimension. heads_first: heads before samples.
        bias: what is added to the scores, or multiplied with them. bias_first: the scores are added to it instead.
        mask: who attends to whom. mask_as: how it is used. mask_rank: dimensions that a mask of all samples has.
        mixes_streams: whether all tokens are mixed between attention and the cut into streams.
        window: whether tokens attend to those of their row or column, which are folded into the samples.
        cap: scores capped softly. sink: ``"logit"``, a score for nobody; ``"key"``, learned keys and values.
    """

    norm: str = "layer"
    place: str = "pre"
    form: str = "fused"
    projection: str = "separate"
    key_heads: int = 0
    repeat: str = "expand"
    bias: str = "none"
    mask: str = "none"
    mask_as: str = "bool"
    cap: bool = False
    normalized: str = "none"
    sink: str = "none"
    rotary: str = "none"
    dropout: bool = False
    cross: bool = False
    parallel: bool = False
    mlp: str = "gelu"
    mixer: str = "none"
    modulated: bool = False
    bias_first: bool = False
    headless: bool = False
    window: str = "none"
    heads_first: bool = False
    mask_rank: int = 2
    mixes_streams: bool = False


@dataclass(frozen=True, repr=False)
class Recipe(Described):
    """A model, what it is called with, and how it decodes.

    Attributes:
        text: tokens of a second stream. split: whether one operator takes the streams apart. context: tokens of a text
            that is attended to. registers: learned tokens before those of the input. padding: what says which are.
        shared: layers run twice. skips: the first layers' results are read by the last. branches: the model looks at
            shapes. given, returned: in what arguments and results come. results: what is returned beside the rows.
        drops: whether hidden tokens are dropped and blanks put in their place before the blocks or after the first.
        draws: whether random numbers decide nothing, since no token is left out, or every condition is. copies: how
            samples are doubled inside the step. default_dtype: PyTorch's. policy: that of a session.
        writes: what the step writes into its argument ``tokens``; ``"computed"``, which is refused, of its weights.
        compiled: whether the step calls a function under `torch.compile`; ``"whole"``, with ``fullgraph=True``.
        leaves: as what it leaves sizes of an argument in an attribute. picked: whether experts compute the rows that
            chose them, in Python that no trace sees through. seed: of weights, arguments and active sets.
    """

    layers: tuple[Layer, ...] = (Layer(),)
    samples: int = 2
    tokens: int = 5
    heads: int = 2
    head_width: int = 2
    input: str = "floats"
    position: str = "learned"
    text: int = 0
    split: bool = False
    context: int = 0
    context_mask: bool = False
    registers: int = 0
    padding: str = "none"
    timed: bool = False
    tokens_first: bool = False
    shared: bool = False
    skips: bool = False
    branches: bool = False
    given: str = "tensors"
    returned: str = "tuple"
    results: tuple[str, ...] = ()
    seed: int = 0
    copies: str = "none"
    default_dtype: str = "float32"
    policy: str = "exact"
    drops: str = "none"
    draws: str = "none"
    writes: str = "none"
    compiled: str = "none"
    leaves: str = "none"
    picked: bool = False

    @property
    def captured(self) -> Recipe:
        """The same without what is refused, or takes a word of the user."""
        return replace(self, writes="none" if self.writes == "computed" else self.writes, picked=False)

    @property
    def token_wise(self) -> tuple[str, ...]:
        """What `transform` is told of it."""
        return ("*.mlp",) if self.picked and any("experts" in layer.mlp for layer in self.layers) else ()

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def length(self) -> int:
        """Tokens that meet in attention."""
        return self.registers + self.tokens + self.text

    @property
    def attention(self) -> int:
        """Attention sites."""
        return (1 + self.shared) * sum(1 + layer.cross for layer in self.layers)
