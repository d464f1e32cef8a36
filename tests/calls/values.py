"""Policies, budgets, recipes and their files: arguments that work, and such as must be refused."""

from __future__ import annotations

import math
from typing import Any

import torch

import marche_fx
from tests.calls.world import (
    ABSENT,
    CALLABLE,
    COUNT,
    FLAG,
    FOLDER,
    FULL,
    MISSING,
    NAN,
    NOTHING,
    NUMBER,
    PATH,
    SHARE,
    TEXT,
    Public,
    path,
)


def added(left: Any, right: Any) -> Any:
    return left + right


def drift_rows(now: Any, before: Any) -> Any:
    return now.square().mean(-1)


BUDGETED = {
    "fraction": (None, "0.1", NAN, True, [], [0.1, "a"], [None], -0.1, 1.5, NOTHING, {}, {"a": 1}),
    "warmup": COUNT,
    "every": ("3", 0, -1, 1.5, NAN, True, [2], NOTHING),
    "tolerance": (*NUMBER, -1.0),
    "queried": ("0.1", NAN, True, [0.1], -0.1, 1.5, NOTHING),
}
SITES = (None, 0, -1, 1.5, True, "", (), ("a", 3), ["a"], NOTHING)

VALUES: tuple[Public, ...] = (
    *(
        Public(kind.__name__, kind, {}, {**BUDGETED, **more})
        for kind, more in (
            (marche_fx.SelectiveRefresh, {"sites": SITES, "age": FLAG}),
            (marche_fx.DriftRefresh, {"sites": SITES, "exact_sites": COUNT, "tolerance": (None, "a", -1.0, True, [1])}),
            (marche_fx.StalenessRefresh, {}),
            (marche_fx.RandomRefresh, {"seed": (None, "3", 1.5, NAN, [2], NOTHING)}),
            (
                marche_fx.NeighbourRefresh,
                {
                    "grid": (3, "square", "", (), (2,), (2, 3, 4), (0, 2), (2, -1), (2.5, 2), ("a", "b"), (True, 2)),
                    "radius": (*NUMBER, 0, -1.0, math.inf),
                },
            ),
        )
    ),
    Public(
        "InterleavedRefresh",
        marche_fx.InterleavedRefresh,
        {},
        {"period": (*COUNT, 0), "warmup": COUNT, "tolerance": (*NUMBER, -1.0)},
    ),
    Public(
        "Both",
        marche_fx.Both,
        {"first": FULL, "second": FULL},
        {"first": (None, 3, "exact", NOTHING, type(FULL)), "second": (None, 3, "exact", NOTHING, type(FULL))},
    ),
    Public(
        "a sum of policies",
        added,
        {"left": FULL, "right": FULL},
        {"right": (None, 3, "exact", NOTHING)},
        {"right": ("second",)},
    ),
    Public(
        "CosineBudget",
        marche_fx.CosineBudget,
        {"start": 0.5, "end": 0.1, "steps": 4},
        {"start": SHARE, "end": SHARE, "steps": (*COUNT, 0)},
    ),
    Public(
        "AdaptiveBudget",
        marche_fx.AdaptiveBudget,
        {"mean": 0.1},
        {"mean": (*SHARE, 0.9), "low": (*SHARE, 0.2), "high": (*SHARE, 0.05), "gain": (*NUMBER, -1.0, math.inf)},
    ),
    Public(
        "save_policy",
        marche_fx.save_policy,
        {"policy": FULL, "path": path("policy.json")},
        {
            "policy": (None, 3, "exact", [FULL], NOTHING, marche_fx.HeadReuse(), marche_fx.CosineBudget(1, 0, 3)),
            "path": (*PATH, "", MISSING, FOLDER),
        },
    ),
    Public(
        "save_denoising",
        marche_fx.save_denoising,
        {"denoising": marche_fx.Denoising(), "path": path("denoising.json")},
        {"denoising": (None, 3, "25", [3], NOTHING, FULL), "path": (*PATH, "", MISSING, FOLDER)},
    ),
    Public(
        "save_head_reuse",
        marche_fx.save_head_reuse,
        {"reuse": marche_fx.HeadReuse(), "path": path("reuse.json")},
        {"reuse": (None, 3, "exact", [3], NOTHING, FULL), "path": (*PATH, "", MISSING, FOLDER)},
    ),
    Public(
        "save_recipe",
        marche_fx.save_recipe,
        {"recipe": marche_fx.Recipe(), "path": path("recipe.json")},
        {"recipe": (None, 3, "exact", [3], NOTHING, FULL), "path": (*PATH, "", MISSING, FOLDER)},
    ),
    *(
        Public(name, call, {"path": path(file)}, {"path": (*PATH, "", MISSING, ABSENT, FOLDER, *others)})
        for name, call, file, others in (
            ("load_policy", marche_fx.load_policy, "policy.json", (path("recipe.json"), path("denoising.json"))),
            ("load_denoising", marche_fx.load_denoising, "denoising.json", (path("policy.json"), path("reuse.json"))),
            ("load_head_reuse", marche_fx.load_head_reuse, "reuse.json", (path("policy.json"), path("recipe.json"))),
            ("load_recipe", marche_fx.load_recipe, "recipe.json", (path("policy.json"), path("denoising.json"))),
        )
    ),
    Public("AttentionReceived", marche_fx.AttentionReceived, {}, {"sites": SITES}),
    Public("ValueDrift", marche_fx.ValueDrift, {}, {"sites": SITES}),
    Public(
        "ResultConfidence", marche_fx.ResultConfidence, {}, {"of": (None, 3, "", "certainty", ["margin"], {}, NOTHING)}
    ),
    Public(
        "RowSignal",
        marche_fx.RowSignal,
        {"function": drift_rows, "site": "blocks.0"},
        {"function": CALLABLE, "site": TEXT, "tensor": (None, 3, "", "w", ["q"], {}, NOTHING)},
    ),
    Public(
        "History",
        marche_fx.History,
        {"age": torch.zeros(2, 3)},
        {"age": (None, 3, "old", [1], torch.zeros(3), NOTHING), "step": COUNT},
    ),
    Public(
        "Tuned.save",
        lambda path: marche_fx.Tuned(FULL, 0.1, 0.0, 1.0, (0,), (1,), (), ("a",), 0.1).save(path),
        {"path": path("tuned.json")},
        {"path": (*PATH, "", MISSING, FOLDER)},
    ),
    Public(
        "Monitor", marche_fx.Monitor, {}, {"every": (*COUNT, 0), "rows": (*COUNT, 0), "max_drift": (*NUMBER, 0, -1.0)}
    ),
    Public(
        "Recipe",
        marche_fx.Recipe,
        {"refresh": FULL},
        {
            "refresh": (None, 3, "exact", type(FULL), NOTHING),
            "denoising": (3, "25", NOTHING),
            "reuse": (3, "exact", NOTHING),
            "steps": (0, -1, "3", 1.5, NAN, True, [3], NOTHING),
            "order": (3, "", "no such", ["raster"], {}, NOTHING),
            "counts": (3, "", "no such", ["cosine"], {}, NOTHING),
            "cfg": ("3", 0, -1.0, NAN, math.inf, True, [3], NOTHING),
            "cfg_schedule": (3, "", "no such", ["linear"], {}, NOTHING),
            "temperature": ("3", 0, -1.0, NAN, math.inf, True, [3], NOTHING),
            "model": (3, ["m"], b"m", NOTHING),
            "figures": (None, 3, [1], {3: 1}, {"a": "b"}, {"a": NAN}, NOTHING),
        },
    ),
    Public(
        "Ingredients",
        marche_fx.Ingredients,
        {},
        {
            "steps": (None, 3, "32", ["a"], [0], [1.5], [True], NOTHING),
            "refresh": (None, 3, "exact", FULL, ["exact"], [None], NOTHING),
            "denoising": (None, 3, "25", ["25"], [3], NOTHING),
            "reuse": (None, 3, "exact", ["exact"], [3], NOTHING),
            "orders": (None, 3, "raster", ["no such"], [3], NOTHING),
            "counts": (None, 3, "cosine", ["no such"], [3], NOTHING),
        },
    ),
    Public(
        "Denoising",
        marche_fx.Denoising,
        {},
        {
            "steps": (0, 1, -1, "3", 1.5, NAN, True, [3], NOTHING),
            "spacing": (None, 3, "", "no such", ["even"], {}, NOTHING),
            "solver": (None, 3, "", "no such", ["ddim"], {}, NOTHING),
            "anneal": (3, "50-5", (), (5,), (1, 2, 3), ("a", "b"), (0, 5), (1.5, 2), NOTHING),
            "clip": (0, -1, "3", 1.5, NAN, True, [3], NOTHING),
            "guidance": (3, "0-1", (), (0.5,), (0.5, 0.2), ("a", "b"), (NAN, 1), (0, 2), NOTHING),
            "decoding_steps": (0, -1, "3", 1.5, True, [3], NOTHING, 3),
        },
    ),
    Public(
        "HeadReuse",
        marche_fx.HeadReuse,
        {},
        {
            "slow": (3, "hold", NOTHING, marche_fx.Hold, marche_fx.HoldBranches(2)),
            "guidance": (*COUNT, 0),
            "branches": (3, "hold", NOTHING, marche_fx.Hold(2)),
        },
    ),
    Public("Hold", marche_fx.Hold, {"every": 2}, {"every": (*COUNT, 0)}),
    Public(
        "HoldBranches",
        marche_fx.HoldBranches,
        {"every": 2},
        {"every": (*COUNT, 0), "whole": (None, 3, "1", [1], (-1,), ("a",), (None,), NOTHING)},
    ),
    Public(
        "Interpolate",
        marche_fx.Interpolate,
        {"points": 3},
        {"points": (*COUNT, 0, 1), "order": (None, 3, "", "square", ["cubic"], {}, NOTHING)},
    ),
)
