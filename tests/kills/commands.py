"""Commands on tiny models: how each is run, and what of the files that it writes does not depend on time."""

from __future__ import annotations

import functools
import json
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx import RandomRefresh, Recipe, RefreshPolicy, SelectiveRefresh, tune, tune_recipe
from marche_fx.bench import Settings as BenchSettings
from marche_fx.bench.command import Wanted, run_bench
from marche_fx.evaluate import Settings, evaluate, parse_points
from marche_fx.evaluate.folder import OTHERS
from marche_fx.models.checkpoint import load_checkpoint, save_weights
from marche_fx.models.train import WEIGHTS_FILE, train
from marche_fx.models.train import Recipe as TrainingRecipe
from marche_fx.models.training_state import STATE_FILE
from marche_fx.saving.files import read_sealed_tensors, remove_half_written, tensors_hash
from marche_fx.tuning import generation
from tests.around import MOVED, X, optimize, transformer
from tests.evaluate.test_run import figures
from tests.evaluate.tiny import silent, tiny_garments
from tests.models.runs import IMAGES, fresh_model
from tests.models.tiny import tiny_mar
from tests.sampling import tiny as sampling
from tests.tuning import test_generation as search
from tests.tuning.test_tune import generate

from .attempts import Command


def contents(out: Path) -> dict[str, Any]:
    """All files in a folder."""
    return {str(own.relative_to(out)): own.read_bytes() for own in out.rglob("*") if own.is_file()}


# ------------------------------------------------------------------------------------------------------- sampling


def sample(out: Path) -> None:
    sampling.sampled(out, count=63, batch=2)


def sampled(out: Path) -> dict[str, Any]:
    """Images and features, and which share has how many."""
    records = [json.loads(own.read_text()) for own in sorted((out / "shares").iterdir())]
    return sampling.files(out) | {"shares": [(own["first"], own["count"]) for own in records]}


# ----------------------------------------------------------------------------------------------------- evaluating


def run_evaluation(out: Path) -> None:
    settings = Settings(steps=6, cfg=2.0, images=6, batch=2, drift_images=2)
    evaluate(tiny_garments(), parse_points(["exact", "exact#2", "nothing"]), out, settings, console=silent())


def evaluated(out: Path) -> dict[str, Any]:
    """Figures, and of each batch what the judge saw."""
    found: dict[str, Any] = {"figures": figures(out)}
    for path in sorted(out.rglob("*.safetensors")):
        tensors = read_sealed_tensors(path)
        del tensors[OTHERS]
        found[str(path.relative_to(out))] = tensors_hash(tensors)
    kept = ("settings.json", "policy.json", "drift.json", "images.png", "drift.png")
    return found | {name: own for name, own in contents(out).items() if name.endswith(kept)}


# ------------------------------------------------------------------------------------------------------- training


def run_training(out: Path) -> None:
    recipe = TrainingRecipe(epochs=20, batch=4, warmup=3, ema=0.8)
    save_weights(train(fresh_model(), IMAGES, out, recipe, checkpoint_seconds=0.0), out / WEIGHTS_FILE)


def trained(out: Path) -> dict[str, Any]:
    """The averaged weights, and all that the next step depends on."""
    state = torch.load(out / STATE_FILE, weights_only=True)
    leaves = [own.tolist() if isinstance(own, torch.Tensor) else own for own in pytree.tree_leaves(state)]
    return {"state": leaves, WEIGHTS_FILE: (out / WEIGHTS_FILE).read_bytes()}


# --------------------------------------------------------------------------------------------------------- tuning


def run_tuning(out: Path) -> None:
    candidates: dict[str, list[RefreshPolicy]] = {
        "selective": [SelectiveRefresh(fraction, warmup=1) for fraction in (0.0, 0.2, 0.5)],
        "random": [RandomRefresh(0.3, warmup=1)],
    }
    out.mkdir(exist_ok=True)
    found = tune(tiny_mar(), generate, 0.5, seeds=(0,), unseen=(100,), candidates=candidates, out=out / "search.json")
    found.save(out / "policy.json")


