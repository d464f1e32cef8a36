"""From the signals that a policy asks for to the hooks that measure them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import fx

from .. import ops
from ..errors import ArgumentError
from ..passes.rewrite.hooks import Hooks
from ..refresh import AttentionReceived, ResultConfidence, RowSignal, Signal, ValueDrift


def inserter(signal: Signal) -> Callable[[Hooks], fx.Node | None]:
    """What inserts the measurement of ``signal`` into a rewritten step.

    Raises:
        ArgumentError: the signal is of a kind that nobody measures.
    """
    if isinstance(signal, AttentionReceived):
        return lambda hooks: hooks.attention(signal.sites)
    if isinstance(signal, ValueDrift):
        return lambda hooks: hooks.value_drift(signal.sites)
    if isinstance(signal, RowSignal):
        return lambda hooks: hooks.rows(signal.site, signal.tensor, signal.function)
    if isinstance(signal, ResultConfidence):
        return lambda hooks: hooks.result(partial(ops.confidence, of=signal.of))
    raise ArgumentError(
        f"nobody measures {signal!r}; use AttentionReceived, ValueDrift, InputDrift, ResultConfidence or RowSignal"
    )


def reads_results(signal: Signal) -> bool:
    """Whether a signal is of rows that of the last site are only computed where results are."""
    return isinstance(signal, RowSignal) and signal.tensor in ("q", "output")


def compares_rows(signal: Signal) -> bool:
    """Whether a signal compares rows with the cached ones that they replace."""
    return isinstance(signal, ValueDrift) or (isinstance(signal, RowSignal) and signal.tensor in ("k", "v"))
