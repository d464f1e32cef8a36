"""What a search for a recipe found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from ..errors import TuningError
from ..recipes import Recipe, save_recipe
from .halving import Measured, front
from .intervals import Interval


@dataclass(frozen=True)
class Outcome:
    """A recipe on seeds that the search did not see.

    Attributes:
        speedup: of the whole generation, over the original's, median of turns in one process.
        loss: the judge's difference from the original on the same seeds, with a 95% interval.
    """

    recipe: Recipe
    speedup: float
    loss: Interval

    def with_figures(self) -> Recipe:
        """The recipe with what was measured of it."""
        found = {"speedup": self.speedup, "loss": self.loss.estimate, "low": self.loss.low, "high": self.loss.high}
        return replace(self.recipe, figures={name: round(value, 4) for name, value in found.items()})


@dataclass(frozen=True)
class TunedRecipe:
    """What `tune_recipe` found; printable.

    Attributes:
        recipe: the fastest within ``max_loss``, with its figures. outcomes: all that were judged on unseen seeds.
    """

    recipe: Recipe
    max_loss: float
    outcomes: tuple[Outcome, ...] = field(repr=False)

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], max_loss: float) -> TunedRecipe:
        """The fastest of the outcomes within the bound.

        Raises:
            TuningError: there is none; the message says the smallest loss.
        """
        within = [own for own in outcomes if own.loss.high <= max_loss]
        if not within:
            least = min((own.loss.high for own in outcomes), default=float("nan"))
            raise TuningError(
                f"no recipe loses {max_loss:g} at most: the least that is sure of one on unseen seeds is "
                f"{least:.3g}. More seeds make intervals narrower; other ingredients may lose less"
            )
        fastest = max(within, key=lambda own: own.speedup)
        return cls(fastest.with_figures(), max_loss, tuple(outcomes))

    def within(self, max_loss: float) -> Recipe:
        """The fastest recipe within another bound, of those that were judged; raises as the search does."""
        return TunedRecipe.of(self.outcomes, max_loss).recipe

    @property
    def front(self) -> tuple[Outcome, ...]:
        """Those outcomes of which no other is both faster and better, the fastest first."""
        places = [Measured(place, 1 / own.speedup, own.loss.estimate) for place, own in enumerate(self.outcomes)]
        return tuple(self.outcomes[own.candidate] for own in front(places))

    def save(self, path: str | Path) -> None:
        """Write the recipe as JSON, for ``transform(model, recipe=path)``."""
        save_recipe(self.recipe, path)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table("times faster", "loss", "95% interval", "recipe", title=f"loss at most {self.max_loss:g}")
        on_front = self.front
        for own in sorted(self.outcomes, key=lambda own: -own.speedup):
            style = "bold" if own.recipe == self.recipe else "" if own in on_front else "dim"
            low, high = own.loss.low, own.loss.high
            table.add_row(
                f"{own.speedup:.2f}x",
                f"{own.loss.estimate:+.3f}",
                f"{low:+.3f} .. {high:+.3f}",
                str(own.recipe),
                style=style,
            )
        table.caption = "on seeds that the search did not see; dim is what another beats in both"
        yield table
