"""What each ingredient of a generation is worth: alone, and as the last one beside all others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..denoising import parse_denoising
from ..head.policy import HeadReuse, Interpolate
from ..refresh import FullRefresh
from .rows import WHOLE, Bench, Row
from .settings import Settings
from .variants import EAGER, HeadChoice, Variant, selective

REFRESH, DENOISING, REUSE, GUIDANCE, STEPS = "refresh", "denoising", "reuse", "guidance", "steps"

INGREDIENTS = {
    REFRESH: "5% of the tokens refreshed in a step, in place of all",
    DENOISING: "10 denoising steps, spaced quadratically, in place of the model's own",
    REUSE: "AdaLN interpolated between 20 timesteps, in place of the head as it is",
    GUIDANCE: "the head's unconditional half at every fourth call, in place of every call",
    STEPS: "half of the decoding steps, in place of all",
}

NONE, ALL = "none", "all"


def ingredients_for(settings: Settings) -> list[str]:
    """Without guidance there is none to reuse."""
    return [own for own in INGREDIENTS if own != GUIDANCE or max(settings.cfg) > 1]


def ablation_variants(settings: Settings) -> list[Variant]:
    """The original, marche_fx with no ingredient, with each alone, with all, and with all but each."""
    names = ingredients_for(settings)
    chosen = {NONE: [], **{only(own): [own] for own in names}, ALL: names}
    chosen |= {without(own): [other for other in names if other != own] for own in names}
    return [Variant(EAGER), *(variant_with(name, own, settings.steps) for name, own in chosen.items())]


def only(ingredient: str) -> str:
    return f"only {ingredient}"


def without(ingredient: str) -> str:
    return f"all but {ingredient}"


def variant_with(name: str, ingredients: Sequence[str], steps: int) -> Variant:
    """Marche_fx with these ingredients in a generation of otherwise ``steps`` decoding steps."""
    reuse = HeadReuse(
        slow=Interpolate(20) if REUSE in ingredients else None, guidance=4 if GUIDANCE in ingredients else 1
    )
    head = HeadChoice(
        denoising=parse_denoising("quadratic:10") if DENOISING in ingredients else None,
        reuse=None if {REUSE, GUIDANCE}.isdisjoint(ingredients) else reuse,
    )
    policies = selective(0.05) if REFRESH in ingredients else FullRefresh()
    fewer = max(steps // 2, 1) if STEPS in ingredients else None
    return Variant(name, policies, compile=True, steps=fewer, head=head)


@dataclass(frozen=True)
class Worth:
    """How many times less time a whole generation takes with an ingredient.

    Attributes:
        alone: beside none. last: beside all others. only_vs_eager, without_vs_eager: of a generation with it alone, and
            with all but it, over the original run eagerly.
    """

    workload: str
    batch: int
    cfg: float | None
    ingredient: str
    alone: float
    last: float
    only_vs_eager: float
    without_vs_eager: float


@dataclass(frozen=True)
class Ablation:
    """What was found of each ingredient, and the benchmark that it was found in."""

    bench: Bench
    rows: tuple[Worth, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "machine": self.bench.machine,
            "settings": self.bench.settings,
            "ingredients": INGREDIENTS,
            "rows": [asdict(own) for own in self.rows],
        }


def ablation_of(bench: Bench) -> Ablation:
    """What a benchmark of `ablation_variants` says."""
    groups: dict[tuple[str, int, float | None], dict[str, Row]] = {}
    for row in bench.rows:
        if row.part == WHOLE:
            groups.setdefault((row.workload, row.batch, row.cfg), {})[row.variant] = row
    return Ablation(bench, tuple(worth for rows in groups.values() for worth in worths(rows)))


def worths(rows: dict[str, Row]) -> Iterable[Worth]:
    """Of one workload, by the rows of its variants."""
    seconds = {name: row.seconds for name, row in rows.items()}
    none = rows[NONE]
    for own in INGREDIENTS:
        if only(own) in seconds:
            yield Worth(
                workload=none.workload,
                batch=none.batch,
                cfg=none.cfg,
                ingredient=own,
                alone=seconds[NONE] / seconds[only(own)],
                last=seconds[without(own)] / seconds[ALL],
                only_vs_eager=seconds[EAGER] / seconds[only(own)],
                without_vs_eager=seconds[EAGER] / seconds[without(own)],
            )
