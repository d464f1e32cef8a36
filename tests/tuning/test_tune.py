"""The cheapest policy within a bound."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import (
    ArgumentError,
    CheckpointError,
    FullRefresh,
    RandomRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    StalenessRefresh,
    TuningError,
    tune,
)
from marche_fx.models import load_fashion_mar
from marche_fx.models.mar import MAR
from marche_fx.models.text import generate_in_parallel
from marche_fx.passes.pipeline import make_plan
from marche_fx.refresh.builtin import BudgetedRefresh
from marche_fx.reporting.tables import as_text
from marche_fx.saving.fingerprint import software
from marche_fx.tuning.families import BOUNDED, FAMILIES, MANY, families_for
from marche_fx.tuning.replay import record, replay
from marche_fx.tuning.tune import Store, Trial, cheapest, first_within
from tests.flips import flipped
from tests.models.text.tiny import VOCABULARY, tiny_model
from tests.models.tiny import tiny_mar
from tests.networks import small_mar

FEW: dict[str, list[RefreshPolicy]] = {
    "selective": [SelectiveRefresh(fraction, warmup=1) for fraction in (0.0, 0.2, 0.5)],
    "random": [RandomRefresh(0.3, warmup=1)],
}


def generate(given: nn.Module, seed: int) -> None:
    assert isinstance(given, MAR)
    generator = torch.Generator().manual_seed(seed)
    given.sample_tokens(2, 6, 2.0, labels=torch.tensor([1, 2]), generator=generator)


@torch.no_grad()
def test_the_bound_holds_on_seeds_that_the_search_did_not_see() -> None:
    mar, bound = load_fashion_mar(), 0.08
    found = tune(mar, generate, bound, seeds=(0,), unseen=(100,), candidates=FEW)
    assert found.flops_ratio < 0.9, "something is saved"
    assert found.drift <= bound
    fresh = replay(record(mar, lambda given: generate(given, 200)), found.policy)
    assert fresh.drift <= bound
    # A cheaper policy of its family would not do.
    (family,) = (policies for policies in FEW.values() if found.policy in policies)
    cheaper = family[family.index(found.policy) - 1]
    tried = [trial for trial in found.trials if trial.policy == cheaper]
    assert found.policy == family[0] or max(trial.drift for trial in tried) > 0.9 * bound


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (3, 3), (7, 7), (8, None)])
def test_halving_finds_the_first_that_holds(limit: int, expected: int | None) -> None:
    family = [SelectiveRefresh(number / 10) for number in range(8)]
    tried = []

    def holds(policy: Any) -> bool:
        tried.append(policy)
        return family.index(policy) >= limit

    assert first_within(family, holds) == expected
    assert len(tried) <= 4


class Known:
    """Trials with drifts given beforehand, on seeds seen and unseen."""

    def __init__(self, drifts: dict[Any, tuple[float, float]]) -> None:
        self.drifts = {FullRefresh(): (0.0, 0.0), **drifts}
        self.trials: list[Trial] = []
        self.store = self

    def of(self, policy: Any, *, unseen: bool = False) -> Trial:
        cost = getattr(policy, "fraction", 1.0)
        self.trials.append(Trial(policy, unseen, self.drifts[policy][unseen], cost))
        return self.trials[-1]


A, B, C = (SelectiveRefresh(fraction) for fraction in (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("drifts", "expected"),
    [
        ({A: (0.01, 0.01), B: (0.01, 0.01), C: (0.0, 0.0)}, A),
        # The next dearer one where unseen seeds do worse.
        ({A: (0.01, 0.11), B: (0.01, 0.09), C: (0.0, 0.0)}, B),
        # Too near the bound on the seeds of the search.
        ({A: (0.095, 0.01), B: (0.01, 0.01), C: (0.0, 0.0)}, B),
        ({A: (0.5, 0.5), B: (0.4, 0.4), C: (0.3, 0.3)}, FullRefresh()),
    ],
)
def test_which_policy_is_chosen(drifts: dict[Any, tuple[float, float]], expected: Any) -> None:
    trials: Any = Known(drifts)
    assert cheapest(trials, {"family": [A, B, C]}, 0.1).policy == expected


PROMPT, ANSWER, STEPS = 8, 56, 8


def fill_masks(given: Any, seed: int) -> None:
    """MaskGIT's loop, which looks at every mask in every step."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(1, VOCABULARY, (2, PROMPT), generator=generator)
    # What nobody looks at is not read in the last step.
    generate_in_parallel(given, prompt, ANSWER, mask_id=0, steps=STEPS, generator=generator).tolist()


