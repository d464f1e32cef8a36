"""What a policy may ask to be measured. A signal is a key of `History`: ``history.latest(ValueDrift())``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..checks import check_callable, check_text, check_word
from ..errors import ArgumentError

Sites = int | str | tuple[str, ...]
"""Attention sites: so many from the first on, ``"all"``, ``"last"``, or module paths as `explain` prints them."""


@dataclass(frozen=True)
class Signal:
    """A number for each token, ``[B, N]`` float32, measured in the last step method of a decoding step."""


@dataclass(frozen=True)
class SiteSignal(Signal):
    """A signal that is the mean over attention sites."""

    sites: Sites

    def __post_init__(self) -> None:
        check_sites(self.sites)


@dataclass(frozen=True)
class AttentionReceived(SiteSignal):
    """The attention that each key received from the queried tokens, mean over heads (MARché, arXiv 2506.12035).

    It costs one product of the queried rows with all keys a site; the attention itself stays fused.
    """

    sites: Sites = 2


@dataclass(frozen=True)
class ValueDrift(SiteSignal):
    """How far the values of a row just recomputed moved from the cached ones, over their norm.

    Of a row that was not recomputed it is what was last measured, 0 before.
    """

    sites: Sites = 1


@dataclass(frozen=True)
class InputDrift(Signal):
    """How far each token's region input has moved since the token was last computed, over its norm.

    It is known of every token before the step runs. With a policy's ``exact_sites`` the region's input is what the
    first layers computed in full.
    """


@dataclass(frozen=True)
class RowSignal(Signal):
    """A function of the rows just computed at one site.

    With one of ``"q"`` or ``"output"`` results of all active tokens are computed, not only of those that are read.

    Args:
        function: called with ``now [B, A, F]`` and, for ``"k"`` and ``"v"``, ``before [B, A, F]``, the cached rows that
            they replace, otherwise None; returns ``[B, A]``. It becomes part of the rewritten graph.
        site: module path of an attention site. tensor: ``"q"``, ``"k"``, ``"v"`` or ``"output"`` of it.
    """

    function: Callable[[Tensor, Tensor | None], Tensor]
    site: str
    tensor: str = "v"

    def __post_init__(self) -> None:
        check_callable("function", self.function)
        check_text("site", self.site)
        check_word("tensor", self.tensor, ("q", "k", "v", "output"))


@dataclass(frozen=True)
class ResultConfidence(Signal):
    """How sure a result is of each token, by the probabilities that a softmax over its channels gives.

    Measured of tokens whose results were computed; of others it is what was last measured.

    Args:
        of: ``"probability"``, the largest one; ``"margin"``, how much larger it is than the second; ``"entropy"``, in
            nats, the less the surer.
    """

    of: str = "probability"

    def __post_init__(self) -> None:
        check_word("of", self.of, CONFIDENCES)


CONFIDENCES = ("probability", "margin", "entropy")


def check_sites(sites: Sites) -> None:
    counted = isinstance(sites, int) and not isinstance(sites, bool) and sites >= 1
    listed = isinstance(sites, tuple) and bool(sites) and all(isinstance(path, str) for path in sites)
    if not (counted or listed or (isinstance(sites, str) and sites)):
        raise ArgumentError(f"sites must be at least 1, 'all', 'last' or a tuple of module paths, got {sites!r}")
