"""One real call of a step before it is traced: it makes the tables that the model keeps, and shows what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import CaptureError, MarcheError, is_out_of_memory
from .alone import tracing_alone
from .arguments import opened
from .constants import Asks, constants
from .copies import copy_modules
from .counting import Counts
from .derived import Derived
from .draws import draws_undone
from .flex import flex_attention_written
from .left import noting_assignments, plain_values
from .leftovers import classes_and_modules
from .opaque import children_rehearsed, owner_of
from .step import Step, failing_place, plain_mode
from .structure import Attributes, Place, attributes, changed_attributes
from .surroundings import Surroundings, noted
from .tables import Tables, state_at
from .undone import WritesUndone


@dataclass(frozen=True)
class Rehearsal:
    """A step that was called once.

    Attributes:
        step: on copies of the model's modules, as the call left them. surroundings: what it read beside them.
        assigned: what it changed there, or gave the plain value that was there; as a rule tables that the model makes
            at its first call and keeps.
        derived: where it left what it computed of its arguments.
        asked: whether it asked for the values of tensors.
        sizes: of what it picked by values, call by call.
    """

    step: Step
    surroundings: Surroundings
    assigned: frozenset[Place]
    derived: frozenset[Place]
    asked: bool
    sizes: list[list[int]]

    def tables(self, model: nn.Module, written: Set[Place], varying: Set[Place]) -> Tables:
        """What the call set for itself.

        Args:
            model: the original. written: what the step sets in every call and never reads. varying: of this, plain
                values that are others in each call.
        """
        kept = self.assigned - written
        before, after = state_at(model, kept, self.surroundings), self.state_at(kept)
        values = constants(model, self.surroundings) if self.asked else []
        left = plain_values(self.step.model, written - varying)
        return Tables(
            *(kept, self.surroundings, before, after),
            written=frozenset(written),
            constants=values,
            derived=(self.derived | varying) - kept,
            varying=frozenset(varying),
            left=left,
        )

    def state_at(self, places: Iterable[Place]) -> Attributes:
        """What the call left at some places."""
        return state_at(self.step.model, places, self.surroundings)

    def again(self, real: list[Tensor] | None = None) -> Step:
        """The step on copies of its own, for a trace to leave its marks on.

        Args:
            real: its arguments, where branches on them are to be decided.
        """
        step = self.step.on(copy_modules(self.step.model), self.assigned)
        step.surroundings = self.surroundings
        step.sizes, step.calls, step.owner = self.sizes, self.step.calls, self.step.owner
        step.real = None if real is None else lambda: real
        return step


def rehearse(step: Step, tensors: list[Tensor]) -> Rehearsal:
    """Call a step on copies of its modules and of the tensors that it is given.

    Raises:
        CaptureError: the model fails for these arguments.
    """
    own = step.on(copy_modules(step.model))
    surroundings = Surroundings(classes_and_modules(own.model))
    before, asks, counts = attributes(own.model), Asks(), Counts()
    try:
        devices = {tensor.device for tensor in tensors}
        with plain_mode():
            # Not in inference mode, outside of which nothing is written into what is made there.
            copied = [tensor.clone() for tensor in tensors]
        derived = Derived(copied)
        undone, noting = WritesUndone(own.model), noting_assignments(own.model)
        with (
            # Before anything is noted: it imports, by hooks of which some are in Python.
            flex_attention_written(),
            plain_mode(),
            draws_undone(devices),
            noted(surroundings),
            undone,
            derived,
            asks,
            counts,
            noting as given,
            children_rehearsed(own.model, lambda: unseen(asks, counts, given)) as own.calls,
        ):
            own.call(copied)
        own.owner = owner_of(step.model, own.calls)
    except MarcheError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason, (_, line) = next(iter(str(error).splitlines()), ""), failing_place(own, error)
        raise CaptureError(
            f"{step.name} fails for these arguments{line}: {type(error).__name__}: {reason}\n"
            "The original fails for them too; pass arguments that it takes."
        ) from error
    after = {**attributes(own.model), **surroundings.attributes()}
    changed = changed_attributes({**before, **surroundings.first}, after)
    # Variables of enclosing functions may be those of functions that this call ran; what hooks enclose is the model's.
    enclosed = {place for place, _ in surroundings.enclosed.values()}
    left = derived.places({place: held for place, held in after.items() if place not in enclosed})
    return Rehearsal(own, surroundings, frozenset(changed) | given, left, asks.asked, counts.sizes)


@contextmanager
def unseen(asks: Asks, counts: Counts, given: set[Place]) -> Iterator[None]:
    """Inside, the step runs what its trace will not see: it asks for nothing, picks nothing and assigns nothing."""
    asked, count, before = asks.asked, len(counts.sizes), {*given}
    try:
        yield
    finally:
        asks.asked = asked
        del counts.sizes[count:]
        given &= before


def rehearse_call(model: nn.Module, step: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rehearsal:
    """Call ``model.step(*args, **kwargs)`` on copies, and trace nothing."""
    leaves, spec = pytree.tree_flatten(opened((args, kwargs)))
    with tracing_alone():
        return rehearse(Step(model, step, leaves, spec), [own for own in leaves if isinstance(own, Tensor)])


def state_after(
    model: nn.Module, step: str, args: tuple[Any, ...], kwargs: dict[str, Any], tables: Tables
) -> Attributes:
    """What a call of ``model.step(*args, **kwargs)`` on copies leaves in its tables."""
    return rehearse_call(model, step, args, kwargs).state_at(tables.places)
