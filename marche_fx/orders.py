"""Orders in which the tokens of an image grid are decoded, and how many in each step.

An order is int64 ``[B, N]``, the token that is decoded first standing first. A loop that counts from the other end, as
MAR's ``orders=`` does, takes ``order.flip(-1)``. Counts are tokens decoded in each step, at least one, ``N`` in all.
Both are plain values, for any loop that takes an order or a number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .checks import is_count, shown
from .errors import ArgumentError

Order = Callable[[int, int, int, torch.Generator | None], Tensor]
"""``(samples, height, width, generator) -> [B, N]``."""

Counts = Callable[[int, int], list[int]]
"""``(tokens, steps) -> counts``."""


def random_order(samples: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Another order for each sample."""
    check_grid(samples, height, width)
    return torch.rand(samples, height * width, generator=generator).argsort(-1)


def raster_order(samples: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Row by row: what neighbours tell one another is used as early as can be, and as one-sidedly."""
    check_grid(samples, height, width)
    return torch.arange(height * width).repeat(samples, 1)


def halton_order(samples: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Along a Halton sequence (arXiv 2503.17076): tokens of a step are far apart, and tell one another least.

    The cells of the grid in the order in which points of bases 2 and 3 fall into them. Each sample is shifted by
    random rows and columns, so that samples differ; by none where there is no ``generator``.
    """
    check_grid(samples, height, width)
    cells = halton_cells(height, width)
    if generator is None:
        return (cells[:, 0] * width + cells[:, 1]).repeat(samples, 1)
    rows = torch.randint(height, (samples, 1), generator=generator)
    columns = torch.randint(width, (samples, 1), generator=generator)
    return (cells[:, 0] + rows) % height * width + (cells[:, 1] + columns) % width


def checkerboard_order(samples: int, height: int, width: int, generator: torch.Generator | None = None) -> Tensor:
    """One colour of a checkerboard, then the other, each in random order (GtR, arXiv 2510.17171).

    Every token of the second colour is decoded between neighbours that are there. With `two_stage_counts` the first
    colour takes most of the steps.
    """
    order = random_order(samples, height, width, generator)
    is_second = (order // width + order % width) % 2
    return order.gather(-1, is_second.argsort(stable=True, dim=-1))


ORDERS: dict[str, Order] = {
    "random": random_order,
    "raster": raster_order,
    "halton": halton_order,
    "checkerboard": checkerboard_order,
}
"""By name."""


def order_by_name(name: str) -> Order:
    """The order of this name.

    Raises:
        ArgumentError: there is none; the message lists those that exist.
    """
    if name not in ORDERS:
        raise ArgumentError(f"there is no order {name!r}; there are {', '.join(ORDERS)}")
    return ORDERS[name]


def cosine_counts(tokens: int, steps: int) -> list[int]:
    """Few tokens first, while little is known, and many at the end (MaskGIT, arXiv 2202.04200); MAR's own."""
    return counts_along(lambda share: 1 - math.cos(math.pi / 2 * share), tokens, steps)


def linear_counts(tokens: int, steps: int) -> list[int]:
    """As many tokens in each step as in any other."""
    return counts_along(lambda share: share, tokens, steps)


def two_stage_counts(tokens: int, steps: int, *, first: int | None = None, share: float = 0.75) -> list[int]:
    """A ``share`` of the steps for the ``first`` tokens, half of all when omitted; the others in the rest.

    As GtR (arXiv 2510.17171) goes: the skeleton, one colour of a checkerboard, slowly along a cosine, and what lies
    between it evenly in few steps.

    Raises:
        ArgumentError: there are not as many tokens or steps as two stages need.
    """
    first = tokens - tokens // 2 if first is None else first
    if not 0 < share < 1:
        raise ArgumentError(f"share must lie between 0 and 1, got {share!r}")
    if steps < 2:
        raise ArgumentError(f"two stages need at least 2 steps, got {steps}")
    if not 0 < first < tokens:
        raise ArgumentError(f"first must lie in 1..{tokens - 1}, so that each stage has tokens, got {first}")
    least, most = max(1, steps - (tokens - first)), min(steps - 1, first)
    own = min(max(round(share * steps), least), most)
    return cosine_counts(first, own) + linear_counts(tokens - first, steps - own)


COUNTS: dict[str, Counts] = {"cosine": cosine_counts, "linear": linear_counts, "two-stage": two_stage_counts}
"""By name."""


def counts_along(share_decoded: Callable[[float], float], tokens: int, steps: int) -> list[int]:
    """Counts that follow the share of tokens decoded by a share of the steps, from 0 to 1; at least one in each.

    Raises:
        ArgumentError: there are more steps than tokens, or none.
    """
    check_steps(tokens, steps)
    counts, left = [], tokens
    for step in range(1, steps + 1):
        wanted = tokens - math.floor(tokens * (1 - share_decoded(step / steps)) + 1e-9)
        # The rest needs a token for each later step.
        count = min(max(wanted - (tokens - left), 1), left - (steps - step))
        counts.append(count)
        left -= count
    return counts


def checked_counts(counts: Sequence[int], tokens: int, steps: int) -> list[int]:
    """``counts`` as a list, if they decode ``tokens`` in ``steps``.

    Raises:
        ArgumentError: they do not.
    """
    found = list(counts) if isinstance(counts, Sequence) else []
    if not all(is_count(own, 1) for own in found) or len(found) != steps or sum(found) != tokens:
        raise ArgumentError(
            f"counts must be {steps} numbers of at least 1 that add up to the {tokens} tokens, got {shown(counts)}"
        )
    return found


def check_grid(samples: int, height: int, width: int) -> None:
    if min(samples, height, width) < 1:
        raise ArgumentError(f"an order needs samples, rows and columns, got {samples}, {height} and {width}")


def check_steps(tokens: int, steps: int) -> None:
    if not 1 <= steps <= tokens:
        raise ArgumentError(f"the number of steps must lie in 1..{tokens}, one token for each, got {steps}")


def halton_cells(height: int, width: int) -> Tensor:
    """Row and column of each cell ``[N, 2]``, in the order in which a point of the sequence first falls into it."""
    found: dict[tuple[int, int], None] = {}
    number = 0
    while len(found) < height * width:
        number += 1
        found.setdefault((place_of(number, 2, height), place_of(number, 3, width)))
    return torch.tensor(list(found))


def place_of(number: int, base: int, cells: int) -> int:
    """In which of ``cells`` the digits of ``number`` lie that stand mirrored behind the point; in whole numbers."""
    mirrored, scale = 0, 1
    while number:
        number, digit = divmod(number, base)
        mirrored, scale = mirrored * base + digit, scale * base
    return mirrored * cells // scale
