"""What is compared: the original, marche_fx under refresh policies, and what a user might do by hand instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..errors import ArgumentError
from ..evaluate.heads import OWN_HEAD, HeadChoice, chosen, split_options
from ..evaluate.points import BY_SHARE, BY_STEPS, PLAIN, parse_point
from ..recipes import load_recipe
from ..recipes.presets import TASKS, bundled
from ..refresh import FullRefresh, RefreshPolicy, SelectiveRefresh
from ..rivals import REFRESH, Policies

EAGER, COMPILED, OURS, FEWER = "eager", "compiled", "ours", "fewer"
RECAP, LAZYMAR, DISA, EMIGM = "recap", "lazymar", "disa", "emigm"
RECIPE = "recipe"
REDUCE_OVERHEAD = "reduce-overhead"
"""The compiled original in `torch.compile`'s mode of that name, which is with CUDA graphs."""

UNCOMPILED = "-eager"
"""Behind the word of a policy: without `torch.compile`."""

GRAPHED = "-graphs"
"""Behind that: with CUDA graphs."""

STEPS = "steps"
"""An option behind the word of a policy, beside those of the head."""


@dataclass(frozen=True)
class Variant:
    """One thing to time.

    Attributes:
        name: its word, such as ``ours``, ``recap`` or ``fewer:32``; variants of one name differ in ``refresh``.
        policies: None for the original; a function of the number of decoding steps where they depend on it.
        compile: whether by `torch.compile`. mode: of it, where it is not the usual one.
        refresh: share of the tokens that it refreshes in a step, where it is one of a curve.
        steps: decoding steps, where they are not the benchmark's.
        head: how it draws tokens.
        is_guided_in_part: whether the unconditional half is computed in a part of the decoding alone, as in eMIGM.
        has_graphs: whether steps run as CUDA graphs.
    """

    name: str
    policies: Policies | Callable[[int], Policies] | None = field(default=None, repr=False)
    compile: bool = False
    mode: str | None = None
    refresh: float | None = None
    steps: int | None = None
    head: HeadChoice = OWN_HEAD
    is_guided_in_part: bool = False
    has_graphs: bool = False

    @property
    def label(self) -> str:
        """``ours 10%``."""
        return self.name if self.refresh is None else f"{self.name} {100 * self.refresh:g}%"

    @property
    def is_original(self) -> bool:
        return self.policies is None

    @property
    def has_state(self) -> bool:
        """Whether what a step costs depends on the steps before it."""
        return not self.is_original and self.policies != FullRefresh()

    @property
    def is_of_the_head(self) -> bool:
        """Whether without a head it would be another variant."""
        return self.head != OWN_HEAD and (self.is_original or self.head.rival is None)

    @property
    def transformer(self) -> Variant:
        """Equal for variants whose transformers take the same time."""
        return replace(self, name="", refresh=None, head=OWN_HEAD)

    def policies_in(self, steps: int) -> Policies | None:
        """Those for a generation of so many decoding steps."""
        return self.policies(steps) if callable(self.policies) else self.policies


DEFAULT_VARIANTS = (EAGER, COMPILED, OURS, f"{OURS}:0.1{UNCOMPILED}")
DEFAULT_REFRESH = (0.05, 0.1, 1.0)


def default_words(steps: int | None) -> list[str]:
    """What is compared where nothing is asked for; also half the decoding steps, where their number can be chosen."""
    halved = [] if steps is None or steps < 2 else [f"{FEWER}:{steps // 2}"]
    return [*DEFAULT_VARIANTS, *halved]


def parse_variants(words: Sequence[str], refresh: Sequence[float], task: str = TASKS[0]) -> list[Variant]:
    """The variants of these words, each once; ``ours`` stands for one at each share of ``refresh``.

    Args:
        task: whose recipes those are that come along.

    Raises:
        ArgumentError: there is no such variant, or its number is missing or out of its range.
    """
    found = [variant for word in words for variant in parse_variant(word, refresh, task)]
    return list({(own.name, own.refresh): own for own in found}.values())


def parse_variant(word: str, refresh: Sequence[float], task: str) -> list[Variant]:
    """The variants of one word; see `choices`."""
    if word == EAGER:
        return [Variant(EAGER)]
    if word == COMPILED:
        return [Variant(COMPILED, compile=True)]
    if word == REDUCE_OVERHEAD:
        return [Variant(REDUCE_OVERHEAD, compile=True, mode=REDUCE_OVERHEAD)]
    if word == DISA:
        return [Variant(DISA, head=HeadChoice(DISA))]
    if word == EMIGM:
        return [Variant(EMIGM, head=HeadChoice(EMIGM), is_guided_in_part=True)]
    kind, _, number = word.partition(":")
    if kind == FEWER:
        return [Variant(word, steps=steps_of(word, number))]
    first, options = split_options(word, STEPS)
    return [with_options(own, options) for own in transformed(first, refresh, task)]


