"""The built-in policies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..checks import check_count, check_flag, check_not_negative, check_positive, check_share, is_count, shown
from ..errors import ArgumentError, PolicyError
from .budget import AdaptiveBudget, Budget, check_budget, share_of
from .history import History, Refresh, everything
from .policy import RefreshPolicy
from .signals import AttentionReceived, InputDrift, Signal, Sites, ValueDrift, check_sites


@dataclass(frozen=True, repr=False)
class FullRefresh(RefreshPolicy):
    """Recompute every token in every step: the original's result."""

    tolerance: float = field(default=0.0, init=False)

    def choose(self, history: History) -> Refresh:
        return everything(history)


@dataclass(frozen=True, repr=False)
class BudgetedRefresh(RefreshPolicy):
    """Recompute the tokens of the highest priority, a share of the token axis; a policy of this kind says `priority`.

    Args:
        fraction: share of the token axis to refresh in each step, 0..1, or a schedule of shares.
        warmup: first steps to compute in full.
        every: compute every so many steps in full; never when None.
        tolerance: relative movement of a token's input that counts as drift, not as change.
        queried: of the tokens whose results the loop reads, compute at most this share of the token axis, 0..1, by
            the same priority; what is read of the others is as old as it is, and reports count it. None for all of
            them. Loops that look at every masked token in every step gain little without it.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    fraction: Budget = 0.1
    warmup: int = 3
    every: int | None = None
    tolerance: float = 0.1
    queried: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_budget(self.fraction)
        check_count("warmup", self.warmup)
        if self.every is not None:
            check_count("every", self.every, least=1)
        check_not_negative("tolerance", self.tolerance)
        if self.queried is not None:
            check_share("queried", self.queried)

    # Computed here of what is an attribute of other policies, which mypy allows to no subclass.
    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        budget = self.fraction.signals if isinstance(self.fraction, AdaptiveBudget) else ()
        return (*self.own_signals, *(signal for signal in budget if signal not in self.own_signals))

    @property
    def own_signals(self) -> tuple[Signal, ...]:
        """What `priority` reads of the history's signals."""
        return ()

    def choose(self, history: History) -> Refresh:
        due = self.every is not None and history.step % self.every == 0
        if history.step < self.warmup or due:
            return everything(history)
        count = round(share_of(self.fraction, history) * history.tokens)
        if count >= history.tokens:
            return everything(history)
        room = None if self.queried is None else max(round(self.queried * history.tokens), 1)
        priority, exact = self.priority(history), history.exact
        if exact is not None and isinstance(priority, Tensor):
            # Computed again they would be what they are.
            priority = priority.masked_fill(exact, -math.inf)
        # Where none is asked for, shapes may still leave room for some.
        return Refresh(count, priority, queried=room)

    def priority(self, history: History) -> Tensor:
        """``[B, N]``, higher is recomputed first."""
        raise PolicyError(
            f"{type(self).__name__} does not say which tokens come first: override priority(self, history)"
        )


OBSERVED = 4
"""Attention sites that are observed unless others are named."""


@dataclass(frozen=True, repr=False)
class SelectiveRefresh(BudgetedRefresh):
    """Recompute the tokens that the queried ones attend to most (selective KV refresh, MARché, arXiv 2506.12035).

    The priority of a token is the attention it received from the queried tokens, smoothed over steps, times its age: a
    stale row harms by the attention paid to it times how far it has moved. Other arguments as in `BudgetedRefresh`.

    Args:
        sites: attention sites to observe: so many from the first on, ``"all"``, ``"last"``, or module paths.
        age: False, with ``sites="all"``, for the paper's signal, the attention of the step before alone.
    """

    sites: Sites = OBSERVED
    age: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sites(self.sites)
        check_flag("age", self.age)

    @property
    def own_signals(self) -> tuple[Signal, ...]:
        return (AttentionReceived(self.sites),)

    def priority(self, history: History) -> Tensor:
        signal = AttentionReceived(self.sites)
        attention = history.smoothed(signal) if self.age else history.latest(signal)
        if attention is None:
            return history.age
        # Of a sample of which nothing was read yet nobody told whom it attends to.
        attention = torch.where(attention.any(1, keepdim=True), attention, 1.0)
        return attention * history.age if self.age else attention


