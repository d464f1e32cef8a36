"""Decodes with a generated model: in full as the original, in part as the oracle says."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils import _pytree as pytree

from marche_fx import (
    DriftRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    UnsupportedModelError,
    decoding,
    report,
    transform,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.ops import join_positions
from marche_fx.passes.capture.arguments import opened
from marche_fx.passes.graph.reach import ancestors
from marche_fx.passes.lower.symbolic import ragged_dims
from marche_fx.passes.rewrite.hooks import insert_hooks
from marche_fx.refresh.presets import PresetName
from tests.generated.arguments import Arguments, make_arguments
from tests.generated.model import build
from tests.generated.recipe import Recipe
from tests.program import Program

TOLERANCE = 1e-9

SIGNALS = (lambda hooks: hooks.attention("all"), lambda hooks: hooks.value_drift("all"))

POLICIES: dict[str, RefreshPolicy | PresetName] = {
    "exact": "exact",
    "attention": SelectiveRefresh(0.3, warmup=1, every=3, tolerance=10.0),
    "drift": DriftRefresh(0.3, warmup=1, every=3, tolerance=10.0),
}


def active_sets(samples: int, lengths: Sequence[int], generator: Generator) -> Iterator[list[Tensor]]:
    """Of one generation, ``[B, A]`` for each stream: all rows at first and at last, and some steps of any between."""

    def some(length: int) -> Tensor:
        count = int(torch.randint(1, length + 1, (), generator=generator))
        order = torch.rand(samples, length, generator=generator).argsort(-1)
        return order[:, :count]

    every = [torch.arange(length).expand(samples, length) for length in lengths]
    yield every
    active = [positions[:, -1:] for positions in every]
    yield active
    for _ in range(3):
        if torch.rand((), generator=generator) < 0.8:
            active = [some(length) for length in lengths]
        yield active
    yield every


def numbers_read(active: Sequence[Tensor], lengths: Sequence[int], generator: Generator) -> list[Tensor]:
    """Of the active tokens of each stream ``[B, A]`` the numbers of some, ``[B, R]``; of all where all are active."""
    counts = [own.shape[1] for own in active]
    shares = torch.ones(()) if counts == list(lengths) else torch.rand((), generator=generator)
    return [
        torch.rand(own.shape, generator=generator).argsort(-1)[:, : max(1, round(float(shares) * count))]
        for own, count in zip(active, counts)
    ]


def leaves(tree: Any) -> list[Any]:
    return pytree.tree_leaves(opened(tree))


def relative_error(own: Any, other: Any) -> float:
    if not isinstance(other, Tensor):
        return 0.0 if own == other else float("inf")
    if own.shape != other.shape or own.dtype != other.dtype:
        return float("inf")
    if other.dtype is torch.bool:
        return 0.0 if torch.equal(own, other) else float("inf")
    error = (own - other).abs().max() / other.abs().max().clamp(min=1e-12)
    return float(error.nan_to_num(nan=float("inf")))


class GeneratedModelError(AssertionError):
    """What went wrong with a model, and the recipe that rebuilds it."""

    def __init__(self, what: str, recipe: Recipe) -> None:
        super().__init__(f"{what}\n{recipe!r}")
        self.what = what


@torch.no_grad()
def check(recipe: Recipe) -> None:
    """Rewrite the model of a recipe and decode with it.

    Raises:
        GeneratedModelError: it is refused, attention is not found, or a step is not what the original or oracle says.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, recipe.default_dtype))
    try:
        check_model(recipe)
    finally:
        torch.set_default_dtype(before)


def check_model(recipe: Recipe) -> None:
    model = build(recipe)
    args, kwargs = make_arguments(recipe, Generator().manual_seed(recipe.seed))
    optimized = transform(model, refresh=POLICIES[recipe.policy], compile=False, token_wise=recipe.token_wise)
    try:
        decode_by_policy(recipe, model, optimized)
    except UnsupportedModelError as error:
        if recipe.writes == "computed" and "it may write what it computes of arguments alone" in str(error):
            return
        raise GeneratedModelError(f"refused: {error}", recipe) from error
    if recipe.writes == "computed":
        raise GeneratedModelError("what is computed of weights is written into an argument", recipe)
    # Its own capture, since that takes most of the time.
    (planned,) = optimization_of(optimized).steps["forward"].programs
    program = Program(model, "forward", args, kwargs, skip_unread=True, plan=planned.plan)
    found = len(program.plan.sites)
    if found != recipe.attention:
        raise GeneratedModelError(f"{found} attention sites of {recipe.attention}", recipe)
    # Queries times a table of weights are no attention.
    if any(ancestors([site.k]).isdisjoint(program.plan.inputs) for site in program.plan.sites):
        raise GeneratedModelError("attention to keys that are weights", recipe)
    is_windowed = any(layer.window != "none" for layer in recipe.layers)
    expected_lengths = sorted([recipe.registers + recipe.tokens, *[recipe.text] * bool(recipe.text)])
    # Nothing tells heads that share keys from tokens where channels are turned as one complex number.
    is_turned = recipe.head_width == 2 and any(
        (layer.repeat, layer.form, layer.rotary) == ("shared", "bmm", "complex") for layer in recipe.layers
    )
    as_expected = sorted(program.plan.axes.lengths) in (expected_lengths, [recipe.length])
    if not as_expected and not is_windowed and not is_turned:
        raise GeneratedModelError(f"streams of {program.plan.axes.lengths} tokens", recipe)
    program.split = insert_hooks(program.split, program.plan, SIGNALS)[0]
    check_sizes(recipe, program, [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)])
    program.reset()
    decode(recipe, model, program)


