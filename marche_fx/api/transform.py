"""`transform`: wire the passes to a model's methods."""

from __future__ import annotations

import copy
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn

from ..errors import ArgumentError, UnsupportedModelError
from ..lazy.tensor import resolved
from ..refresh import RefreshPolicy, SelectiveRefresh, preset
from ..runtime.method import Query, Settings, StepMethod
from ..runtime.monitor import Monitor
from ..runtime.session import Session, current_session, open_session
from .head import with_fast_products
from .step import OptimizedStep

Model = TypeVar("Model", bound=nn.Module)

ATTRIBUTE = "_marche_fx"
"""Where a transformed model keeps its `Optimization`."""

KNOWN_STEPS = ("forward_mae_encoder", "forward_mae_decoder")
KNOWN_LOOPS = ("sample_tokens",)
KNOWN_HEADS = ("diffloss",)
"""Names of MAR and its descendants; any other model's step is ``forward``."""


WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
"""Classes whose forward moves weights between devices before it computes."""


class Optimization:
    """What was done to one model: its steps, and the last session that ended, for `report`."""

    def __init__(
        self, model: nn.Module, steps: dict[str, OptimizedStep], others: Sequence[str], settings: Settings
    ) -> None:
        self.model = model
        self.steps = steps
        self.replaced = (*steps, *others)
        self.settings = settings
        self.last_session: Session | None = None
        self.optimized: weakref.ref[nn.Module] | None = None

    def update(self, view: nn.Module) -> None:
        """Give a copy of the original the attributes that the transformed model has by now."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is not None:
            attributes = {**vars(optimized)}
            for name in (ATTRIBUTE, *self.replaced):
                attributes.pop(name, None)
            vars(view).update(attributes)

    def current(self) -> nn.Module:
        """The original with the attributes that the transformed model has by now."""
        view = next(iter(self.steps.values())).model
        self.update(view)
        return view

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ArgumentError(
            "a transformed model holds captured graphs, which cannot be copied or saved. Copy the original and "
            "transform the copy; save the weights, as in torch.save(model.state_dict(), path), and the graphs by "
            "marche_fx.save."
        )

    @contextmanager
    def session(self, *, is_loop: bool = False) -> Iterator[Session]:
        with open_session(self, is_loop=is_loop) as session:
            yield session
        self.last_session = session


def transform(
    model: Model,
    *,
    refresh: RefreshPolicy | str | Mapping[str, RefreshPolicy] | None = None,
    step: str | Sequence[str] | None = None,
    loop: str | Sequence[str] | None = None,
    head: str | Sequence[str] | None = None,
    query: Query | None = None,
    compile: bool = True,
    verify: bool = True,
    strict: bool = False,
    monitor: Monitor | bool = False,
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

    Args:
        refresh: which cached tokens to recompute beside those that changed and those that will be read;
            `SelectiveRefresh` when omitted; ``"exact"``, ``"balanced"`` or ``"fast"`` for a preset. A dict gives each
            step method a policy of its own, which then measures and chooses for that method alone; methods that share
            a policy recompute the same tokens.
        step: the methods called once per decoding step, in the order in which a step calls them. ``"forward"`` when
            omitted, or ``forward_mae_encoder`` and ``forward_mae_decoder`` where the model has them.
        loop: methods that run a whole decoding; each call is a session. ``sample_tokens`` where the model has the two
            methods above, otherwise none: use `decoding`.
        head: children of the model that the loop calls between steps, such as a diffusion head. They compute what they
            did, for every row that they are given, with faster products where ``compile`` allows. ``diffloss`` where
            the model has it and the two methods above, otherwise none.
        query: called with the arguments of the last step method, returns the tokens whose outputs will be read, bool
            ``[B, N]``. When omitted, a step waits until its result is read and computes the rows read. That saves more,
            since no other row of the last layer is needed then.
        compile: lower the rewritten step with `torch.compile`. On the CPU oneDNN then multiplies by float32 weights,
            in the head too.
        verify: at the first call of each kind run the original too, and raise where the two differ.
        strict: refuse models with operators that would run on all tokens.
        monitor: compare cached rows with exact ones now and then, as `Monitor` says, and recompute all tokens when they
            are off; True for its defaults. The report counts what it found.

    Raises:
        ArgumentError: an argument has the wrong type, or the model has no such method or child.
        UnsupportedModelError: the model is wrapped for several devices.

    At the first call of a step, `UnsupportedModelError`, `CaptureError` or `EquivalenceError` may be raised.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"transform takes a torch.nn.Module, got {type(model).__name__}")
    if hasattr(model, ATTRIBUTE):
        raise ArgumentError("the model is already transformed; transform the original with other arguments instead")
    refuse_wrappers(model)
    if query is not None and not callable(query):
        raise ArgumentError(f"query must be callable, got {type(query).__name__}")
    watching = Monitor() if monitor is True else monitor or None
    if watching is not None and not isinstance(watching, Monitor):
        raise ArgumentError(f"monitor must be a Monitor, True or False, got {monitor!r}")
    is_mar = has_known_steps(model)
    steps = method_names(model, step, default=default_steps(model), argument="step")
    loops = method_names(model, loop, default=KNOWN_LOOPS if is_mar and step is None else (), argument="loop")
    heads = head_names(model, head, default=KNOWN_HEADS if is_mar and step is None else ())

    settings = Settings(policies_of(refresh, steps), query, compile, verify, strict, watching)
    last = len(steps) - 1
    # Captured in place of the original, so that attributes set on the result count and the original stays as it is.
    view = copy.copy(model)
    replaced = {
        name: OptimizedStep(view, StepMethod(name, order, is_last=order == last, settings=settings))
        for order, name in enumerate(steps)
    }
    optimization = Optimization(model, replaced, (*loops, *heads), settings)
    optimized = copy.copy(model)
    optimization.optimized = weakref.ref(optimized)
    optimized.__dict__[ATTRIBUTE] = optimization
    for name, optimized_step in replaced.items():
        optimized_step.owner = optimization
        optimized.__dict__[name] = optimized_step
    for name in loops:
        optimized.__dict__[name] = in_session(optimized, name, optimization)
    for name in heads if compile else ():
        # Found before the child of this name, which stays among the modules that the two models share.
        optimized.__dict__[name] = with_fast_products(getattr(model, name))
    return optimized


def has_known_steps(model: nn.Module) -> bool:
    """Whether it is a MAR or a descendant of one."""
    return all(callable(getattr(model, name, None)) for name in KNOWN_STEPS)


def default_steps(model: nn.Module) -> tuple[str, ...]:
    return KNOWN_STEPS if has_known_steps(model) else ("forward",)


def policies_of(refresh: object, steps: Sequence[str]) -> dict[str, RefreshPolicy]:
    """The policy of each step method, in their order."""
    default = SelectiveRefresh() if refresh is None else preset(refresh) if isinstance(refresh, str) else refresh
    found: dict[Any, Any] = dict(default) if isinstance(default, Mapping) else dict.fromkeys(steps, default)
    if set(found) != set(steps):
        raise ArgumentError(
            f"refresh must give a policy for each of {', '.join(steps)}, got {', '.join(map(str, found))}"
        )
    for policy in found.values():
        if not isinstance(policy, RefreshPolicy):
            raise ArgumentError(f"refresh must be a refresh policy, such as SelectiveRefresh(), got {policy!r}")
    return {name: found[name] for name in steps}


def what_is_measured(policies: Mapping[str, RefreshPolicy]) -> tuple[Any, ...]:
    """Equal for policies by step method whose captured steps can serve one another: they measure the same."""
    numbers = {id(policy): number for number, policy in enumerate(policies.values())}
    return tuple((own.signals, own.exact_sites, numbers[id(own)]) for own in policies.values())


def refuse_wrappers(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError("transform takes the Python module that torch.jit compiled, not the ScriptModule")
    for path, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        wrapper = next((name for name in WRAPPERS if name in kinds), None)
        if wrapper is not None:
            raise UnsupportedModelError(
                f"{path or 'the model'} is wrapped in {wrapper}, which moves weights while it runs. Transform the "
                "model inside, on one device: marche_fx.transform(model.module) where the wrapper has it."
            )


def method_names(
    model: nn.Module, names: str | Sequence[str] | None, *, default: Sequence[str], argument: str
) -> tuple[str, ...]:
    if names is None:
        return tuple(default)
    found = (names,) if isinstance(names, str) else tuple(names)
    if not found and argument == "step":
        raise ArgumentError("step must name at least one method")
    for name in found:
        if not callable(getattr(model, name, None)):
            methods = [
                own for own in vars(type(model)) if not own.startswith("_") and callable(getattr(model, own, None))
            ]
            raise ArgumentError(
                f"{type(model).__name__} has no method {name!r} to be a {argument}; its own methods are "
                f"{', '.join(methods) or 'none'}"
            )
    return found


def head_names(model: nn.Module, names: str | Sequence[str] | None, *, default: Sequence[str]) -> tuple[str, ...]:
    children = dict(model.named_children())
    if names is None:
        return tuple(name for name in default if name in children)
    found = (names,) if isinstance(names, str) else tuple(names)
    for name in found:
        if name not in children:
            raise ArgumentError(
                f"{type(model).__name__} has no child {name!r} to be a head; its children are "
                f"{', '.join(children) or 'none'}"
            )
    return found


def in_session(optimized: nn.Module, name: str, optimization: Optimization) -> Callable[..., Any]:
    """The loop method ``name`` of ``optimized``, each outermost call in a session of its own."""
    method = getattr(type(optimized), name)
    if inspect.isgeneratorfunction(method):
        raise ArgumentError(f"{name} is a generator, whose session would outlive its calls; use marche_fx.decoding")

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        session = current_session(optimization)
        if session is not None and session.is_loop:
            return method(optimized, *args, **kwargs)
        with optimization.session(is_loop=True):
            return resolved(method(optimized, *args, **kwargs))

    return run


@contextmanager
def decoding(optimized: nn.Module) -> Iterator[None]:
    """One generation: caches are kept from step to step inside, and freed at the end.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    with optimization_of(optimized).session():
        yield


def optimization_of(optimized: nn.Module) -> Optimization:
    found = getattr(optimized, "__dict__", {}).get(ATTRIBUTE)
    if found is None:
        raise ArgumentError(
            f"{type(optimized).__name__} was not made by marche_fx.transform; use the object that transform returned"
        )
    return found
