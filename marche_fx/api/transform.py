"""`transform`: wire the passes to a model's methods."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any, NoReturn, TypeVar

import torch
from torch import nn

from ..errors import ArgumentError, MarcheError, UnsupportedModelError
from ..lazy.tensor import resolved
from ..refresh import RefreshPolicy, SelectiveRefresh, preset
from ..runtime.advice import tell_at_the_end
from ..runtime.method import Query, Settings, StepMethod
from ..runtime.monitor import Monitor
from ..runtime.open_sessions import OpenSession, current_session
from ..runtime.session import Session
from .children import ChildCalls, told
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


def rebound(value: Any, old: object, new: object) -> Any:
    """A method bound to one object as the same bound to another; anything else as it is."""
    if isinstance(value, MethodType) and value.__self__ is old:
        return MethodType(value.__func__, new)
    if type(value) is functools.partial:
        inner = rebound(value.func, old, new)
        return value if inner is value.func else functools.partial(inner, *value.args, **value.keywords)
    return value


def is_same_binding(before: Any, now: Any) -> bool:
    """Whether two methods, made anew each time, are one, so that nothing seems to have changed."""
    if type(before) is not type(now):
        return False
    if isinstance(now, functools.partial):
        parts = (before.args, before.keywords) == (now.args, now.keywords)
        return parts and is_same_binding(before.func, now.func)
    return bool(before == now)


def rebind(copied: nn.Module, original: nn.Module) -> None:
    """Methods that somebody put on the original instance are those of its copy."""
    for name, value in list(vars(copied).items()):
        vars(copied)[name] = rebound(value, original, copied)


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
        self.whole: Optimization | None = None
        """That of the model whose sessions are this one's, where it is a child that the model's loop calls."""
        self.path = ""
        """Of that child."""
        self.argument_names = parameter_names(model, steps)
        self.is_given_up = False
        """Whether it turned out that it cannot be transformed."""
        self.parts: dict[str, Optimization] = {}
        """Children that were found to be what the loop calls, by path."""
        self.refused: dict[str, str] = {}
        """Those that cannot be transformed, with why."""

    def update(self, view: nn.Module) -> None:
        """Give a copy of the original the attributes that the transformed model has by now."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is not None:
            for name, value in vars(optimized).items():
                if name != ATTRIBUTE and name not in self.replaced:
                    own = rebound(value, optimized, view)
                    if own is value or not is_same_binding(vars(view).get(name), own):
                        vars(view)[name] = own

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

    def session(self, *, is_loop: bool = False, keeps: bool = False) -> OpenSession:
        return Decoding(self, is_loop=is_loop, keeps=keeps)

    def adopt(self, path: str) -> None:
        """Transform the child at ``path`` of the transformed model, for what it is called later."""
        optimized = None if self.optimized is None else self.optimized()
        if optimized is None:
            return
        *parents, name = path.split(".")
        holder = optimized
        for parent in parents:
            own = copy.copy(holder.get_submodule(parent))
            replace_child(holder, parent, own)
            holder = own
        child = transform(
            holder.get_submodule(name),
            refresh=next(iter(self.settings.policies.values())),
            compile=self.settings.compile,
            verify=self.settings.verify,
            strict=self.settings.strict,
            monitor=self.settings.monitor or False,
        )
        part = optimization_of(child)
        part.whole = self
        part.path = path
        replace_child(holder, name, child)
        self.parts[path] = part

    def give_up(self, error: MarcheError) -> None:
        """It is a child that the loop calls, and cannot be transformed: it is what it was, and the user told why."""
        self.is_given_up = True
        assert self.whole is not None
        self.whole.parts.pop(self.path, None)
        self.whole.refused[self.path] = str(error).splitlines()[0]


class Decoding(OpenSession):
    """A session that says so where the loop calls no step, but a child."""

    owner: Optimization
    watched: ChildCalls | None = None

    def entered(self, session: Session) -> None:
        optimized = None if self.owner.optimized is None else self.owner.optimized()
        if self.owner.parts or self.owner.refused or optimized is None or session.log.calls:
            return
        if self.watched is None:
            self.watched = ChildCalls(optimized, lambda: current_session(self.owner) is session, self.adopt)
        self.watched.start()
        session.on_first_call = self.watched.stop

    def left(self) -> None:
        if self.watched is not None:
            self.watched.stop()

    def adopt(self, path: str) -> None:
        """Transform a child, if that can be done: at the next call of it, it is known."""
        try:
            self.owner.adopt(path)
        except MarcheError as error:
            self.owner.refused[path] = str(error).splitlines()[0]

    def ended(self, session: Session, *, failed: bool) -> None:
        if not failed:
            parts = [self.owner, *self.owner.parts.values()]
            steps = [step for part in parts for step in part.steps.values()]
            tell_at_the_end([step.method for step in steps], session.log.calls)
            for step in steps if session.log.calls else ():
                step.warn_of_change()
        watched, self.watched = self.watched, None
        if watched is None:
            return
        names = " or ".join(self.owner.steps)
        if self.owner.parts or not session.log.calls:
            kind = type(self.owner.model).__name__
            message = told(kind, names, watched.children, list(self.owner.parts), self.owner.refused)
            if message is not None and not failed:
                next(iter(self.owner.steps.values())).method.warn_once(message, topic="no step ran")


