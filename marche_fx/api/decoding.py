"""Sessions as a user opens them: around a loop, a step at a time, or by a loop method of the model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from ..errors import MarcheError
from ..lazy.tensor import resolved
from ..runtime.advice import tell_at_the_end, tell_of_operators_in_full
from ..runtime.findings import FEWEST
from ..runtime.open_sessions import OpenSession, current_session
from ..runtime.pace import tell_of_lost_time
from ..runtime.session import Session
from .children import ChildCalls, told
from .denoising import decoding_steps
from .optimization import Optimization, optimization_of


class Decoding(OpenSession):
    """A session that says so where the loop calls no step, but a child."""

    owner: Optimization
    watched: ChildCalls | None = None
    decoding_steps: int | None = None

    def entered(self, session: Session) -> None:
        session.decoding_steps = self.decoding_steps
        optimized = None if self.owner.optimized is None else self.owner.optimized()
        if self.owner.parts or self.owner.refused or optimized is None or session.log.calls:
            return
        if self.watched is None:
            self.watched = ChildCalls(
                optimized, self.owner.model, lambda: current_session(self.owner) is session, self.adopt
            )
        session.on_refusal = functools.partial(self.watch, session, self.watched)
        session.on_refusal()

    def note_generation(self, session: Session) -> None:
        """Count a session that ended, and note whether any so far has cached."""
        self.owner.generations += bool(session.log.calls)
        self.owner.has_cached |= any(0 < call.active < call.visible for call in session.log.calls)

    def is_usual(self, session: Session) -> bool:
        """Whether a session that gained nothing, if this one did, is how the model is used.

        One by a loop method is a whole generation; of others the first few calls may be somebody's first try. A model
        that gained before may have short generations, too.
        """
        steps = 1 + max((call.step for call in session.log.calls), default=-1)
        is_tried_again = self.owner.generations > 1 and steps >= FEWEST - 1
        return not self.owner.has_cached and (session.is_loop or steps >= FEWEST or is_tried_again)

    @staticmethod
    def watch(session: Session, watched: ChildCalls) -> None:
        """Note which children the loop calls until a step is called."""
        watched.start()
        session.on_first_call = watched.stop

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
        # It holds the session, which is to be freed without a collector of garbage.
        session.on_refusal = None
        if not failed:
            parts = [self.owner, *self.owner.parts.values()]
            # Where children are what the loop calls, the model's own step never ran.
            steps = [step for part in parts for step in part.steps.values() if step.programs]
            methods = [step.method for step in steps]
            self.note_generation(session)
            tell_at_the_end(methods, session.log.calls, is_usual=self.is_usual(session))
            tell_of_operators_in_full(methods, session.log.calls)
            tell_of_lost_time(methods, session.log.calls)
            for step in steps if session.log.calls else ():
                step.warn_of_change()
        watched, self.watched = self.watched, None
        if watched is None:
            return
        names = " or ".join(self.owner.steps)
        if self.owner.parts or not session.log.calls:
            kind = type(self.owner.model).__name__
            captured = [
                path for path, own in self.owner.parts.items() if any(step.programs for step in own.steps.values())
            ]
            message = told(
                kind,
                names,
                watched.children,
                captured or list(self.owner.parts),
                self.owner.refused,
                ran=bool(session.log.calls),
                ran_itself=any(
                    call.program in step.programs for step in self.owner.steps.values() for call in session.log.calls
                ),
            )
            if watched.calls_of_original and not session.log.calls:
                message = (
                    f"the loop called {names} of the {kind} that was transformed, and not of the one that "
                    "marche_fx.transform returned. No step ran, and nothing was cached. Let it call that one"
                )
            if message is not None and not failed:
                next(iter(self.owner.steps.values())).method.warn_once(message, topic="no step ran")


def in_session(optimized: nn.Module, name: str, optimization: Optimization) -> Callable[..., Any]:
    """The loop method ``name`` of ``optimized``, each outermost call in a session of its own."""
    method = getattr(optimized, name)

    def is_inside() -> bool:
        session = current_session(optimization)
        return session is not None and session.is_loop

    def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[Any]:
        if is_inside():
            return nullcontext()
        generation = Decoding(optimization, is_loop=True)
        generation.decoding_steps = decoding_steps(method, args, kwargs)
        return generation

    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with opened(args, kwargs):
                async for result in method(*args, **kwargs):
                    yield resolved(result)

    elif inspect.isgeneratorfunction(method):

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            with opened(args, kwargs):
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
            with opened(args, kwargs):
                return resolved(await method(*args, **kwargs))

    else:

        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            with opened(args, kwargs):
                return resolved(method(*args, **kwargs))

    return run


def decoding(optimized: nn.Module) -> Decoding:
    """One generation: inside ``with``, caches are kept from step to step; they are freed at its end.

    In the body of a generator it holds for that generator's own calls, whichever thread asks for its next step.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    return Decoding(optimization_of(optimized))


def session(optimized: nn.Module) -> Decoding:
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
    return Decoding(optimization_of(optimized), keeps=True)
