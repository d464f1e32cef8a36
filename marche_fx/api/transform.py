"""`transform`: wire the passes to a model's methods."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..checks import check_count, check_flag
from ..denoising import Denoising
from ..errors import ArgumentError
from ..head.policy import HeadReuse, reuse_of
from ..marks import ATTRIBUTE
from ..passes.capture.left import Left
from ..passes.graph.opaque import paths_of
from ..recipes import Recipe
from ..refresh import RefreshPolicy
from ..refresh.presets import PresetName
from ..runtime.method import MOST_CAPTURES, Query, Settings, StepMethod
from ..runtime.monitor import Monitor
from .decoding import in_session
from .denoising import replaced_heads
from .head import denoiser_paths, replace_denoisers, with_fast_products
from .optimization import Optimization, PlainChildren, rebind, view_of
from .options import (
    KNOWN_DENOISERS,
    KNOWN_HEADS,
    KNOWN_LOOPS,
    checked_cache_dtype,
    checked_tolerance,
    default_steps,
    graphs_for,
    has_known_steps,
    head_names,
    method_names,
    not_a_module,
    parameter_names,
    paths_within,
    policies_of,
    refuse_loops_that_are_steps,
    token_wise_paths,
    tolerance_of,
)
from .placement import refuse_spread_weights, refuse_wrappers
from .recipes import recipe_for, refuse_both, told_loop
from .step import OptimizedStep

Model = TypeVar("Model", bound=nn.Module)


def transform(
    model: Model,
    *,
    recipe: Recipe | str | Path | None = None,
    refresh: RefreshPolicy | PresetName | Mapping[str, RefreshPolicy] | None = None,
    step: str | Sequence[str] | None = None,
    loop: str | Sequence[str] | None = None,
    head: str | Sequence[str] | None = None,
    denoising: Denoising | str | None = None,
    inner: str | Sequence[str] | None = None,
    reuse: HeadReuse | str | None = None,
    query: Query | None = None,
    compile: bool = True,
    verify: bool = True,
    strict: bool = False,
    monitor: Monitor | bool = False,
    tolerance: Mapping[str, float] | None = None,
    cache_dtype: torch.dtype | None = None,
    cuda_graphs: bool | None = None,
    max_captures: int = MOST_CAPTURES,
    pack_weights: bool = False,
    token_wise: str | Sequence[str] = (),
) -> Model:
    """A model that recomputes only the tokens that matter in each decoding step.

    The result is of the same class and shares the model's parameters; its step and loop methods are replaced, the model
    itself is left alone. A step is captured at its first call.

    Weights are read at every call: those changed in place, replaced, moved or cast later are used. Rows cached in the
    same session stay as the old weights made them until they are recomputed, so change weights between sessions. Other
    modules, hooks and attributes set on the result count from the next session on; the step is then captured again. So
    does what attributes hold, however deep: containers, objects with attributes, such as configs and processors, numpy
    arrays by value, and what functions close over; and the globals and attributes of classes that the code of the step
    names. What is written in C, files and the environment do not count. A hook inside the model becomes part of the
    graph: what it returns counts, what else it does happens at the capture only; so do attributes that a step writes
    and never reads.

    Arguments are compared with those of the call before: token by token where they enter the tokens; elsewhere by value
    on the host, up to a million elements, so that writes through NumPy, ``.data`` or DLPack count. Of larger ones, and
    of those on other devices, only writes that PyTorch counts do.

    A session keeps a stream of calls for each condition that a step is called under, such as the conditional and the
    unconditional call of guidance: caches, ages, warm-up and schedule are its own. Streams are told by their inputs;
    `stream` says it where they cannot be.

    Args:
        recipe: refresh, denoising and reuse together, with decoding steps, order and guidance, which MAR's loop is told
            where its caller says nothing else: a `Recipe`, its JSON file, or ``"exact"``, ``"balanced"`` or ``"fast"``;
            the last two are known for the bundled MAR.
        refresh: which cached tokens to recompute beside those that changed and those that will be read;
            `SelectiveRefresh` when omitted; ``"exact"``, ``"balanced"`` or ``"fast"`` for a preset. A dict gives each
            step method a policy of its own, which then measures and chooses for that method alone; methods that share
            a policy recompute the same tokens.
        step: the methods called once per decoding step, in the order in which a step calls them. ``"forward"`` when
            omitted, or ``forward_mae_encoder`` and ``forward_mae_decoder`` where the model has them, or the latter
            alone beside ``sample_tokens``.
        loop: methods that run a whole decoding; each call is a session. ``sample_tokens`` where the model has the
            methods above, otherwise none: use `decoding`.
        head: children of the model that the loop calls between steps, such as a diffusion head. They compute what they
            did, for every row that they are given, with faster products where ``compile`` allows. ``diffloss`` where
            the model has it and the methods above, otherwise none.
        denoising: how the heads denoise on the result, in place of their own sampling schedule; or its word, such as
            ``"quadratic:25"`` or ``"disa"``. Known for the bundled MAR and the official one.
        inner: methods of children that the head calls again and again under one condition, its denoiser, such as
            ``"diffloss.net.forward"``; captured with ``reuse``. ``diffloss.net.forward`` and ``forward_with_cfg`` where
            the model has them and the methods above, otherwise none.
        reuse: what of the denoiser is reused from one timestep to the next: a `HeadReuse`, ``"exact"`` for nothing, so
            that only what does not depend on the noisy value is computed apart, or ``"balanced"``. None leaves the
            denoiser as it is.
        query: called with the arguments of the last step method, returns the tokens whose outputs will be read, bool
            ``[B, N]``. They are computed with what is read first, so they are needed where the loop reads a result as a
            whole, or row after row. A step waits until its result is read, with a query and without, and computes the
            rows read.
        compile: compile the rewritten step's layers with Inductor, the compiler of `torch.compile`. On the CPU oneDNN
            then multiplies by float32 weights, in the head too.
        verify: at the first call of each kind run the original too, and raise where the two differ.
        strict: refuse models with operators that would run on all tokens.
        monitor: compare cached rows with exact ones now and then, as `Monitor` says, and recompute all tokens when they
            are off; True for its defaults. The report counts what it found.
        tolerance: by name of an argument, such as a timestep that moves in every step, how far what is computed from it
            may move, relative to its norm, before the tokens that read it count as changed: ``{"timestep": 0.3}``. For
            other arguments the policy's tolerance holds, and for those that are no floating-point numbers none.
        cache_dtype: what cached rows are rounded to that other tokens read, such as ``torch.bfloat16``, which halves
            the caches of a float32 model. Rows computed in a step are read as they are, in it, and so are results: with
            all tokens active nothing is rounded. Caches that are no more precise stay as they are.
        cuda_graphs: on a GPU launch what a step computes of its active tokens as one CUDA graph, for some sizes of it
            that further rows fill up; the report tells how often. Caches are kept for the sessions to come. Where none
            can be recorded, as on the CPU, a warning says so once and steps run as they do without. None is off:
            nobody has measured yet where they pay.
        max_captures: kinds of arguments (shapes, dtypes, devices, plain values) for which the capture of a step, and of
            a denoiser, is kept; of more, those go that were not used for longest, with a warning the first time. What
            an open session has caches of, or a denoising goes on with, stays.
        pack_weights: on the CPU, keep a second copy of the steps' float32 weights, packed as oneDNN reads them for few
            rows; `report` says what they take. A weight is packed anew when it was written, replaced or moved, as far
            as PyTorch counts: writes through NumPy, ``.data`` or DLPack are not seen. Needs ``compile``.
        token_wise: children that treat each token by itself and that no trace sees through, as mixtures of experts that
            pick rows by their values: ``"model.layers.*.mlp"``, paths as `named_modules` has them, with wildcards. In a
            step such a child is called as it is, with the active tokens alone. The first call of a step tries it with
            fewer tokens and with others, and raises where that changes what it gives for a token.

    Raises:
        ArgumentError: an argument has the wrong type, the model has no such method or child, or ``recipe`` says already
            what is given beside it.
        RecipeError: the recipe was tuned for another model, or says what the model's loop takes no argument for.
        UnsupportedModelError: the model is wrapped for several devices, its weights are spread over processes or
            moved away between calls, or it has no diffusion that ``denoising`` knows.

    At the first call of a step, `UnsupportedModelError`, `CaptureError` or `EquivalenceError` may be raised.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(not_a_module(model))
    if hasattr(model, ATTRIBUTE):
        raise ArgumentError("the model is already transformed; transform the original with other arguments instead")
    for name, flag in (("compile", compile), ("verify", verify), ("strict", strict)):
        check_flag(name, flag)
    check_count("max_captures", max_captures, least=1)
    refuse_wrappers(model)
    refuse_spread_weights(model)
    own_recipe = None if recipe is None else recipe_for(model, recipe)
    if own_recipe is not None:
        refuse_both(refresh=refresh, denoising=denoising, reuse=reuse)
        refresh, denoising, reuse = own_recipe.refresh, own_recipe.denoising, own_recipe.reuse
    if query is not None and not callable(query):
        raise ArgumentError(f"query must be callable, got {type(query).__name__}")
    watching = Monitor() if monitor is True else monitor or None
    if watching is not None and not isinstance(watching, Monitor):
        raise ArgumentError(f"monitor must be a Monitor, True or False, got {monitor!r}")
    is_mar = has_known_steps(model)
    steps = method_names(model, step, default=default_steps(model), argument="step")
    loops = method_names(model, loop, default=KNOWN_LOOPS if is_mar and step is None else (), argument="loop")
    refuse_loops_that_are_steps(model, steps, loops)
    heads = head_names(model, head, default=KNOWN_HEADS if is_mar and step is None else ())

    wanted = None if reuse is None else reuse_of(reuse)
    if inner is not None and wanted is None:
        raise ArgumentError('inner names a denoiser, and reuse says what to do with it: pass reuse="exact" or another')
    denoisers = denoiser_paths(model, inner, default=KNOWN_DENOISERS if is_mar and step is None else ())
    if wanted is not None and not denoisers:
        raise ArgumentError(
            f"reuse is for a denoiser, and none is known of {type(model).__name__}; name its method by inner, as in "
            "inner='diffloss.net.forward'"
        )

    limits, rounded_to = checked_tolerance(tolerance), checked_cache_dtype(cache_dtype)
    policies, graphs = policies_of(refresh, steps), graphs_for(cuda_graphs)
    if pack_weights and not compile:
        raise ArgumentError("pack_weights is for compiled steps: leave compile=False out, or pack_weights=True")
    settings = Settings(
        *(type(model).__name__, policies, query, compile, verify, strict, watching),
        *(limits, rounded_to, graphs, max_captures, pack_weights),
    )
    last = len(steps) - 1
    # Captured in place of the original, so that attributes set on the result count and the original stays as it is.
    plain = PlainChildren()
    plain.look(model)
    view = view_of(model, token_wise_paths(model, token_wise))
    if plain.modules is not None:
        view._modules = plain.modules
    names = parameter_names(model, steps)
    left: Left = {}
    replaced = {
        name: OptimizedStep(view, StepMethod(name, order, is_last=order == last, settings=settings), names, left)
        for order, name in enumerate(steps)
    }

    def alike(child: nn.Module, path: str) -> nn.Module:
        policy = next(iter(settings.policies.values()))
        return transform(
            child,
            refresh=policy,
            compile=compile,
            verify=verify,
            strict=strict,
            monitor=watching or False,
            tolerance=tolerance_of(child, limits),
            cache_dtype=rounded_to,
            cuda_graphs=cuda_graphs,
            max_captures=max_captures,
            pack_weights=pack_weights,
            token_wise=paths_within(path, paths_of(view)),
        )

    children = dict.fromkeys(path.split(".")[0] for path in denoisers if wanted is not None)
    optimization = Optimization(model, replaced, (*loops, *heads, *children), settings, alike, plain)
    optimization.recipe, optimization.denoising = own_recipe, denoising
    own_heads = replaced_heads(model, heads, denoising, optimization)
    optimized = copy.copy(model)
    optimization.optimized = weakref.ref(optimized)
    optimized.__dict__[ATTRIBUTE] = optimization
    rebind(optimized, model)
    for name, optimized_step in replaced.items():
        optimized_step.owner = optimization
        optimized.__dict__[name] = optimized_step
    for name in loops:
        optimized.__dict__[name] = in_session(optimized, name, optimization)
        if own_recipe is not None and is_mar and name in KNOWN_LOOPS:
            optimized.__dict__[name] = told_loop(optimized, name, optimization)
    for name, own in own_heads.items():
        stand_in = with_fast_products(own) if compile else own
        if stand_in is not getattr(model, name):
            # Found before the child of this name, which stays among the modules that the two models share.
            optimized.__dict__[name] = stand_in
    if wanted is not None:
        optimization.heads = replace_denoisers(
            optimized, model, denoisers, wanted, compile=compile, verify=verify, most=max_captures
        )
    return optimized