def transformed(word: str, refresh: Sequence[float], task: str) -> list[Variant]:
    """The variants of marche_fx of a word without options."""
    if word.endswith(GRAPHED):
        found = transformed(word.removesuffix(GRAPHED), refresh, task)
        return [replace(own, name=own.name + GRAPHED, has_graphs=True) for own in found]
    bare = word.removesuffix(UNCOMPILED)
    is_compiled = bare == word
    kind, _, number = bare.partition(":")
    if kind == OURS:
        shares = [share_of(word, number)] if number else list(refresh)
        name = OURS if is_compiled else OURS + UNCOMPILED
        return [Variant(name, selective(share), is_compiled, refresh=share) for share in shares]
    if kind == RECIPE:
        return [by_recipe(word, number, is_compiled, task)]
    if bare in REFRESH:
        return [Variant(word, REFRESH[bare], is_compiled, head=HeadChoice(bare))]
    return [by_policy(word, bare, is_compiled)]


def with_options(variant: Variant, options: Sequence[str]) -> Variant:
    """The variant with a head of its own, or in another number of decoding steps."""
    for option in options:
        name, _, value = option.partition("=")
        head = variant.head if name == STEPS else chosen(variant.head, option, variant.name)
        variant = replace(variant, name=f"{variant.name}+{option}", head=head)
        if name == STEPS:
            variant = replace(variant, steps=steps_of(variant.name, value))
    return variant


def by_policy(word: str, bare: str, is_compiled: bool) -> Variant:
    """The variant of a policy's word or file."""
    kind = bare.partition(":")[0]
    if kind not in (*PLAIN, *BY_SHARE, *BY_STEPS) and not bare.endswith(".json"):
        raise ArgumentError(f"there is no variant {word!r}; {choices()}")
    point = parse_point(bare)
    if point.policy is None or point.steps is not None or point.seeds != 1:
        raise ArgumentError(f"{word!r} is no variant of a benchmark; {choices()}")
    if kind not in BY_SHARE:
        return Variant(word, point.policy, is_compiled)
    return Variant(kind + ("" if is_compiled else UNCOMPILED), point.policy, is_compiled, refresh=point.fraction)


def by_recipe(word: str, given: str, is_compiled: bool, task: str) -> Variant:
    """The variant of a recipe, by a preset's name or a file: its parts are timed, whatever model it was tuned for."""
    recipe = load_recipe(given) if given.endswith(".json") else bundled(given, task)
    if recipe.counts not in (None, "cosine"):
        raise ArgumentError(f"{word!r} decodes by counts={recipe.counts!r}, and steps here are along a cosine")
    head = HeadChoice(denoising=recipe.denoising, reuse=recipe.reuse)
    return Variant(word, recipe.refresh, is_compiled, steps=recipe.steps, head=head)


def selective(share: float) -> RefreshPolicy:
    """MARché's policy at a share of the tokens; the exact one at all of them."""
    policy = SelectiveRefresh(share)
    return FullRefresh() if share == 1 else policy


def steps_of(word: str, number: str) -> int:
    if not number.isdecimal() or int(number) < 1:
        raise ArgumentError(f"{word!r} lacks its number of decoding steps, as in {FEWER}:32")
    return int(number)


def share_of(word: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise ArgumentError(f"{word!r} lacks its share of tokens, as in {OURS}:0.1") from None


def choices() -> str:
    policies = [
        *(own for own in PLAIN if own != "exact"),
        *(f"{kind}:SHARE" for kind in BY_SHARE),
        *(f"{kind}:STEPS" for kind in BY_STEPS),
    ]
    return (
        f"those that exist are {EAGER}, {COMPILED} and {REDUCE_OVERHEAD} (the original), {OURS} (at each --refresh), "
        f"{OURS}:SHARE, {RECAP}, {LAZYMAR}, {RECIPE}:NAME, {', '.join(policies)} and the path of a policy's JSON "
        f"file, with {UNCOMPILED} behind them for no torch.compile and {GRAPHED} for CUDA graphs, then "
        f"+reuse=balanced, +denoising=quadratic:10 or +steps=32, {DISA} and {EMIGM} (the original with their heads), "
        f"and {FEWER}:STEPS (the original in fewer decoding steps)"
    )
