"""What every variant runs: a model and the decoding steps of one generation, each in its true state."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..api.options import KNOWN_STEPS, default_steps, method_names
from ..errors import ArgumentError
from ..models import MAR
from ..models.drift import replay
from ..passes.capture.arguments import opened
from ..runtime.method import Query
from ..tuning.replay import Call, Earlier, Read, record

PARTS = {"forward_mae_encoder": "encoder", "forward_mae_decoder": "decoder"}
"""What MAR's step methods are called in the results; others keep their names."""

ENCODER, DECODER = KNOWN_STEPS


@dataclass(frozen=True)
class WorkStep:
    """A decoding step: its calls of step methods, and the rows of the last result that it reads.

    Attributes:
        first: number of its first call among those of the generation.
        read: rows that the head draws tokens for, of all samples.
        rows: that the original computes in each call, of all samples; empty where that is not known.
        cfg: guidance scale, where there is one.
    """

    first: int
    calls: tuple[Call, ...] = field(repr=False)
    read: int = 0
    rows: tuple[int, ...] = ()
    cfg: float | None = None

    @property
    def samples(self) -> int:
        """In a call: the rows of its first tensor that has any."""
        leaves = pytree.tree_leaves(opened(self.calls[0].arguments))
        return next((len(own) for own in leaves if isinstance(own, Tensor) and own.ndim), 1)

    @property
    def reads_earlier_steps(self) -> bool:
        """Whether a call is given what a call of an earlier step returned."""
        leaves = [leaf for call in self.calls for leaf in pytree.tree_leaves(call.arguments)]
        return any(isinstance(leaf, Earlier) and leaf.call < self.first for leaf in leaves)


@dataclass(frozen=True)
class Workload:
    """The decoding steps of one generation of ``model``.

    Attributes:
        name: of the size, or ``module:function``.
        batch: images at once, or samples in a call of a model that is no MAR. cfg: guidance scale, where there is one.
        step, loop, query: as in `transform`.
        has_head: whether it is known what draws tokens from the rows that a step reads.
        in_steps: the same generation in another number of decoding steps, where that can be.
        guided_where: the same with guidance only in those decoding steps, of so many, for which a function says so.
    """

    name: str
    model: nn.Module
    steps: tuple[WorkStep, ...] = field(repr=False)
    batch: int
    cfg: float | None = None
    step: str | Sequence[str] | None = None
    loop: str | Sequence[str] | None = None
    query: Query | None = None
    has_head: bool = False
    in_steps: Callable[[int], Workload] | None = field(default=None, repr=False)
    guided_where: Callable[[Callable[[int, int], bool]], Workload] | None = field(default=None, repr=False)

    @property
    def step_methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(call.step for work in self.steps for call in work.calls))

    @property
    def parts(self) -> dict[str, str]:
        """What each step method is called in the results."""
        return {name: PARTS.get(name, name) for name in self.step_methods}

    @property
    def is_cut_anywhere(self) -> bool:
        """Whether a model without state can run any step without those before it."""
        return not any(work.reads_earlier_steps for work in self.steps)

    @property
    def device(self) -> torch.device:
        weights = itertools.chain(self.model.parameters(), self.model.buffers())
        return next((own.device for own in weights), torch.device("cpu"))


def mar_workload(model: MAR, batch: int, cfg: float, steps: int, *, seed: int = 0, name: str = "") -> Workload:
    """The steps of `MAR.sample_tokens` for ``batch`` images, of random tokens in random orders.

    Nothing is generated: only which tokens are masked, and how many rows are read, matters to time. Guidance doubles
    the samples.

    Raises:
        ArgumentError: there are more decoding steps than tokens.
    """
    if steps > model.seq_len:
        raise ArgumentError(f"{steps} decoding steps are more than the {model.seq_len} tokens of an image")
    generator = torch.Generator().manual_seed(seed)
    side, weight = model.patch_size, model.mask_token
    shape = (batch, model.vae_embed_dim, model.seq_h * side, model.seq_w * side)
    images = torch.randn(shape, generator=generator).to(weight)
    orders = torch.rand(batch, model.seq_len, generator=generator).argsort(-1).to(weight.device)
    labels = (torch.arange(batch) % model.num_classes).to(weight.device)
    work = []
    with torch.no_grad():
        for number, own in enumerate(replay(model, images, orders, labels, steps, cfg)):
            # The loop makes a new class embedding in every step.
            encode = Call(ENCODER, ((own.tokens, own.mask, own.class_embedding.clone()), {}))
            decode = Call(DECODER, ((Earlier(2 * number, 0), own.mask), {}), [read_rows(own.read)])
            samples, masked = len(own.mask), int(own.mask[0].sum())
            tokens = samples * (model.buffer_size + model.seq_len)
            rows = (tokens - samples * masked, tokens)
            work.append(WorkStep(2 * number, (encode, decode), int(own.read.sum()), rows, cfg))
    made = Workload(
        name or type(model).__name__,
        model,
        tuple(work),
        batch,
        cfg,
        has_head=True,
        in_steps=lambda count: mar_workload(model, batch, cfg, count, seed=seed, name=name),
    )

    def guided_where(is_guided: Callable[[int, int], bool]) -> Workload:
        plain = mar_workload(model, batch, 1.0, steps, seed=seed, name=name)
        pairs = enumerate(zip(made.steps, plain.steps, strict=True))
        return replace(made, steps=tuple(own if is_guided(number, steps) else other for number, (own, other) in pairs))

    return replace(made, guided_where=guided_where)


def read_rows(rows: Tensor) -> Read:
    """A read of ``rows``, bool ``[B, N]``, of the first result; nobody compares what is read."""
    return Read(0, rows, None, torch.empty(0))


def recorded_workload(
    model: nn.Module,
    run: Callable[[nn.Module], Any],
    *,
    name: str = "",
    step: str | Sequence[str] | None = None,
    loop: str | Sequence[str] | None = None,
    query: Query | None = None,
) -> Workload:
    """The steps of the first generation that ``run`` makes with the model that it is given; see `replay.record`.

    Raises:
        ArgumentError: ``run`` called no step method inside of a session.
    """
    calls = record(model, run, step=step, loop=loop, query=query).sessions[0]
    # In the order in which a step calls them, which the transformed model was told too.
    last = method_names(model, step, default=default_steps(model), argument="step")[-1]
    read = [sum(own.exact.shape[0] for own in call.reads if own.rows is not None) for call in calls]
    work, first = [], 0
    for number, call in enumerate(calls):
        if call.step == last or number == len(calls) - 1:
            work.append(WorkStep(first, calls[first : number + 1], sum(read[first : number + 1])))
            first = number + 1
    return Workload(name or type(model).__name__, model, tuple(work), work[0].samples, None, step, loop, query)


def rows_of(own: Read, result: Any) -> Tensor:
    """What the loop reads of a result, in the way in which it does."""
    rows = own.leading_rows
    return own.of(result) if rows is None else result[rows.nonzero(as_tuple=True)]
