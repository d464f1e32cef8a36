"""What the passes insert into a graph: reading and writing the rows of active tokens.

``active`` is ``[B, A]`` int64, the positions recomputed in this step, per sample and without repetition.
``samples`` is ``[B, 1]`` int64, the sample numbers, made once a session.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def gather_active(x: Tensor, samples: Tensor, active: Tensor, batch_dim: int, token_dim: int) -> Tensor:
    """The rows of ``x [.., B, .., N, ..]`` at the active tokens: ``[.., B, .., A, ..]``.

    A tensor that all samples share has size 1 at ``batch_dim``.
    """
    if x.shape[batch_dim] != len(active):
        x = x.expand([len(active) if dim == batch_dim else -1 for dim in range(x.ndim)])
    if (batch_dim, token_dim) == (0, 1):
        return x[samples, active]
    rows = x.movedim((batch_dim, token_dim), (0, 1))[samples, active]
    return rows.movedim((0, 1), (batch_dim, token_dim))


def update_cache(
    cache: Tensor, rows: Tensor, samples: Tensor, active: Tensor, batch_dim: int, token_dim: int
) -> Tensor:
    """Write the active rows into ``cache [.., B, .., N, ..]`` in place and return it; they are rounded as it is."""
    rows = rows if rows.dtype is cache.dtype else rows.to(cache.dtype)
    if (batch_dim, token_dim) == (0, 1):
        return cache.index_put_((samples, active), rows)
    view = cache.movedim((batch_dim, token_dim), (0, 1))
    view.index_put_((samples, active), rows.movedim((batch_dim, token_dim), (0, 1)))
    return cache


def beside_rounded(
    cache: Tensor, rows: Tensor, samples: Tensor, active: Tensor, batch_dim: int, token_dim: int
) -> Tensor:
    """All rows ``[.., B, .., N, ..]``: the cached ones as a cache of lower precision has them, the active as they are.

    ``rows`` are the active ones, in the precision of the result.
    """
    return update_cache(cache.to(rows.dtype), rows, samples, active, batch_dim, token_dim)


def join_positions(active: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """The active positions of streams ``[B, A_i]`` on the axis of all of them, one after another: ``[B, A]``."""
    starts = itertools.accumulate(lengths, initial=0)
    return torch.cat([positions + start for positions, start in zip(active, starts)], 1)


def take_rows(rows: Tensor, dim: int, skipped: Sequence[Tensor], taken: Sequence[Tensor]) -> Tensor:
    """Of the rows of several streams those of ``taken``, which follow those of ``skipped``; active positions each."""
    start = sum(active.shape[1] for active in skipped)
    return rows.narrow(dim, start, sum(active.shape[1] for active in taken))


def cut_dims(x: Tensor, factors: Sequence[Sequence[int]]) -> Tensor:
    """``x``, which broadcasts to a value whose dimensions are products of ``factors``, in as many dimensions as these.

    ``[B * H, N, d]`` and ``[1, N, d]`` become ``[B, H, N, d]`` and ``[1, 1, N, d]``.
    """
    shape: list[int] = []
    for size, parts in zip(x.shape, factors[-x.ndim :]):
        shape += [size] if len(parts) == 1 else [1] * len(parts) if size == 1 else parts
    return x.reshape(shape)


def causal_mask(k: Tensor, active: Tensor, rank: int, batch_dim: int) -> Tensor:
    """Which keys of ``k [.., N, d]`` the active tokens may see: bool ``[.., B, .., A, N]`` of so many dimensions."""
    keys = torch.arange(k.shape[-2], device=active.device, dtype=torch.long)
    seen = keys <= active[..., None]
    return seen.view([len(active) if dim == batch_dim else 1 for dim in range(rank - 2)] + [*seen.shape[1:]])


def attention_received(
    q: Tensor,
    k: Tensor,
    samples: Tensor,
    rows: Tensor,
    queried: Tensor,
    scale: float,
    mask: Tensor | None = None,
    batch_dim: int = 0,
    groups: int = 1,
) -> Tensor:
    """The attention that queried tokens pay to every key, mean over heads and queried tokens: ``[B, N]`` float32.

    Args:
        q: ``[B, H, A, d]``, queries of the active tokens. k: ``[B, H, N, d]`` or ``[B, H / groups, N, d]``. Samples
            may be another dimension, and heads several or none.
        rows: ``[B, Q]`` int64, numbers of active tokens, of a sample's queried ones all.
        queried: bool ``[B, Q]``, which of these are; all of ``rows`` count where none is, in any sample.
        mask: bool or additive, broadcast to ``[B, H, A, N]``.
    """
    if mask is not None and mask.shape[-2] != 1:
        mask = mask[(None,) * (q.ndim - mask.ndim)]
        mask = gather_active(mask, samples, rows, batch_dim, q.ndim - 2)
    q = gather_active(q, samples, rows, batch_dim, q.ndim - 2)
    heads = q.shape[-3:-1]
    if groups != 1:
        # As more queries of the heads whose keys they share, which are read where they are.
        q = q.unflatten(-3, (-1, groups)).flatten(-3, -2)
    scores = (q @ k.transpose(-1, -2)).float() * scale
    if groups != 1:
        scores = scores.flatten(-3, -2).unflatten(-2, heads)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype is torch.bool else scores + mask
    return mean_over_queried(scores.softmax(-1).movedim(batch_dim, 0), queried)


def weights_received(
    weights: Tensor,
    samples: Tensor,
    rows: Tensor,
    queried: Tensor,
    batch_dim: int = 0,
    token_dim: int = -2,
    key_dim: int = -1,
) -> Tensor:
    """`attention_received` of attention whose ``weights [B, H, A, N]`` are at hand, dimensions in any order."""
    found = gather_active(weights, samples, rows, batch_dim, token_dim)
    return mean_over_queried(found.movedim((batch_dim, token_dim, key_dim), (0, -2, -1)), queried)


def join_rows(rows: Sequence[Tensor], active: Sequence[Tensor]) -> Tensor:
    """Numbers of active tokens of streams ``[B, Q_i]`` among those of all of them, one after another: ``[B, Q]``."""
    starts = itertools.accumulate((own.shape[1] for own in active), initial=0)
    return torch.cat([own + start for own, start in zip(rows, starts)], 1)


def numbers_among(rows: Tensor, read: Tensor) -> Tensor:
    """Where each of ``rows [B, Q]`` stands in ``read [B, R]``, which holds them all: ``[B, Q]`` int64."""
    return (rows[:, :, None] == read[:, None, :]).to(torch.uint8).argmax(2)


def mean_over_queried(attention: Tensor, queried: Tensor) -> Tensor:
    """``attention [B, .., Q, N]`` to ``[B, N]``: mean over heads, if there are any, and over the queried tokens.

    NaN, not measured, of a sample that has none of them while another has: nobody reads it in this step.
    """
    weights = queried.to(torch.float32)
    weights = torch.where(weights.sum() > 0, weights, 1.0)
    weights = weights / weights.sum(-1, keepdim=True)
    # Heads first: what is left is small, and no copy of all of it is made in another order.
    attention, heads = attention.float(), tuple(range(1, attention.ndim - 2))
    return (weights[:, None] @ (attention.mean(heads) if heads else attention))[:, 0]


def as_rows(x: Tensor, batch_dim: int, token_dim: int) -> Tensor:
    """``x [.., B, .., A, ..]`` as one vector a row: ``[B, A, F]``."""
    rows = x.movedim((batch_dim, token_dim), (0, 1))
    return rows.reshape(*rows.shape[:2], -1)


def row_drift(now: Tensor, before: Tensor) -> Tensor:
    """The norm of ``now - before``, both ``[B, A, F]``, over that of ``now``: ``[B, A]`` float32."""
    moved = torch.linalg.vector_norm((now - before).float(), dim=-1)
    return moved / torch.linalg.vector_norm(now.float(), dim=-1).clamp(min=1e-12)


def confidence(now: Tensor, before: None = None, *, of: str) -> Tensor:
    """How sure logits ``[B, A, V]`` are, ``[B, A]`` float32; see `ResultConfidence` for ``of``."""
    logits = now.float()
    if of == "entropy":
        found = logits.log_softmax(-1)
        return -(found.exp() * found).nan_to_num().sum(-1)
    if of == "probability":
        return (logits.amax(-1) - logits.logsumexp(-1)).exp()
    first, second = (logits.topk(2, -1).values - logits.logsumexp(-1, keepdim=True)).exp().unbind(-1)
    return first - second


def spread_rows(values: Tensor, active: Tensor, start: int, tokens: int) -> Tensor:
    """``values [B, A]`` of the active tokens among all: ``[B, N]`` float32, NaN where there is none.

    ``active`` counts from the token ``start``.
    """
    found = torch.full((len(values), tokens), float("nan"), device=values.device, dtype=torch.float32)
    return found.scatter(1, active + start, values.float())
