"""What a user asks of a head's denoising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..checks import check_count, check_word, is_number
from ..errors import ArgumentError
from .solvers import ANCESTRAL, SOLVERS
from .spacing import SPACINGS


@dataclass(frozen=True)
class Denoising:
    """How a diffusion head denoises, in place of its own sampling schedule.

    Attributes:
        steps: denoising steps of every token; the model's own number when omitted.
        spacing: of the timesteps: ``"even"``; ``"quadratic"``, denser near the data; ``"logsnr"``, even in the
            logarithm of signal over noise.
        solver: ``"ancestral"``, the model's own sampler, which adds noise in each step; ``"ddim"`` (arXiv 2010.02502)
            and ``"dpm++2m"`` (arXiv 2211.01095), which add none, so that there is no temperature but 1.
        anneal: in place of ``steps``: a number that falls linearly from the first to the second over the decoding
            steps, as in DiSA (arXiv 2505.20297).
        clip: the first timestep. When omitted the schedule's last one for ``"ancestral"``; for the others the last at
            which enough signal is left to divide by it, 950 of MAR's 1000.
        guidance: guide only where the share of the schedule's noise steps lies in ``low < share <= high``
            (arXiv 2404.07724); outside of it the unconditional half is not computed. Everywhere when omitted.
        decoding_steps: over which to anneal, where the loop has no argument ``num_iter`` that says it.

    Raises:
        ArgumentError: a word is unknown, or a number out of its range.
    """

    steps: int | None = None
    spacing: str = "even"
    solver: str = ANCESTRAL
    anneal: tuple[int, int] | None = None
    clip: int | None = None
    guidance: tuple[float, float] | None = None
    decoding_steps: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("spacing", SPACINGS), ("solver", (ANCESTRAL, *SOLVERS))):
            check_word(name, getattr(self, name), known)
        for name, least in (("steps", 2), ("clip", 1), ("decoding_steps", 1)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least=least)
        if self.anneal is not None:
            if self.steps is not None:
                raise ArgumentError(f"give either steps or anneal, got steps={self.steps} and anneal={self.anneal}")
            object.__setattr__(self, "anneal", pair("anneal", self.anneal))
            for count in self.counts:
                check_count("anneal", count, least=2)
        elif self.decoding_steps is not None:
            raise ArgumentError("decoding_steps says over how many steps to anneal; it needs anneal=(first, last)")
        if self.guidance is not None:
            low, high = pair("guidance", self.guidance)
            if not all(is_number(own) for own in (low, high)) or not 0 <= low < high <= 1:
                raise ArgumentError(
                    f"guidance must be shares 0 <= low < high <= 1 of the schedule, got {self.guidance}"
                )
            object.__setattr__(self, "guidance", (float(low), float(high)))

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of denoising steps that are asked for: none, one, or the first and the last."""
        return self.anneal or (() if self.steps is None else (self.steps,))

    def steps_at(self, step: int, of: int, own: int) -> int:
        """Denoising steps in decoding step ``step``, counted from 0, of ``of``; ``own``: those of the model."""
        if self.anneal is None:
            return own if self.steps is None else self.steps
        first, last = self.anneal
        return first if of == 1 else round(first + (last - first) * step / (of - 1))

    def is_guided_at(self, timestep: int, of: int) -> bool:
        """Whether guidance holds at a timestep, counted from 0, of a schedule of ``of``."""
        return self.guidance is None or self.guidance[0] < (timestep + 1) / of <= self.guidance[1]


def pair(name: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentError(f"{name} must be two numbers, got {value!r}")
    return value[0], value[1]
