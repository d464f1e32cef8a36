"""How far a decoding is, for a head whose denoising depends on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..denoising import Denoising, parse_denoising
from ..denoising.replace import with_denoising
from ..errors import ArgumentError, UnsupportedModelError
from ..runtime.open_sessions import OpenSession, current_session
from .optimization import Optimization, optimization_of

KNOWN_COUNT = "num_iter"
"""The argument of MAR's loop that says in how many steps it decodes."""


def replaced_heads(
    model: nn.Module, heads: Sequence[str], denoising: Denoising | str | None, owner: Optimization
) -> dict[str, nn.Module]:
    """The heads of a model by name, copied to denoise as ``denoising`` says; themselves where it is None.

    Args:
        owner: of the sessions that tell how far a decoding is, and of denoisers that reuse.

    Raises:
        ArgumentError: it is no `Denoising`, or the schedule has not so many timesteps.
        UnsupportedModelError: the model has no head, or one whose diffusion is not known.
    """
    found = {name: model.get_submodule(name) for name in heads}
    if denoising is None:
        return found
    asked = parse_denoising(denoising) if isinstance(denoising, str) else denoising
    if not isinstance(asked, Denoising):
        raise ArgumentError(f"denoising must be a Denoising, such as Denoising(steps=25), got {denoising!r}")
    if not heads:
        raise UnsupportedModelError(
            f"denoising needs a diffusion head, and {type(model).__name__} has none that is known; name the child that "
            "holds its gen_diffusion: transform(..., head=...)"
        )
    return {
        name: with_denoising(head, asked, progress_of(owner), announce_to(owner, name)) for name, head in found.items()
    }


def announce_to(owner: Optimization, head: str) -> Callable[[Sequence[int]], None]:
    """Tells the denoisers of a head the timesteps to come."""

    def announce(timesteps: Sequence[int]) -> None:
        for path, step in owner.heads.items():
            if path.startswith(f"{head}."):
                step.expect(timesteps)

    return announce


def progress_of(owner: object) -> Callable[[int | None], tuple[int, int]]:
    """Counts the calls of a head in each session: one in each decoding step."""

    def progress(given: int | None) -> tuple[int, int]:
        session = current_session(owner)
        if session is None:
            raise ArgumentError(
                "anneal depends on how far the decoding is, and the head was called outside of one: call it in the "
                "loop method, or inside `with decoding(optimized)`"
            )
        of = session.decoding_steps if given is None else given
        if of is None:
            raise ArgumentError(
                f"anneal needs the number of decoding steps, and no loop method was asked for it by {KNOWN_COUNT}: "
                "give Denoising(..., decoding_steps=...)"
            )
        step = session.head_calls
        if step >= of:
            raise ArgumentError(
                f"the head is called more often than the {of} times over which anneal was to fall. Give the number of "
                "its calls: Denoising(..., decoding_steps=...)"
            )
        session.head_calls += 1
        return step, of

    return progress


@contextmanager
def decoding_at(model: nn.Module, step: int, of: int) -> Iterator[None]:
    """Inside, the head of a transformed model is called as in decoding step ``step`` of ``of``."""
    with OpenSession(optimization_of(model)) as session:
        session.decoding_steps, session.head_calls = of, step
        yield


def decoding_steps(loop: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """The number of decoding steps that a call of a loop method asks for, where it has an argument for it."""
    try:
        bound = inspect.signature(loop).bind(*args, **kwargs)
    except (TypeError, ValueError):
        # The call itself tells what is wrong with its arguments.
        return None
    bound.apply_defaults()
    count = bound.arguments.get(KNOWN_COUNT)
    return count if isinstance(count, int) else None