def check_sizes(recipe: Recipe, program: Program, inputs: Sequence[Tensor]) -> None:
    """Compiled code is told of every size that is another one where fewer tokens are active."""
    told = ragged_dims(program.split, program.split.incremental.module.graph)
    every = [torch.arange(length).expand(program.plan.samples, length) for length in program.plan.axes.lengths]
    few, many = program.shapes(inputs, *(own[:, :1] for own in every)), program.shapes(inputs, *every)
    for node, shape in many.items():
        differing = {dim for dim, (a, b) in enumerate(zip(few[node], shape, strict=True)) if a != b}
        if not differing <= {*told[node]}:
            raise GeneratedModelError(f"sizes {differing} of {node} are not told to the compiler", recipe)


def decode(recipe: Recipe, model: nn.Module, program: Program) -> None:
    oracle, generator = program.oracle(), Generator().manual_seed(recipe.seed + 1)
    lengths = program.plan.axes.lengths
    arguments = make_arguments(recipe, generator)
    for number, active in enumerate(active_sets(program.plan.samples, lengths, generator)):
        if torch.rand((), generator=generator) < 0.8:
            arguments = make_arguments(recipe, generator)
        inputs = [leaf for leaf in leaves(arguments) if isinstance(leaf, Tensor)]
        counts = [positions.shape[1] for positions in active]
        read = numbers_read(active, lengths, generator)
        results = program.step(inputs, *active, read=read)
        step = f"in step {number} with {counts} of {lengths} rows, {[own.shape[1] for own in read]} read"
        check_signals(program, step, recipe)
        positions = [own.gather(1, numbers) for own, numbers in zip(active, read)]
        expected_results = oracle.step(inputs, join_positions(active, lengths), join_positions(positions, lengths))
        # The oracle leaves out plain values.
        pairs = zip(results, expected_results, strict=True)
        expected = [other if isinstance(own, Tensor) else own for own, other in pairs]
        compare(results, expected, f"not the oracle's {step}", recipe)
        if counts == list(lengths):
            args, kwargs = deepcopy(arguments)
            compare(results, leaves(model(*args, **kwargs)), f"not the original's {step}", recipe)


def check_signals(program: Program, step: str, recipe: Recipe) -> None:
    """Attention is shares of one for every sample; drift is measured where values were written."""
    shape, float32 = (program.plan.samples, program.plan.axes.length), torch.float32
    if any((signal.shape, signal.dtype) != (shape, float32) for signal in program.signals):
        raise GeneratedModelError(f"signals are not one float32 for each token, {step}", recipe)
    if len(program.signals) == len(SIGNALS):
        attention = program.signals[0]
        if not (attention >= 0).all() or not (attention.sum(1) < 1.001).all():
            raise GeneratedModelError(f"attention is not shares of one, {step}", recipe)
    if program.split.unobservable and not program.plan.region.full:
        raise GeneratedModelError(f"not observed: {program.split.unobservable}", recipe)


def decode_by_policy(recipe: Recipe, model: nn.Module, optimized: nn.Module) -> None:
    """Steps of a session; those in which everything is computed are the original's."""
    generator = Generator().manual_seed(recipe.seed + 2)
    arguments = make_arguments(recipe, generator)
    found = []
    with decoding(optimized), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(5):
            arguments = make_arguments(recipe, generator) if number % 2 else arguments
            ours, theirs = deepcopy(arguments), deepcopy(arguments)
            results, drawn = drawing(number, optimized, ours)
            results = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in results]
            expected, drawn_by_model = drawing(number, model, theirs)
            compare(leaves(ours), leaves(theirs), f"left in the arguments of step {number}", recipe)
            if vars(optimized).get("left") != vars(model).get("left"):
                raise GeneratedModelError(f"not left in the model by step {number}", recipe)
            if not torch.equal(drawn, drawn_by_model):
                raise GeneratedModelError(f"other random numbers are drawn in step {number}", recipe)
            found.append((results, expected))
    session = report(optimized).session
    assert session is not None
    for own in session.choices:
        if own.active == own.visible:
            compare(*found[own.step], f"by {recipe.policy} in step {own.step}", recipe)


def drawing(seed: int, step: nn.Module, arguments: Arguments) -> tuple[list[Any], Tensor]:
    """What a step gives, and what is drawn after it, where random numbers begin with ``seed``."""
    args, kwargs = arguments
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return resolved(leaves(step(*args, **kwargs))), torch.rand(())


def compare(results: Sequence[Any], expected: Sequence[Any], what: str, recipe: Recipe) -> None:
    if len(results) != len(expected):
        raise GeneratedModelError(f"{len(results)} results, {len(expected)} expected, {what}", recipe)
    for number, (own, other) in enumerate(zip(results, expected)):
        error = relative_error(own, other)
        if error > TOLERANCE:
            raise GeneratedModelError(f"result {number} off by {error:.0e}, {what}", recipe)


def verdict(recipe: Recipe) -> tuple[str, str]:
    """``"passed"``, ``"refused"`` or ``"failed"``, and why."""
    try:
        check(recipe)
    except GeneratedModelError as failure:
        return "refused" if isinstance(failure.__cause__, UnsupportedModelError) else "failed", failure.what
    except Exception as error:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in frame.filename
        ]
        where = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[:-4:-1])
        return "failed", f"{type(error).__name__} at {where}: {str(error)[:600]}"
    return "passed", ""
