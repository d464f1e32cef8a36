"""A wide result, of which nobody keeps all rows: they are computed of a narrow value where they are read."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..passes.rewrite.parts import HeadPart
from .choose import in_buckets
from .prologue import Values


class WideResult:
    """A result of one call by its head: the rows of it that were read, and what the others are computed of.

    Attributes:
        cache: all rows of what the head reads, each as old as the row of the result that it stands for.
        place: int64 ``[B * N]``, for each token its row among ``rows [M, ...]``; -1 where that is not computed.
    """

    def __init__(self, own: HeadPart, cache: Tensor, values: Values) -> None:
        self.own = own
        self.cache = cache
        self.values = values
        samples, tokens = (own.spec.shape[dim] for dim in (own.spec.layout.batch_dim, own.spec.layout.token_dim))
        self.shape = (samples, tokens)
        self.place = torch.full((samples * tokens,), -1, device=cache.device)
        self.rows: Tensor | None = None

    @property
    def samples(self) -> Tensor:
        return torch.arange(self.shape[0], device=self.cache.device)[:, None]

    def computed(self, positions: Tensor) -> Tensor:
        """The rows of tokens ``positions [B, R]`` as the head gives them: ``[.., B, .., R, ..]``."""
        inputs = [self.cache if node is self.own.head.value else self.values[node] for node in self.own.part.inputs]
        found: Tensor = self.own.part.module(self.samples, positions, *inputs)
        # Of what was expanded, each row in memory of its own.
        return found.contiguous()

    @property
    def there(self) -> Tensor:
        """The tokens whose rows are computed, bool ``[B, N]``."""
        return (self.place >= 0).view(self.shape)

    def forget(self, tokens: Tensor) -> None:
        """The rows of ``tokens``, bool ``[B, N]``, are others by now."""
        self.place.masked_fill_(tokens.flatten(), -1)

    def add(self, positions: Tensor) -> None:
        """Compute the rows of tokens ``positions [B, R]``. Those that are there stay, to the last bit."""
        layout, numbers = self.own.spec.layout, (self.samples * self.shape[1] + positions).flatten()
        front = self.computed(positions).movedim((layout.batch_dim, layout.token_dim), (0, 1))
        rows = front.reshape(len(numbers), *front.shape[2:])
        start = 0 if self.rows is None else len(self.rows)
        self.rows = rows if self.rows is None else torch.cat([self.rows, rows])
        before, new = self.place[numbers], torch.arange(start, start + len(numbers), device=self.place.device)
        self.place[numbers] = torch.where(before < 0, new, before)

    def ensure(self, tokens: Tensor) -> int:
        """Have the rows of ``tokens``, bool ``[B, N]``; return how many of each sample were computed for it."""
        missing = tokens & ~self.there
        most = int(missing.sum(1).amax())
        if not most:
            return 0
        count = min(in_buckets(most), self.shape[1])
        self.add(missing.to(torch.uint8).topk(count, 1).indices)
        return count

    def of(self, tokens: Tensor) -> Tensor:
        """The rows of tokens ``[R]``, ``sample N + token`` each, which are there: ``[R, ...]``."""
        assert self.rows is not None
        return self.rows[self.place[tokens]]

    def whole(self) -> Tensor:
        """All of it, in memory of its own."""
        # Not as an inference tensor: a session may go on outside of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            every = torch.arange(self.shape[1], device=self.cache.device).expand(self.shape).contiguous()
            found = self.computed(every)
            if self.rows is not None:
                numbers, layout = (self.place >= 0).nonzero()[:, 0], self.own.spec.layout
                view = found.movedim((layout.batch_dim, layout.token_dim), (0, 1))
                view[numbers // self.shape[1], numbers % self.shape[1]] = self.of(numbers)
            return found

    def update(self, whole: Tensor, positions: Tensor) -> None:
        """Write the rows of tokens ``positions [B, R]`` into all of them."""
        layout = self.own.spec.layout
        rows = self.computed(positions)
        ops.update_cache(whole, rows, self.samples, positions, layout.batch_dim, layout.token_dim)

    def keep(self) -> None:
        """Have for oneself what the rows are computed of: it is about to be written."""
        self.cache = self.cache.clone()
