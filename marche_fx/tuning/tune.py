"""Find the cheapest refresh policy within a bound on drift, on the user's own generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress import Progress
from rich.table import Table
from torch import nn

from ..api.options import not_a_module
from ..checks import (
    called,
    check_callable,
    check_flag,
    check_kind,
    check_positive,
    check_sequence,
    is_count,
    path_of,
    shown,
)
from ..errors import ArgumentError, CheckpointError, TuningError
from ..refresh import FullRefresh, RefreshPolicy, policy_from_dict, policy_to_dict, save_policy
from ..runtime.method import Query
from ..saving.files import DamagedError, read_sealed_json, weights_hash, write_sealed_json
from ..saving.fingerprint import software
from ..saving.locks import alone, held_file
from .families import families_for
from .replay import Recording, record, replay

Model = TypeVar("Model", bound=nn.Module)

MARGIN = 0.9
"""On the seeds of the search a policy must stay below so much of the bound, since other seeds differ."""


@dataclass(frozen=True)
class Trial:
    """One policy on some seeds.

    Attributes:
        unseen: whether these seeds were kept from the search. drift, flops_ratio: as in `Replay`.
    """

    policy: RefreshPolicy
    unseen: bool
    drift: float
    flops_ratio: float


@dataclass(frozen=True)
class Tuned:
    """What `tune` found; printable.

    Attributes:
        policy: the cheapest within the bound. drift, flops_ratio: on the unseen seeds. trials: everything tried.
        searched: names of the families of policies that were searched. share_read: of the tokens, what the loop reads
            in a step, which decides whether bounds on the queried are among them.
    """

    policy: RefreshPolicy
    max_drift: float
    drift: float
    flops_ratio: float
    seeds: tuple[int, ...]
    unseen: tuple[int, ...]
    trials: tuple[Trial, ...] = field(repr=False)
    searched: tuple[str, ...]
    share_read: float

    def save(self, path: str | Path) -> None:
        """Write the policy as JSON, for `load_policy`."""
        save_policy(self.policy, path)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table("policy", "seeds", "drift", "FLOPs ratio", title=f"drift at most {self.max_drift:g}")
        for trial in sorted(self.trials, key=lambda own: own.flops_ratio):
            seeds = self.unseen if trial.unseen else self.seeds
            style = "bold" if trial.policy == self.policy else ""
            numbers = f"{trial.drift:.4f}", f"{trial.flops_ratio:.3f}"
            table.add_row(f"{trial.policy!r}", " ".join(map(str, seeds)), *numbers, style=style)
        table.caption = (
            f"searched: {'; '.join(self.searched)}. The loop reads {self.share_read:.0%} of the tokens in a step"
        )
        yield table


@alone("tuning", held_file)
def tune(
    model: Model,
    run: Callable[[Model, int], Any],
    max_drift: float = 0.05,
    *,
    seeds: Sequence[int] = (0, 1),
    unseen: Sequence[int] = (1000, 1001),
    candidates: Mapping[str, Sequence[RefreshPolicy]] | None = None,
    step: str | Sequence[str] | None = None,
    loop: str | Sequence[str] | None = None,
    query: Query | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> Tuned:
    """The policy of fewest FLOPs whose teacher-forced drift stays within ``max_drift``.

    Each seed costs one exact generation, which is recorded, also where a search goes on; each policy tried costs the
    model's steps on the recorded tokens, without what the loop does beside them. Each family of policies is searched by
    halving, so some 20 policies are tried. The choice is then held against seeds that the search did not see, and the
    next dearer policy of its family is taken until it passes.

    Args:
        run: ``run(model, seed)`` is one generation with the model that it is given, of the class of yours, and a seed;
            with a loop of its own, inside ``with marche_fx.decoding(model):``.
        max_drift: bound on the mean over decoding steps of the norm of the difference of the rows read, over their own.
        candidates: by name, policies from cheap to dear; some that are built in when omitted, with bounds on the
            queried among them where the loop reads many tokens in a step.
        step, loop, query: as in `transform`.
        out: file of results; a search that was ended goes on from there, as long as the generations are bit for bit
            those that it measured.

    Raises:
        ArgumentError: the bound is not positive, there are no seeds, or no folder for ``out``.
        TuningError: no policy meets the bound; the message says the smallest drift found and at what cost.
        CheckpointError: ``out`` is damaged, or holds results of another model, generation, software or of other seeds.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(not_a_module(model, "tune"))
    check_callable("run", run)
    check_positive("max_drift", max_drift)
    check_seeds(seeds, unseen, least=1)
    check_flag("progress", progress)
    if candidates is not None:
        check_candidates(candidates)
    options: dict[str, Any] = {"step": step, "loop": loop, "query": query}
    key = {
        "model": type(model).__qualname__,
        "weights": weights_hash(model),
        "seeds": list(seeds),
        "unseen seeds": list(unseen),
        **software(),
    }
    store = Store(out, key)
    with Progress(disable=not progress, transient=True) as bar:
        recorded = bar.add_task("recording exact generations", total=len(seeds) + len(unseen))
        transformed: dict[Any, nn.Module] = {}

        def recording(own: Sequence[int]) -> Recording:
            def generate(given: Model) -> None:
                for seed in own:
                    called("run, with a model and a seed,", run, given, seed)
                    bar.advance(recorded)

            return record(model, generate, **options, candidates=transformed)

        recordings = {False: recording(seeds), True: recording(unseen)}
        digests = {"generation": recordings[False].digest(), "unseen generation": recordings[True].digest()}
        store.narrow(digests)
        trials = Trials(recordings, store)
        tried = bar.add_task("trying policies", total=None)
        trials.on_trial = lambda: bar.advance(tried)
        share_read = recordings[False].share_read
        families = families_for(share_read) if candidates is None else candidates
        chosen = cheapest(trials, families, max_drift)
    found = chosen.policy, max_drift, chosen.drift, chosen.flops_ratio
    return Tuned(*found, tuple(seeds), tuple(unseen), tuple(store.trials), tuple(families), share_read)


