"""What a study asks of a decoding loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import Tensor

Query = Callable[..., Tensor]
"""What `transform` takes as ``query``: a step's arguments to the tokens whose results are read, bool ``[B, N]``."""


class Loop(Protocol):
    """A way to decode; its ``steps`` are those that fewer steps are a part of."""

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        ...

    @property
    def calls(self) -> int:
        """Steps of a whole decoding."""
        ...

    def decode(self, model: Any, given: Tensor, seed: int, fewer: int = 1) -> Tensor:
        """The answers ``[B, A]`` to what is given, ``[B, ...]``, in one of ``fewer`` of the steps."""
        ...


AnyLoop = TypeVar("AnyLoop", bound=Loop)