def run_search(out: Path) -> None:
    known = search.Known()
    generation.clock_for = lambda *_, **__: known
    found = tune_recipe(
        search.tiny_garments(),
        known.generate,
        float,
        max_loss=0.16,
        base=search.BASE,
        ingredients=search.INGREDIENTS,
        seeds=search.SEEDS,
        unseen=search.UNSEEN,
        compile=False,
        out=out,
    )
    marche_fx.save_recipe(found.recipe, out / "recipe.json")


# --------------------------------------------------------------------------------------------------------- saving

POLICIES = SelectiveRefresh(0.25), RandomRefresh(0.5)
RECIPES = Recipe(steps=8, cfg=2.0), Recipe(steps=4)
SAVES = 30


@functools.cache
def captured() -> tuple[nn.Module, nn.Module]:
    """A model of which a step was captured, and one of which it was for two sizes."""
    one, two = optimize(transformer()), optimize(transformer())
    with torch.no_grad():
        one(X)
        two(X)
        two(MOVED[:1])
    return one, two


@functools.cache
def layers() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(0)
    return nn.Linear(64, 64), nn.Linear(64, 64)


def run_saving(out: Path) -> None:
    """What stands there from before is one of two; then both are written in turn.

    Policies, recipes and weights have no lock, by which one could know that who wrote half of one is dead.
    """
    out.mkdir(exist_ok=True)
    remove_half_written(out)
    refuse_others(out)
    for turn in range(SAVES):
        marche_fx.save_captures(captured()[turn % 2], out / "steps")
        marche_fx.save_policy(POLICIES[turn % 2], out / "policy.json")
        marche_fx.save_recipe(RECIPES[turn % 2], out / "recipe.json")
        save_weights(layers()[turn % 2], out / "weights.safetensors")


def refuse_others(out: Path) -> None:
    if (out / "policy.json").exists():
        assert marche_fx.load_policy(out / "policy.json") in POLICIES
    if (out / "recipe.json").exists():
        assert marche_fx.load_recipe(out / "recipe.json") in RECIPES
    if (out / "weights.safetensors").exists():
        found = load_checkpoint(nn.Linear(64, 64), out / "weights.safetensors")
        assert any(torch.equal(found.weight, own.weight.half().float()) for own in layers())
    if (out / "steps").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert marche_fx.load_captures(optimize(transformer()), out / "steps")


# --------------------------------------------------------------------------------------------------- benchmarking


def run_benchmark(out: Path) -> None:
    settings = BenchSettings(batch=(1, 2), cfg=(1.0,), steps=2, repeats=1, head=False)
    run_bench(Wanted(words=("eager", "ours:0.1-eager")), settings, out, console=silent())


def benchmarked(out: Path) -> dict[str, Any]:
    """All of the rows but times, and memory, which depends on what was measured before in the process."""
    found = json.loads((out / "bench.json").read_text())
    kept = ("workload", "part", "variant", "refresh", "batch", "cfg", "steps", "timed_steps", "flops_ratio")
    rows = [[own[name] for name in (*kept, "rows_ratio", "cache_bytes")] for own in found["rows"]]
    has_picture = (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    return {"rows": rows, "settings": found["settings"], "steps": found["timed_steps"], "picture": has_picture}


# -------------------------------------------------------------------------------------------- what does not go on


def forget(out: Path) -> None:
    """Writes ``b`` in its first run alone, whether that came so far or not."""
    is_first = not out.exists()
    out.mkdir(exist_ok=True)
    threading.Event().wait(1)
    if is_first:
        (out / "b").write_text("b")


def load() -> None:
    """What all of them load when they need it."""
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401


COMMANDS = {
    "sample": Command(sample, sampled, load),
    "evaluate": Command(run_evaluation, evaluated, load),
    "train": Command(run_training, trained),
    "tune": Command(run_tuning, contents, load),
    "tune_recipe": Command(run_search, contents, load),
    "save": Command(run_saving, contents, captured),
    "bench": Command(run_benchmark, benchmarked, load),
}

FORGETFUL = Command(forget, contents)
"""By which is checked that what forgets something is noticed."""