def replace_child(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Give a copy of a module another child; the original keeps its own."""
    parent._modules = {**parent._modules, name: child}


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
    tolerance: Mapping[str, float] | None = None,
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
        tolerance: by name of an argument, such as a timestep that moves in every step, how far what is computed from it
            may move, relative to its norm, before the tokens that read it count as changed: ``{"timestep": 0.3}``. For
            other arguments the policy's tolerance holds, and for those that are no floating-point numbers none.

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

    limits = checked_tolerance(tolerance)
    settings = Settings(policies_of(refresh, steps), query, compile, verify, strict, watching, limits)
    last = len(steps) - 1
    # Captured in place of the original, so that attributes set on the result count and the original stays as it is.
    view = copy.copy(model)
    rebind(view, model)
    replaced = {
        name: OptimizedStep(view, StepMethod(name, order, is_last=order == last, settings=settings))
        for order, name in enumerate(steps)
    }
    optimization = Optimization(model, replaced, (*loops, *heads), settings)
    optimized = copy.copy(model)
    optimization.optimized = weakref.ref(optimized)
    optimized.__dict__[ATTRIBUTE] = optimization
    rebind(optimized, model)
    for name, optimized_step in replaced.items():
        optimized_step.owner = optimization
        optimized.__dict__[name] = optimized_step
    for name in loops:
        optimized.__dict__[name] = in_session(optimized, name, optimization)
    for name in heads if compile else ():
        # Found before the child of this name, which stays among the modules that the two models share.
        optimized.__dict__[name] = with_fast_products(getattr(model, name))
    return optimized


def checked_tolerance(tolerance: object) -> dict[str, float]:
    if tolerance is None:
        return {}
    if not isinstance(tolerance, Mapping) or not all(isinstance(name, str) for name in tolerance):
        raise ArgumentError(
            f"tolerance maps names of arguments to numbers, as in {{'timestep': 0.3}}, got {tolerance!r}"
        )
    for name, limit in tolerance.items():
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0:
            raise ArgumentError(f"the tolerance of {name!r} must be a number that is not negative, got {limit!r}")
    return dict(tolerance)


def parameter_names(model: nn.Module, steps: Iterable[str]) -> set[str]:
    """Names of the parameters of all step methods; what is passed in ``**kwargs`` is known when it is."""
    found: set[str] = set()
    for name in steps:
        with contextlib.suppress(TypeError, ValueError):
            found |= set(inspect.signature(getattr(model, name)).parameters)
    return found


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
    method = getattr(optimized, name)

    def is_inside() -> bool:
        session = current_session(optimization)
        return session is not None and session.is_loop

    def opened() -> AbstractContextManager[Any]:
        return nullcontext() if is_inside() else optimization.session(is_loop=True)

    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with opened():
                async for result in method(*args, **kwargs):
                    yield resolved(result)

    elif inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            with opened():
                steps = method(*args, **kwargs)
                sent, reply = None, None
                while True:
                    try:
                        sent = steps.send(reply)
                    except StopIteration as ended:
                        return resolved(ended.value)
                    reply = yield resolved(sent)

    elif inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with opened():
                return resolved(await method(*args, **kwargs))

    else:

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            with opened():
                return resolved(method(*args, **kwargs))

    return run


def decoding(optimized: nn.Module) -> OpenSession:
    """One generation: inside ``with``, caches are kept from step to step; they are freed at its end.

    In the body of a generator it holds for that generator's own calls, whichever thread asks for its next step.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    return optimization_of(optimized).session()


def session(optimized: nn.Module) -> OpenSession:
    """One generation that is entered again and again, from any thread, one at a time.

    For a server or a loop that decodes a step a call::

        generation = marche_fx.session(optimized)
        with generation:
            logits = optimized(ids)
        ...
        generation.close()  # frees the caches

    Raises:
        ArgumentError: the model was not made by `transform`; when entered, another thread is inside.
    """
    return optimization_of(optimized).session(keeps=True)


def optimization_of(optimized: nn.Module) -> Optimization:
    found = getattr(optimized, "__dict__", {}).get(ATTRIBUTE)
    if found is None:
        raise ArgumentError(
            f"{type(optimized).__name__} was not made by marche_fx.transform; use the object that transform returned"
        )
    return found
