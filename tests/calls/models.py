"""What takes a model or a rule: arguments that work, and such as must be refused."""

from __future__ import annotations

from typing import Any

import torch

import marche_fx
from tests.around import X
from tests.calls.world import (
    ABSENT,
    CALLABLE,
    COUNT,
    FLAG,
    FOLDER,
    FULL,
    MAR_OF,
    MISSING,
    MODEL,
    MODEL_OF,
    NAN,
    NOTHING,
    NUMBER,
    OPTIMIZED,
    PATH,
    SHARE,
    TEXT,
    Of,
    Public,
    path,
)


def transform_on_mar(**arguments: Any) -> Any:
    return marche_fx.transform(**{"compile": False, **arguments})


def in_stream(name: Any) -> None:
    with marche_fx.stream(name):
        pass


def keep(optimized: Any, kept: Any) -> None:
    with marche_fx.decoding(optimized), torch.no_grad():
        optimized(X).sum()
        marche_fx.keep_samples(optimized, kept)


def run_mar(model: Any, seed: int) -> None:
    model.sample_tokens(1, 2, 1.0, labels=torch.tensor([0]), generator=torch.Generator().manual_seed(seed))


def images(model: Any, recipe: Any, seed: int) -> Any:
    return torch.zeros(1)


MODELS: tuple[Public, ...] = (
    Public(
        "transform",
        marche_fx.transform,
        {"model": MODEL_OF},
        {
            "model": MODEL,
            "recipe": (3, "", "no such", NOTHING, [marche_fx.Recipe()], ABSENT, FOLDER),
            "refresh": (
                3,
                "",
                "no such",
                NOTHING,
                FULL.choose,
                marche_fx.FullRefresh,
                {},
                {"other": FULL},
                [FULL],
                {"forward": 3},
                {3: FULL},
            ),
            "step": (3, "", "no_such", (), [3], ["forward", 3], [None], NOTHING, ["forward", "forward"], "training"),
            "loop": (3, "", "no_such", [3], [None], NOTHING, "training"),
            "head": (3, "", "no_such", [3], [None], NOTHING),
            "denoising": (3, "", "no such", NOTHING, marche_fx.Denoising()),
            "inner": (3, "", "no_such.forward", [3], NOTHING),
            "reuse": (3, "", "no such", NOTHING, marche_fx.Hold(2), marche_fx.HeadReuse()),
            "query": (3, "mask", [print], NOTHING),
            "compile": FLAG,
            "verify": FLAG,
            "strict": FLAG,
            "monitor": (3, "yes", 1, NOTHING, marche_fx.Monitor),
            "tolerance": (3, "x", 0.3, [], {"x": -1}, {"x": NAN}, {"x": "a"}, {"x": None}, {3: 0.1}, {"x": True}),
            "cache_dtype": (3, "bfloat16", torch.int8, torch.float64, NOTHING, [torch.float16], {}),
        },
    ),
    Public(
        "transform of a MAR",
        transform_on_mar,
        {"model": MAR_OF, "reuse": "exact"},
        {
            "head": (3, "", "no_such", [3], NOTHING),
            "denoising": (3, 2.5, "", "no such", [3], NOTHING, marche_fx.Denoising, ABSENT),
            "inner": (3, "", "diffloss.net.nothing", "diffloss.net.training", [3], (), NOTHING),
            "reuse": (3, "", "no such", NOTHING, [3], marche_fx.Hold(2), marche_fx.HeadReuse),
        },
    ),
    Public(
        "explain",
        marche_fx.explain,
        {"model": MODEL_OF, "x": X},
        {
            "model": MODEL,
            "step": (3, "", "no_such", [3], NOTHING, ["forward", "forward"]),
            "active": SHARE,
            "speed": FLAG,
            "inner": (3, "", "no_such", [3], NOTHING),
            "sample": (3, "f", NOTHING),
        },
    ),
    Public(
        "report",
        marche_fx.report,
        {"optimized": OPTIMIZED},
        {"optimized": (*MODEL, MODEL_OF), "active": SHARE},
        {"optimized": ("transform",)},
    ),
    Public(
        "Report.save",
        lambda optimized, path: marche_fx.report(optimized).save(path),
        {"optimized": OPTIMIZED, "path": path("report.txt")},
        {"path": (*PATH, "", "report", "report.pdf", MISSING, FOLDER)},
        {"path": ("report",)},
    ),
    Public(
        "Report.save_model_explorer",
        lambda optimized, folder: marche_fx.report(optimized).save_model_explorer(folder),
        {"optimized": OPTIMIZED, "folder": FOLDER},
        {"folder": (*PATH, MISSING, Of(lambda world: world.policy, "a file"))},
    ),
    Public(
        "save_captures",
        marche_fx.save_captures,
        {"optimized": OPTIMIZED, "path": path("captured")},
        {"optimized": (*MODEL, MODEL_OF), "path": (*PATH, "", MISSING, FOLDER)},
        {"optimized": ("transform",)},
    ),
    Public(
        "load_captures",
        marche_fx.load_captures,
        {"optimized": OPTIMIZED, "path": path("captured")},
        {"optimized": (*MODEL, MODEL_OF), "path": PATH},
        {"optimized": ("transform",)},
    ),
    Public(
        "decoding",
        marche_fx.decoding,
        {"optimized": OPTIMIZED},
        {"optimized": (*MODEL, MODEL_OF)},
        {"optimized": ("transform",)},
    ),
    Public(
        "session",
        marche_fx.session,
        {"optimized": OPTIMIZED},
        {"optimized": (*MODEL, MODEL_OF)},
        {"optimized": ("transform",)},
    ),
    Public("stream", in_stream, {"name": "text"}, {"name": TEXT}, {"name": ("stream",)}),
    Public(
        "keep_samples",
        keep,
        {"optimized": OPTIMIZED, "kept": torch.tensor([0])},
        {
            "optimized": (*MODEL, MODEL_OF),
            "kept": (
                None,
                3,
                "all",
                [0],
                torch.tensor(0),
                torch.tensor([0.0]),
                torch.tensor([2]),
                torch.tensor([-1]),
                torch.tensor([True]),
                torch.ones(2, 2, dtype=torch.bool),
                torch.tensor([0j]),
            ),
        },
        {"optimized": ("transform",)},
    ),
    Public(
        "tune",
        marche_fx.tune,
        {
            "model": MAR_OF,
            "run": run_mar,
            "max_drift": 10.0,
            "seeds": (0,),
            "unseen": (1,),
            "candidates": {"one": [FULL]},
        },
        {
            "model": MODEL,
            "run": CALLABLE,
            "max_drift": (*NUMBER, 0, -1.0),
            "seeds": (None, 3, "01", (), (1,), ("a",), (0.5,), (None,), NOTHING),
            "unseen": (None, 3, "01", (), (0,), ("a",), NOTHING),
            "candidates": (3, "exact", [FULL], {"one": FULL}, {"one": [3]}, {3: [FULL]}, NOTHING),
            "step": (3, "no_such", (), [3]),
            "loop": (3, "no_such", [3]),
            "query": (3, "mask"),
            "out": (3, True, ["a"], b"a", NOTHING, MISSING, FOLDER),
            "progress": FLAG,
        },
    ),
    Public(
        "Recipe.arguments",
        lambda recipe, model, batch, generator=None: recipe.arguments(model, batch, generator),
        {"recipe": marche_fx.Recipe(steps=2, order="raster"), "model": MAR_OF, "batch": 2},
        {"model": (*MODEL, MODEL_OF), "batch": (*COUNT, 0), "generator": (3, "0", NOTHING)},
        {"model": ("seq_h",)},
    ),
    Public(
        "tune_recipe",
        marche_fx.tune_recipe,
        {"model": MAR_OF, "generate": images, "judge": float, "max_loss": 100.0, "base": marche_fx.Recipe(steps=2)},
        {
            "model": MODEL,
            "generate": CALLABLE,
            "judge": (None, 3, "fid", NOTHING),
            "max_loss": NUMBER,
            "base": (None, 3, "exact", FULL, marche_fx.Recipe(), NOTHING),
            "ingredients": (3, "all", [FULL], NOTHING),
            "seeds": (None, 3, "0123", (), (1,), ("a", "b"), (0.5, 1.5), NOTHING),
            "unseen": (None, 3, "0123", (), (1,), (0, 1), ("a", "b"), NOTHING),
            "out": (3, True, ["a"], b"a", NOTHING, Of(lambda world: world.policy, "a file")),
            "progress": FLAG,
            "cpu_time": FLAG,
            "refresh": (FULL,),
            "nonsense": (3,),
        },
        {"base": ("base", "recipe"), "refresh": ("base",)},
    ),
    Public(
        "check_rule",
        lambda target, args=(X,), kwargs=None, exactly=False: marche_fx.check_rule(
            target, args, kwargs, exactly=exactly
        ),
        {"target": torch.ops.aten.tanh.default},
        {
            "target": (None, 3, "aten.tanh", torch.tanh, torch.ops.aten.add, NOTHING),
            "args": (None, 3, (), ("x",), (3,), X, (X, X)),
            "kwargs": (3, [1], {"no_such": 1}, {3: 1}),
            "exactly": FLAG,
        },
        {"target": ("operator", "overloads")},
    ),
    Public(
        "register_rule",
        lambda op, rule="n -> n", example=None, replace=True: marche_fx.register_rule(
            op, rule, example, replace=replace
        ),
        {"op": torch.ops.aten.trace.default, "rule": "n m -> "},
        {
            "op": (None, 3, "aten.tanh", torch.tanh, torch.ops.aten.add, torch.ops.aten.add_.Tensor, NOTHING),
            "rule": (None, 3, "", "n", "n -> m -> k", "n, m -> n", ["n -> n"], NOTHING),
            "example": (3, "x", (), ("x",), (3,), X, NOTHING),
            "replace": FLAG,
        },
        {"op": ("operator", "overloads", "writes"), "example": ("example",)},
    ),
)
