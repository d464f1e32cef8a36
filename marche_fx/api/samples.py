"""A loop that stops decoding some samples of its batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ArgumentError
from ..runtime.open_sessions import current_session
from .optimization import optimization_of


def keep_samples(optimized: nn.Module, kept: Tensor) -> None:
    """From the next step on the loop decodes only these samples of its batch, and their caches go on.

    For a loop whose samples are finished at different times::

        with marche_fx.decoding(optimized):
            while len(ids):
                logits = optimized(ids)
                ...
                ids = ids[unfinished]
                marche_fx.keep_samples(optimized, unfinished)

    Without it a call with fewer samples begins anew, as another generation does. Results of earlier calls stay what
    they are. The first call ever with so many samples, in any session, is in full where `transform` verifies.

    Args:
        kept: bool ``[B]``, or their positions ``[B']`` in the order in which the next call has them, of the samples
            that the last call had.

    Raises:
        ArgumentError: no step was called in a session of the model here, or ``kept`` does not tell samples of its last
            call.
    """
    optimization = optimization_of(optimized)
    session = current_session(optimization)
    if session is None or session.samples is None:
        raise ArgumentError(
            "keep_samples is for a loop inside `with marche_fx.decoding(model):` that has called a step of the model"
        )
    session.keep(positions_in(kept, session.samples))


def positions_in(kept: Tensor, samples: int) -> Tensor:
    """The positions ``[B']`` that ``kept`` tells among so many samples."""
    if not isinstance(kept, Tensor) or kept.ndim != 1 or kept.is_floating_point() or kept.is_complex():
        got = f"{kept.dtype} {list(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
        raise ArgumentError(f"kept must be a mask [{samples}] of the samples, or their positions [..], got {got}")
    if kept.dtype is torch.bool:
        if len(kept) != samples:
            raise ArgumentError(f"kept is a mask of {len(kept)} samples, and the last call had {samples}")
        return kept.nonzero()[:, 0]
    if len(kept) and not bool(((kept >= 0) & (kept < samples)).all()):
        raise ArgumentError(f"kept holds positions outside of the {samples} samples of the last call: {kept.tolist()}")
    return kept.long()
