"""What is compared: the original, marche_fx under refresh policies, and what a user might do by hand instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import ArgumentError
from ..evaluate.points import BY_SHARE, BY_STEPS, PLAIN, parse_point
from ..refresh import DriftRefresh, FullRefresh, InterleavedRefresh, RefreshPolicy, SelectiveRefresh
from .workload import DECODER, ENCODER

EAGER, COMPILED, OURS, FEWER, RECAP, LAZYMAR = "eager", "compiled", "ours", "fewer", "recap", "lazymar"
REDUCE_OVERHEAD = "reduce-overhead"
"""The compiled original in `torch.compile`'s mode of that name, which is with CUDA graphs."""

UNCOMPILED = "-eager"
"""Behind the word of a policy: without `torch.compile`."""

Policies = RefreshPolicy | Mapping[str, RefreshPolicy]


@dataclass(frozen=True)
class Variant:
    """One thing to time.

    Attributes:
        name: its word, such as ``ours``, ``recap`` or ``fewer:32``; variants of one name differ in ``refresh``.
        policies: None for the original.
        compile: whether by `torch.compile`. mode: of it, where it is not the usual one.
        refresh: share of the tokens that it refreshes in a step, where it is one of a curve.
        steps: decoding steps, where they are not the benchmark's.
    """

    name: str
    policies: Policies | None = field(default=None, repr=False)
    compile: bool = False
    mode: str | None = None
    refresh: float | None = None
    steps: int | None = None

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


DEFAULT_VARIANTS = (EAGER, COMPILED, OURS, f"{OURS}:0.1{UNCOMPILED}")
DEFAULT_REFRESH = (0.05, 0.1, 1.0)


def default_words(steps: int | None) -> list[str]:
    """What is compared where nothing is asked for; also half the decoding steps, where their number can be chosen."""
    halved = [] if steps is None or steps < 2 else [f"{FEWER}:{steps // 2}"]
    return [*DEFAULT_VARIANTS, *halved]


def parse_variants(words: Sequence[str], refresh: Sequence[float]) -> list[Variant]:
    """The variants of these words, each once; ``ours`` stands for one at each share of ``refresh``.

    Raises:
        ArgumentError: there is no such variant, or its number is missing or out of its range.
    """
    found = [variant for word in words for variant in parse_variant(word, refresh)]
    return list({(own.name, own.refresh): own for own in found}.values())


def parse_variant(word: str, refresh: Sequence[float]) -> list[Variant]:
    """The variants of one word; see `choices`."""
    if word == EAGER:
        return [Variant(EAGER)]
    if word == COMPILED:
        return [Variant(COMPILED, compile=True)]
    if word == REDUCE_OVERHEAD:
        return [Variant(REDUCE_OVERHEAD, compile=True, mode=REDUCE_OVERHEAD)]
    bare = word.removesuffix(UNCOMPILED)
    is_compiled = bare == word
    kind, _, number = bare.partition(":")
    if kind == FEWER and is_compiled:
        return [Variant(word, steps=steps_of(word, number))]
    if kind == OURS:
        shares = [share_of(word, number)] if number else list(refresh)
        name = OURS if is_compiled else OURS + UNCOMPILED
        return [Variant(name, selective(share), is_compiled, refresh=share) for share in shares]
    if bare == RECAP:
        return [Variant(word, InterleavedRefresh(2), is_compiled)]
    if bare == LAZYMAR:
        return [Variant(word, lazymar(), is_compiled)]
    return [by_policy(word, bare, is_compiled)]


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


def selective(share: float) -> RefreshPolicy:
    """MARché's policy at a share of the tokens; the exact one at all of them."""
    policy = SelectiveRefresh(share)
    return FullRefresh() if share == 1 else policy


def lazymar() -> dict[str, RefreshPolicy]:
    """LazyMAR's schedule (arXiv 2503.12450), as docs/policies.md has it."""
    return {
        ENCODER: SelectiveRefresh(0.0, warmup=5, every=9),
        DECODER: DriftRefresh(0.1, warmup=5, every=9, exact_sites=3),
    }


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
        f"{OURS}:SHARE, {RECAP}, {LAZYMAR}, {', '.join(policies)} and the path of a policy's JSON file, these with "
        f"{UNCOMPILED} behind them for no torch.compile, and {FEWER}:STEPS (the original in fewer decoding steps)"
    )
