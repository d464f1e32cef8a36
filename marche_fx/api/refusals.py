"""What a step method refuses by name, or says when it is captured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ArgumentError, UnsupportedModelError
from ..passes.analysis.plan import Plan
from ..passes.graph.source import describe
from ..runtime.method import StepMethod
from ..runtime.program import Program, inputs_of, reader_of_several_ids


def refuse_gradients(method: StepMethod, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise in training, and where gradients would be taken of cached rows."""
    # The children are shared with the transformed model, whose train() reaches them but not the original itself.
    if model.training or any(child.training for child in model.children()):
        raise UnsupportedModelError(f"{type(model).__name__} is in training mode; call model.eval() before {method}")
    if not torch.is_grad_enabled():
        return
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if any(tensor.requires_grad for tensor in [*tensors, *model.parameters()]):
        raise UnsupportedModelError(
            f"gradients are enabled in {method}, and cached rows have none. "
            "Decode under torch.no_grad() or torch.inference_mode()."
        )


def refuse_in_full(method: StepMethod, plan: Plan) -> None:
    """Raise if operators keep the region from running on active tokens alone."""
    if not plan.in_full:
        return
    found = "\n".join(f"- {describe(node)}" for node in plan.in_full)
    raise UnsupportedModelError(
        f"strict=True, and these operators of {method} would run on all tokens:\n{found}\n"
        "Without strict they run in full on cached rows, which is right but slower."
    )


def refuse_unknown_names(method: StepMethod, program: Program, others: Iterable[str]) -> None:
    """Raise if a tolerance is given for an argument that no step has.

    Args:
        others: names of the arguments of all step methods.
    """
    known = {*program.input_names.values(), *others}
    for name in method.settings.tolerance:
        if name not in known:
            raise ArgumentError(
                f"tolerance names {name!r}, which is no tensor among the arguments of {method}; those are "
                f"{', '.join(map(repr, dict.fromkeys(program.input_names.values())))}"
            )


def refuse_ids(method: StepMethod, program: Program) -> None:
    """Raise if a tolerance is given for an argument of which nothing but ids is compared, unless any may move."""
    for name in (name for name, limit in method.settings.tolerance.items() if limit < math.inf):
        given = [own for own in program.watched if name in inputs_of(own.node, program.input_names)]
        readers = [reader for own in given if (reader := reader_of_several_ids(program, own)) is not None]
        if given and len(readers) == len(given):
            kind = str(given[0].node.meta["val"].dtype).removeprefix("torch.")
            raise ArgumentError(
                f"tolerance names {name!r}, which gives {method} ids ({kind}) and no numbers: "
                f"{describe(readers[0])} tells rows by them, and the id next to another is as far from it as any. "
                "Leave it out of tolerance, which is for what moves by little, as a timestep"
            )


def tell_of_what_is_missing(method: StepMethod, program: Program) -> None:
    """Say of what was asked for, signals and packed weights, that this step has none."""
    tell_of_nothing_to_pack(method, program)
    if method.is_last_of_policy:
        tell_of_unmeasured(method, program)


def tell_of_nothing_to_pack(method: StepMethod, program: Program) -> None:
    """Say that a step has no weights that can be packed, where they were to be."""
    if method.settings.pack_weights and not program.can_pack:
        method.warn_once(
            f"pack_weights=True packs float32 weights on the CPU, where oneDNN is enabled, and {method} has none "
            "of these: it computes as without",
            topic="nothing to pack",
        )


def tell_of_unmeasured(method: StepMethod, program: Program) -> None:
    """Say that a signal has no site in this step: an error if the sites were chosen, else a warning."""
    for signal in program.unmeasured:
        reasons = "; ".join(f"{path or 'the model'}: {why}" for path, why in program.split.unobservable.items())
        message = f"{method.policy!r} asks for {signal!r}, and no attention site of {method} can be observed" + (
            f" ({reasons}). " if reasons else ": none has keys that are tokens of the step. "
        )
        if not isinstance(getattr(signal, "sites", None), int):
            raise ArgumentError(
                message + "Name other sites, or take a policy without signals, such as StalenessRefresh"
            )
        method.warn_once(
            message + "Tokens are refreshed by age alone, as by StalenessRefresh; say so to be rid of this warning",
            topic="no signal",
        )