def fill_in_session(given: nn.Module, seed: int) -> None:
    with marche_fx.decoding(given):
        fill_masks(given, seed)


def test_how_much_a_loop_reads_is_counted_row_by_row() -> None:
    model, masks = tiny_model().eval(), []

    def counted(ids: Tensor) -> Any:
        masks.append((ids == 0).float().mean().item())
        return model(ids)

    fill_masks(counted, 0)
    assert record(model, lambda given: fill_in_session(given, 0)).share_read == pytest.approx(sum(masks) / STEPS)


@torch.no_grad()
def test_bounds_are_searched_for_a_loop_that_reads_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = {"oldest, bounded": [StalenessRefresh(own, warmup=1, queried=2 * own) for own in (0.05, 0.15, 0.3)]}
    monkeypatch.setattr("marche_fx.tuning.families.FAMILIES", FEW)
    monkeypatch.setattr("marche_fx.tuning.families.BOUNDED", bounded)
    model, bound = tiny_model(depth=3).eval(), 0.6
    found = tune(model, fill_in_session, bound, seeds=(0, 1), unseen=(100, 101))
    assert found.share_read > MANY
    assert found.searched == (*FEW, *bounded)
    assert found.policy in bounded["oldest, bounded"], "without a bound most of the rows are read, and so computed"
    assert 0 < found.drift <= bound
    unbounded = [own for own in found.trials if own.policy in FEW["selective"]]
    assert all(found.flops_ratio < own.flops_ratio for own in unbounded)
    assert replay(record(model, lambda given: fill_in_session(given, 200)), found.policy).drift <= bound
    assert "searched: selective; random; oldest, bounded. The loop reads" in as_text(found)


def test_no_bound_is_searched_for_a_loop_that_reads_few() -> None:
    share = record(small(), lambda given: generate(given, 0)).share_read
    assert 0 < share < MANY
    assert families_for(share) == FAMILIES
    assert all(
        own.queried is None for family in FAMILIES.values() for own in family if isinstance(own, BudgetedRefresh)
    )


def test_bounded_families_go_from_cheap_to_dear() -> None:
    for family in BOUNDED.values():
        bounds = [(own.queried, own.fraction) for own in family if isinstance(own, BudgetedRefresh)]
        assert bounds == sorted(bounds)
        assert len(set(bounds)) == len(family)


def small() -> MAR:
    torch.manual_seed(0)
    return small_mar(side=4).double().eval()


ONE = {"selective": [SelectiveRefresh(0.0, warmup=1), SelectiveRefresh(0.5, warmup=1)]}


def test_a_bound_that_cannot_be_met_says_what_can() -> None:
    trials: Any = Known({A: (0.5, 0.5), B: (0.4, 0.4), C: (0.3, 0.3), FullRefresh(): (0.2, 0.2)})
    with pytest.raises(TuningError, match=r"within 0\.1; the smallest found is 0\.2, of FullRefresh.* at 1\.00 of"):
        cheapest(trials, {"family": [A, B, C]}, 0.1)


