"""Every argument of everything public: a wrong value is an error that names it, and nothing is left of the call."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch

import marche_fx
from marche_fx import MarcheError
from tests.around import X
from tests.calls import PUBLIC, BadCall, World, bad_calls
from tests.test_wrong_answers import works

CALLS = {name: [*calls] for name, calls in groupby(bad_calls(), key=lambda own: f"{own.public.name}-{own.argument}")}

SAY_SO = ("cannot be written", "cannot read", "there is no folder", "is damaged", "unknown policy", "expected a")
"""What a message says of a file or folder that is named rightly and cannot be used."""

NOT_CALLED = {"Report", "Tuned", "TunedRecipe", "Refresh", "Signal", "InputDrift", "RefreshPolicy", "FullRefresh"}
"""Public names without arguments that a user could give wrongly: answers, bases, and what takes nothing."""

ELSEWHERE = {"BudgetedRefresh", "sample", "Sampled", "Share"}
"""Whose arguments are tested as those of the policies of its kind, and beside the sampling of many images."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_argument_is_named(name: str, world: World) -> None:
    for call in CALLS[name]:
        with pytest.raises(MarcheError) as refused:
            call.make(world)
        assert is_named(call, str(refused.value)), f"{call.name}: {refused.value}"


def is_named(call: BadCall, message: str) -> bool:
    return any(word in message for word in (*call.words, *(SAY_SO if call.argument in ("path", "out") else ())))


@torch.no_grad()
def test_after_all_of_them_the_object_works(world: World) -> None:
    assert works(world.optimized, world.model)
    with marche_fx.decoding(world.optimized):
        world.optimized(X)
    assert {own.name for own in world.folder.iterdir()} <= {*world.files, "captured", "report.txt", "tuned.json"}


def test_everything_public_has_its_calls() -> None:
    errors = {name for name in marche_fx.__all__ if name.endswith("Error")}
    called = {public.name.split(" ")[0] for public in PUBLIC}
    assert {*marche_fx.__all__} - errors - called == NOT_CALLED | ELSEWHERE
