"""Which cached rows are what a computation of all tokens would give, because nothing that they see has moved since.

Under a mask that is causal from block to block, the rows of a finished block are exact for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..passes.analysis.sight import Sight
from .lengths import Kept


class Exactness:
    """The exact rows of the caches of one step method in one session.

    Attributes:
        rows: bool ``[B, N]``, the rows that are exact.
        is_known: whether `look` was called since the step was.
    """

    def __init__(self, sight: Sight, samples: int, tokens: int, device: torch.device) -> None:
        self.sight = sight
        self.rows = torch.zeros(samples, tokens, dtype=torch.bool, device=device)
        self.is_known = False
        self.masks: list[Tensor] = []
        self.sees: Tensor | None = None
        """``[B, N, N]`` or ``[1, N, N]`` float32, 1 where a token attends to another in some attention."""
        self.is_of_use: bool | None = None
        """Whether some token does not see some other; None before anybody looked."""

    def look(self, values: Mapping[fx.Node, Any], moved: Tensor) -> Tensor | None:
        """The rows that are exact and stay so if they are not computed in this step, bool ``[B, N]``.

        None where every token sees every other. The first look waits for the device.

        Args:
            moved: bool ``[B, N]``, tokens whose inputs are not what they were when they were last computed.
        """
        if self.is_of_use is False:
            return None
        masks = self.masks_of(values)
        moved = moved | self.seeing_others(masks)
        if self.sees is None or any(own is not before for own, before in zip(masks, self.masks)):
            self.sees = self.seen(masks)
        if self.is_of_use is None:
            self.is_of_use = not bool(self.sees.all())
        self.masks, self.is_known = masks, True
        self.rows = self.rows & ~self.reached(moved)
        return self.rows if self.is_of_use else None

    def leave(self, values: Mapping[fx.Node, Any], active: Tensor, *, complete: bool) -> None:
        """The tokens ``active [B, A]``, or all, were computed: exact where what they see is, or was computed too."""
        if complete:
            self.masks, self.sees = self.masks_of(values), None
            self.rows = torch.ones_like(self.rows)
        elif not self.is_known:
            self.rows = torch.zeros_like(self.rows)
        elif self.is_of_use:
            computed = torch.zeros_like(self.rows).scatter(1, active, True)
            self.rows = torch.where(computed, ~self.reached(~computed & ~self.rows), self.rows)

    def at_length(self, kept: Kept, sight: Sight, values: Mapping[fx.Node, Any]) -> Exactness:
        """The same for calls of another length: rows that saw a token which is gone are not exact any more."""
        found = Exactness(sight, self.rows.shape[0], sum(kept.after), self.rows.device)
        rows = self.rows
        if sum(kept.after) < sum(kept.before):
            self.sees = self.seen(self.masks) if self.sees is None else self.sees
            gone = torch.arange(rows.shape[1], device=rows.device) >= sum(kept.after)
            rows = rows & ~self.reached(gone.expand_as(rows))
        found.rows = kept.rows(rows, fill=False)
        found.masks = found.masks_of(values)
        return found

    def masks_of(self, values: Mapping[fx.Node, Any]) -> list[Tensor]:
        return [values[node] for node, _ in self.sight.masks]

    def seeing_others(self, masks: list[Tensor]) -> Tensor:
        """Tokens that see others than in the last step, or the same otherwise: bool ``[B, N]``."""
        found = torch.zeros_like(self.rows)
        for own, before, (_, shape) in zip(masks, self.masks, self.sight.masks):
            if own is not before:
                rows = (own != before).any(-1)
                rows = rows[(None,) * (len(shape) - own.ndim)]
                found = found | (rows.flatten(1, -2).any(1) if rows.ndim > 2 else rows)
        return found

    def reached(self, tokens: Tensor) -> Tensor:
        """Those who see one of ``tokens``, bool ``[B, N]``, or one who does, as often as there are attentions."""
        assert self.sees is not None
        found = tokens.to(torch.float32)[..., None]
        for _ in range(self.sight.hops):
            found = (found + self.sees @ found).clamp(max=1.0)
        return found[..., 0] > 0

    def seen(self, masks: list[Tensor]) -> Tensor:
        """Who sees whom in some attention: ``[B, N, N]`` or ``[1, N, N]`` float32."""
        tokens = self.rows.shape[1]
        found = torch.eye(tokens, dtype=torch.bool, device=self.rows.device)[None]
        if self.sight.causal:
            found = torch.ones_like(found).tril()
        for mask, (_, shape) in zip(masks, self.sight.masks):
            allowed = mask if mask.dtype is torch.bool else mask > torch.finfo(mask.dtype).min
            # Who sees nobody by an additive mask sees all alike.
            allowed = allowed | ~allowed.any(-1, keepdim=True)
            allowed = allowed[(None,) * (len(shape) - allowed.ndim)]
            found = found | (allowed.flatten(1, -3).any(1) if allowed.ndim > 3 else allowed)
        return found.float()