def test_a_search_that_was_ended_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"seeds": (0,), "unseen": (1,), "candidates": ONE}
    whole = tune(small(), generate, 0.01, **options, out=tmp_path / "whole.json")
    tried: list[Any] = []

    def interrupted(recording: Any, policy: Any) -> Any:
        if len(tried) == 1:
            raise KeyboardInterrupt
        tried.append(policy)
        return replay(recording, policy)

    monkeypatch.setattr("marche_fx.tuning.tune.replay", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(small(), generate, 0.01, **options, out=tmp_path / "cut.json")
    monkeypatch.undo()
    resumed = tune(small(), generate, 0.01, **options, out=tmp_path / "cut.json")
    assert resumed == whole
    assert resumed.trials == whole.trials
    assert (tmp_path / "cut.json").read_text() == (tmp_path / "whole.json").read_text()


def test_steps_are_captured_once_for_all_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[str] = []

    def counting(model: nn.Module, step: str, *args: Any, **kwargs: Any) -> Any:
        captured.append(step)
        return make_plan(model, step, *args, **kwargs)

    monkeypatch.setattr("marche_fx.api.captures.make_plan", counting)
    tune(small(), generate, 1.0, seeds=(0, 1), unseen=(2,), candidates={"random": [RandomRefresh(0.3)]})
    # Policies that measure nothing run what the exact generation runs.
    assert captured == ["forward_mae_encoder", "forward_mae_decoder"]


def test_results_of_another_search_are_not_used(tmp_path: Path) -> None:
    out = tmp_path / "trials.json"
    tune(small(), generate, 1.0, seeds=(0,), unseen=(1,), candidates=ONE, out=out)
    with pytest.raises(CheckpointError, match=r"another search: not the same seeds\. Name another"):
        tune(small(), generate, 1.0, seeds=(2,), unseen=(1,), candidates=ONE, out=out)
    changed = small()
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    with pytest.raises(CheckpointError, match=r"not the same weights\."):
        tune(changed, generate, 1.0, seeds=(0,), unseen=(1,), candidates=ONE, out=out)
    out.write_text("{}")
    with pytest.raises(CheckpointError, match="no results"):
        tune(small(), generate, 1.0, seeds=(0,), unseen=(1,), candidates=ONE, out=out)


def decode(given: nn.Module, seed: int, steps: int = 6, cfg: float = 2.0, temperature: float = 1.0) -> None:
    assert isinstance(given, MAR)
    generator = torch.Generator().manual_seed(seed)
    given.sample_tokens(2, steps, cfg, labels=torch.tensor([1, 2]), temperature=temperature, generator=generator)


SEARCH: dict[str, Any] = {"seeds": (0,), "unseen": (1,), "candidates": ONE}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a search."""
    out = tmp_path_factory.mktemp("searched") / "trials.json"
    tune(tiny_mar(), decode, 1.0, **SEARCH, out=out)
    return out


@pytest.fixture
def out(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(searched, tmp_path))


@pytest.mark.parametrize("other", [{"steps": 4}, {"cfg": 1.5}, {"cfg": 1.0}, {"temperature": 0.5}])
def test_results_of_another_generation_are_not_used(out: Path, other: dict[str, Any]) -> None:
    before = out.read_bytes()

    def run(given: nn.Module, seed: int) -> None:
        decode(given, seed, **other)

    with pytest.raises(CheckpointError, match=r"another search: not the same generation, unseen generation\. Name"):
        tune(tiny_mar(), run, 1.0, **SEARCH, out=out)
    assert out.read_bytes() == before


def test_results_of_other_software_are_not_used(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marche_fx.tuning.tune.software", lambda: software() | {"marche_fx": "other"})
    with pytest.raises(CheckpointError, match=r"not the same marche_fx\."):
        tune(tiny_mar(), decode, 1.0, **SEARCH, out=out)


def test_damaged_results_are_not_used(tmp_path: Path) -> None:
    store = Store(tmp_path / "trials.json", {"model": "MAR", "seeds": [0, 1]})
    for policy in ONE["selective"]:
        store.add(Trial(policy, False, 1 / 3, 0.25))
    assert Store(tmp_path / "trials.json", {"seeds": [0, 1]}).trials == store.trials
    for _ in flipped(tmp_path / "trials.json", 200):
        with pytest.raises(CheckpointError, match=r"trials\.json is damaged or holds no results"):
            Store(tmp_path / "trials.json", {})


@pytest.mark.parametrize(
    "options", [{"max_drift": 0.0}, {"max_drift": float("nan")}, {"seeds": ()}, {"seeds": (1, 2), "unseen": (2,)}]
)
def test_bad_arguments_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        tune(small(), generate, **{"max_drift": 0.1, **options})


def test_the_table_and_the_policy_file(tmp_path: Path) -> None:
    found = tune(small(), generate, 1.0, seeds=(0,), unseen=(1,), candidates=ONE)
    found.save(tmp_path / "policy.json")
    assert marche_fx.load_policy(tmp_path / "policy.json") == found.policy
    assert "drift at most 1" in as_text(found)
