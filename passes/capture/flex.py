"""`flex_attention`, of which a graph would have rules in functions of Python, as attention over all keys.

Before:  flex_attention(q, k, v, block_mask=create_block_mask(lambda b, h, q, k: q // 4 >= k // 4, ...))
After:   sdpa(q, k, v, arange(N)[:, None] // 4 >= arange(N) // 4)

With a rule for scores the attention is written out: ``q @ k^T``, the rule, the mask, softmax, ``@ v``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[..., Tensor]


OPERATOR, SURROUNDING = "flex_attention_hop", "setup_compilation_env"
"""What `flex_attention` calls, whose graph has rules in it as graphs of their own; and the context in which it does,
that hides what a trace records of `torch.vmap`."""


@contextmanager
def flex_attention_written() -> Iterator[None]:
    """In this thread, `flex_attention` calls operators that a graph can hold, and that modes can look at."""
    from torch.nn.attention import flex_attention as flex

    own_thread = threading.get_ident()
    before = {name: vars(flex)[name] for name in (OPERATOR, SURROUNDING) if name in vars(flex)}
    instead: dict[str, Callable[..., Any]] = {OPERATOR: written, SURROUNDING: lambda: nullcontext("eager")}

    def here(name: str) -> Callable[..., Any]:
        return lambda *args: (instead if threading.get_ident() == own_thread else before)[name](*args)

    vars(flex).update({name: here(name) for name in before})
    try:
        yield
    finally:
        vars(flex).update(before)


def written(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Rule,
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: dict[str, Any],
    score_buffers: tuple[Tensor, ...] = (),
    mask_buffers: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """What `flex_attention` gives: its result, and logarithms to the base of 2 of what was asked for beside it.

    The blocks that a kernel skips are those that the rule of the mask leaves empty, so the rule alone counts.
    """
    from torch.nn.attention.flex_attention import _identity, noop_mask

    if len(key) != len(query):
        key, value = (own.expand(len(query), *own.shape[1:]) for own in (key, value))
    sizes = (*query.shape[:3], key.shape[2])
    places = [torch.arange(size, device=query.device) for size in sizes]
    *_, mask_mod = block_mask
    mask = None if mask_mod is noop_mask else everywhere(mask_mod)(*places, *mask_buffers)
    asked = kernel_options.get("OUTPUT_LOGSUMEXP") or kernel_options.get("OUTPUT_MAX")
    if score_mod is _identity and not asked:
        grouped = query.shape[1] != key.shape[1]
        result = F.scaled_dot_product_attention(query, key, value, mask, scale=scale, enable_gqa=grouped)
        nothing = query.new_empty(0)
        return laid_out_as(query, result), nothing, nothing
    key, value = (own.repeat_interleave(query.shape[1] // key.shape[1], 1) for own in (key, value))
    precision = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = query.to(precision) @ key.to(precision).transpose(-2, -1) * scale
    if score_mod is not _identity:
        scores = everywhere(score_mod, scores=True)(scores, *places, *score_buffers)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    # Of a token that may read none the result is 0.
    result = torch._safe_softmax(scores, -1).to(value.dtype) @ value
    return laid_out_as(query, result), scores.logsumexp(-1) / math.log(2), scores.amax(-1) / math.log(2)


def everywhere(rule: Rule, scores: bool = False) -> Rule:
    """A rule of one sample, head, query and key as one of all of them; of one score each, where it is of scores."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    first = (0,) if scores else ()

    def found(*args: Any) -> Tensor:
        places, others = args[len(first) :][:4], (None,) * (len(args) - len(first) - 4)
        inner = rule
        for dim in reversed(range(len(places))):
            inner = torch.vmap(inner, in_dims=(*first, *(0 if dim == own else None for own in range(4)), *others))
        # Tables may be read at places, `bias[h, q - k]`, which are tensors here.
        with TransformGetItemToIndex():
            return inner(*args)

    return found


def laid_out_as(query: Tensor, result: Tensor) -> Tensor:
    """Its dimensions in memory as those of the queries, so that what can be a view of the result is one."""
    order = sorted(range(query.ndim), key=lambda dim: -query.stride()[dim])
    if order == [*range(query.ndim)]:
        return result.contiguous()
    back = [order.index(dim) for dim in range(query.ndim)]
    return result.permute(order).contiguous().permute(back)
