"""What is compared: a policy with what it is told to be read, or fewer steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

from ...refresh import RefreshPolicy
from .loops import AnyLoop, Query

ORIGINAL = "original"


@dataclass(frozen=True)
class Variant(Generic[AnyLoop]):
    """One way to decode.

    Attributes:
        policy: for a loop; None for the original model.
        query: for a loop and the mask's number, what is said to be read; None to find it out from what the loop reads.
        whole: the loop gets results as a whole, as old as the policy leaves them. fewer: one of so many steps is done.
    """

    policy: Callable[[AnyLoop], RefreshPolicy] | None = None
    query: Callable[[AnyLoop, int], Query] | None = None
    whole: bool = False
    fewer: int = 1