@dataclass(frozen=True, repr=False)
class InterleavedRefresh(RefreshPolicy):
    """Full steps alternate with steps of the queried and changed tokens alone (ReCAP, arXiv 2505.19089).

    Args:
        period: after the first steps, one in so many is in full.
        warmup: first steps to compute in full; ReCAP computes a share of all steps so.
        tolerance: relative movement of a token's input that counts as drift, not as change.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    period: int = 2
    warmup: int = 8
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        check_count("period", self.period, least=1)
        check_count("warmup", self.warmup)
        check_not_negative("tolerance", self.tolerance)

    def choose(self, history: History) -> Refresh:
        after = history.step - self.warmup
        is_full = after < 0 or (after + 1) % self.period == 0
        return everything(history) if is_full else Refresh(0, history.age)


@dataclass(frozen=True, repr=False)
class DriftRefresh(BudgetedRefresh):
    """Recompute the tokens that moved most (LazyMAR, arXiv 2503.12450; dLLM-Cache, arXiv 2506.06295).

    Without ``exact_sites``, a token's drift is how far its values moved when it was last recomputed, times its age.
    With it, the first attention sites run on all tokens in every step, as LazyMAR's first three decoder layers do, and
    a token's drift is how far what they give to the later layers has moved: a better signal at the price of those
    layers. A step that drops tokens computes the dropped ones there too, so give it to a step that drops none:
    ``refresh={"forward_mae_encoder": ..., "forward_mae_decoder": DriftRefresh(exact_sites=3)}``. Other arguments as in
    `BudgetedRefresh`.

    Args:
        sites: whose values are measured without ``exact_sites``.
        tolerance: 0.1 when omitted, infinite with ``exact_sites``, where every token's input moves a little and the
            budget decides which are recomputed.
    """

    tolerance: float = math.nan
    exact_sites: int = 0
    sites: Sites = 1

    def __post_init__(self) -> None:
        if isinstance(self.tolerance, float) and math.isnan(self.tolerance):
            object.__setattr__(self, "tolerance", math.inf if self.exact_sites else 0.1)
        super().__post_init__()
        check_count("exact_sites", self.exact_sites)
        check_sites(self.sites)

    @property
    def own_signals(self) -> tuple[Signal, ...]:
        return (InputDrift(),) if self.exact_sites else (ValueDrift(self.sites),)

    def priority(self, history: History) -> Tensor:
        drift = history.latest(self.own_signals[0])
        if drift is None:
            return history.age
        return drift if self.exact_sites else drift * history.age


@dataclass(frozen=True, repr=False)
class StalenessRefresh(BudgetedRefresh):
    """Recompute the tokens that were not for longest. Arguments as in `BudgetedRefresh`."""

    def priority(self, history: History) -> Tensor:
        return history.age


@dataclass(frozen=True, repr=False)
class RandomRefresh(BudgetedRefresh):
    """Recompute random tokens: the baseline that a signal has to beat. Other arguments as in `BudgetedRefresh`.

    Args:
        seed: of the draws; the same in every session.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ArgumentError(f"seed must be a whole number, got {shown(self.seed)}")

    def priority(self, history: History) -> Tensor:
        generator = torch.Generator(history.age.device).manual_seed(self.seed * 10_007 + history.step)
        return torch.rand(history.age.shape, generator=generator, device=history.age.device, dtype=torch.float32)


@dataclass(frozen=True, repr=False)
class NeighbourRefresh(BudgetedRefresh):
    """Recompute the tokens nearest to the newly generated ones, in an image or a text. Others as in `BudgetedRefresh`.

    Tokens in front of the grid, such as MAR's class tokens, count as ``radius`` away from everything.

    Args:
        grid: height and width in tokens; the largest square when omitted; ``"line"`` for a text.
        radius: distance in tokens at which a token of age 1 is as urgent as a neighbour of age ``e^-0.5``.
    """

    grid: tuple[int, int] | str | None = None
    radius: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        is_pair = isinstance(self.grid, (tuple, list)) and len(self.grid) == 2
        is_grid = is_pair and all(is_count(own, 1) for own in self.grid or ())
        if self.grid not in (None, "line") and not is_grid:
            raise ArgumentError(f"grid must be 'line' or a height and a width of at least 1, got {shown(self.grid)}")
        check_positive("radius", self.radius)
        if self.radius == math.inf:
            raise ArgumentError("radius must be finite")

    def priority(self, history: History) -> Tensor:
        height, width = self.shape(history.tokens)
        front = history.tokens - height * width
        if front < 0:
            raise ArgumentError(f"grid {height} x {width} has more than the {history.tokens} tokens of the step")
        assert history.changed is not None
        new = history.changed[:, front:]
        place = torch.arange(height * width, device=new.device)
        spot = torch.stack([place // width, place % width], 1).float()
        # [N, N] distances; those to tokens that are not new do not count.
        distance = torch.cdist(spot, spot).masked_fill(~new[:, None], math.inf).amin(-1)
        near = torch.nn.functional.pad(distance, (front, 0), value=self.radius)
        return torch.exp(-((near / self.radius) ** 2) / 2) * history.age

    def shape(self, tokens: int) -> tuple[int, int]:
        """Height and width of the grid."""
        if self.grid is None:
            return (math.isqrt(tokens),) * 2
        if isinstance(self.grid, str):
            return 1, tokens
        return self.grid