def check_seeds(seeds: object, unseen: object, *, least: int) -> None:
    """Raise unless both are so many whole numbers or more, and none is in both."""
    first, second = ([*own] if isinstance(own, Sequence) else [] for own in (seeds, unseen))
    are_seeds = all(len(own) >= least and all(map(is_count, own)) for own in (first, second))
    if not are_seeds or {*first} & {*second}:
        raise ArgumentError(
            f"seeds and unseen must be {least} or more whole numbers each and none in common, got {shown(seeds)} and "
            f"{shown(unseen)}"
        )


def check_candidates(candidates: object) -> None:
    """Raise unless it is lists of policies by name."""
    by_name = candidates if isinstance(candidates, Mapping) else {None: ()}
    if not all(isinstance(name, str) for name in by_name):
        raise ArgumentError(f"candidates must map names to lists of policies, got {shown(candidates)}")
    for name, family in by_name.items():
        check_sequence(f"candidates[{name!r}]", family)
        for policy in family:
            check_kind(f"candidates[{name!r}]", policy, RefreshPolicy)


def cheapest(trials: Trials, families: Mapping[str, Sequence[RefreshPolicy]], max_drift: float) -> Trial:
    """The cheapest policy within the bound on the seeds of the search, and on unseen ones."""
    found: list[tuple[float, Sequence[RefreshPolicy]]] = []
    for family in families.values():
        place = first_within(family, lambda policy: trials.of(policy).drift <= MARGIN * max_drift)
        if place is not None:
            found.append((trials.of(family[place]).flops_ratio, family[place:]))
    for _, dearer in sorted(found, key=lambda own: own[0]):
        for policy in dearer:
            held = trials.of(policy, unseen=True)
            if held.drift <= max_drift:
                return held
    exact = trials.of(FullRefresh(), unseen=True)
    if exact.drift <= max_drift:
        return exact
    best = min(trials.store.trials, key=lambda own: own.drift)
    raise TuningError(
        f"no policy keeps drift within {max_drift:g}; the smallest found is {best.drift:.3g}, of {best.policy!r} at "
        f"{best.flops_ratio:.2f} of the original's FLOPs"
    )


def first_within(family: Sequence[RefreshPolicy], holds: Callable[[RefreshPolicy], bool]) -> int | None:
    """Number of the first policy that holds, by halving; None where the last does not."""
    if not family or not holds(family[-1]):
        return None
    low, high = 0, len(family) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(family[middle]) else (middle + 1, high)
    return high


class Trials:
    """Tries policies, each once, on the generation of the search and on the unseen one."""

    def __init__(self, recordings: Mapping[bool, Recording], store: Store) -> None:
        self.recordings = recordings
        self.store = store
        self.on_trial: Callable[[], None] = lambda: None

    def of(self, policy: RefreshPolicy, *, unseen: bool = False) -> Trial:
        for own in self.store.trials:
            if own.policy == policy and own.unseen == unseen:
                return own
        found = replay(self.recordings[unseen], policy)
        self.store.add(Trial(policy, unseen, found.drift, found.flops_ratio))
        self.on_trial()
        return self.store.trials[-1]


class Store:
    """Trials, written to a file after each if there is one.

    Args:
        key: what trials must agree in to be put together, by name, as far as it is known before anything ran.

    Raises:
        CheckpointError: the file is damaged, or of another search.
        ArgumentError: it would lie in a folder that does not exist.
    """

    def __init__(self, path: str | Path | None, key: Mapping[str, Any]) -> None:
        self.path = None if path is None else path_of("out", path)
        if self.path is not None and not self.path.resolve().parent.is_dir():
            raise ArgumentError(f"there is no folder {self.path.resolve().parent} to write the results to")
        self.key: dict[str, Any] = {}
        self.before: dict[str, Any] | None = None
        """The key of the file that was found."""
        self.trials: list[Trial] = []
        if self.path is not None and self.path.exists():
            self.before, self.trials = read_trials(self.path)
        self.narrow(key)

    def narrow(self, key: Mapping[str, Any]) -> None:
        """Let trials agree in this too; raise if those of the file do not."""
        self.key |= key
        if self.before is not None:
            other = [name for name in key if self.before.get(name) != key[name]]
            if other:
                raise CheckpointError(
                    f"{self.path} holds results of another search: not the same {', '.join(other)}. Name another "
                    "file, or remove it."
                )

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        if self.path is not None:
            trials = [{**asdict(own), "policy": policy_to_dict(own.policy)} for own in self.trials]
            write_sealed_json(self.path, {"key": self.key, "trials": trials})


def read_trials(path: Path) -> tuple[dict[str, Any], list[Trial]]:
    """The key and the trials in a file."""
    try:
        values = read_sealed_json(path)
        trials = [Trial(**{**own, "policy": policy_from_dict(own["policy"])}) for own in values["trials"]]
        return dict(values["key"]), trials
    except (OSError, DamagedError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or holds no results of a search; remove it, or name another"
        ) from error
