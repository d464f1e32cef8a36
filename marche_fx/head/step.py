"""The method that takes the place of a denoiser."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import CaptureError, UnsupportedModelError
from ..lazy.modes import untraced
from ..passes.capture.alone import LOCK
from ..passes.capture.any_rows import AnyRows, capture_any_rows
from ..passes.recent import Recent
from ..runtime.method import MOST_CAPTURES, dropped_in_words
from ..runtime.terminal import saying
from ..runtime.users_code import warn_once
from ..runtime.verify import check_equal, original_result
from .calls import Call, Key, look
from .captured import Captured
from .denoising import Denoising
from .policy import HeadReuse
from .program import HeadProgram
from .records import HeadRecord
from .roles import FRUITLESS, TURNS, RoleFinder, Roles, rows_of
from .schedule import Announced, Schedule, Time
from .stored import StoredHead

KINDS = 8
"""So many kinds of arguments are looked at for which is what."""

SHORTEST = 2
"""Fewer calls are no denoising to learn a schedule from."""


class HeadStep:
    """Callable in place of ``net.method``: computes what does not depend on the noisy value apart, and reuses.

    The first calls are the original's, until it is known which argument is what, and the first denoising's times are
    the schedule of the next.

    Args:
        net: the original, which is captured and whose weights are read at every denoising. original: what to call as
            long as nothing is captured. path: the method's, in the transformed model. most: captures that are kept, see
            ``max_captures`` of `transform`; one that a denoising goes on with stays.
    """

    def __init__(
        self,
        net: nn.Module,
        method: str,
        original: Callable[..., Any],
        *,
        path: str,
        reuse: HeadReuse,
        compile: bool,
        verify: bool,
        most: int = MOST_CAPTURES,
    ) -> None:
        self.net = net
        self.method = method
        self.original = original
        self.path = path
        self.reuse = reuse
        self.compile = compile
        self.verify = verify
        self.known: Recent[Any, Captured] = Recent(most, lambda own: own.is_in_use)
        """By kind of calls."""
        self.stored: list[StoredHead] = []
        """Captures of another process."""
        self.refused: Recent[Any, str] = Recent(most)
        """Why calls of a kind run as they are."""
        self.trusted: weakref.WeakSet[Schedule] = weakref.WeakSet()
        """Schedules that a whole denoising kept to."""
        self.here = threading.local()
        """The last denoisings of each thread, of which several may take turns, as the two calls of guidance do."""
        self.record = HeadRecord()
        self.warned: set[str] = set()

    @untraced
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and any(own.requires_grad for own in self.net.parameters()):
            self.tell(f"{self.path} ran as it is where gradients are recorded; sample in torch.no_grad()")
            return self.as_is(args, kwargs)
        with torch.no_grad():
            call = Call.of(self.original, args, kwargs)
            known = self.captured(call)
            if known is None:
                return self.as_is(args, kwargs)
            return self.run(known, call, args, kwargs)

    def expect(self, timesteps: Sequence[float]) -> None:
        """Take the calls that follow, in this thread, for denoisings that begin, at these timesteps in their order."""
        self.here.announced = Announced(tuple(map(float, timesteps)))

    def as_is(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.record.as_is += 1
        return self.original(*args, **kwargs)

    @property
    def programs(self) -> dict[Any, HeadProgram]:
        """By kind of calls, in the order in which they were captured."""
        return {kind: own.program for kind, own in self.known.items()}

    def captured(self, call: Call) -> Captured | None:
        """What computes calls of this kind; None where the original does, for now or for good."""
        found = self.known.get(call.kind)
        if found is not None or self.refused.get(call.kind) is not None:
            return found
        restored = self.restored(call)
        if restored is not None:
            return restored
        finders = self.here.__dict__.setdefault("finders", {})
        if call.kind not in finders and len(finders) == KINDS:
            self.tell(
                f"{self.path} runs as it is: it was called with {KINDS} kinds of arguments (dtypes, widths, plain "
                "values) before it was known which is the time. Pass numbers that change, as the timestep, as tensors"
            )
            return None
        finder = finders.setdefault(call.kind, RoleFinder())
        roles = finder.roles(call)
        if roles is None:
            if finder.is_fruitless:
                self.tell(
                    f"{self.path} runs as it is: in {FRUITLESS} calls no argument moved alike in all rows, as a time "
                    "does, beside one that moved row by row, as a noisy value, under a condition that stayed. inner "
                    "must name a method that denoises: called again and again, a timestep after the other"
                )
            return None
        with LOCK:
            found = self.known.get(call.kind) or self.captured_anew(call, roles)
        del finders[call.kind]
        self.here.earlier = call, finder.times(roles)
        return found

    def restored(self, call: Call) -> Captured | None:
        """What another process captured of calls of this kind, where that holds here; it is used now or never."""
        stored = next((own for own in self.stored if own.kind == call.kind), None)
        if stored is None:
            return None
        with LOCK:
            if stored not in self.stored:
                return self.known.get(call.kind)
            self.stored.remove(stored)
            rows, reason = stored.restored(self.net, call)
            if rows is None:
                self.tell(f"a saved capture of {self.path} is not used: {reason}; it is captured anew")
                return None
            return self.made(call, stored.roles, lambda: rows)

    def captured_anew(self, call: Call, roles: Roles) -> Captured | None:
        rows = rows_of(call.leaves, roles)
        return self.made(
            call, roles, lambda: capture_any_rows(self.net, self.method, call.args, call.kwargs, rows=rows)
        )

    def made(self, call: Call, roles: Roles, capturing: Callable[[], AnyRows]) -> Captured | None:
        """The program of a capture, which is kept; None, after a warning, where there can be none."""
        try:
            with saying(f"capturing {self.path}"):
                found = HeadProgram(self.net, capturing, roles, branches=self.reuse.branches, compile=self.compile)
        except (CaptureError, UnsupportedModelError) as error:
            self.refused.put(call.kind, str(error))
            self.tell(f"{self.path} runs as it is: {error}")
            return None
        known = Captured(found)
        self.known.put(call.kind, known)
        if self.known.dropped:
            self.tell(dropped_in_words(self.path, self.known.most), topic="dropped")
        if self.reuse.guidance > 1 and found.multiple > 1 and not found.has_halves:
            self.tell(
                f"{self.path} takes its rows for two halves and computes both at every call, for all that "
                f"guidance={self.reuse.guidance} asks: {found.halves}. The network must run on cat([half, half]) of "
                "one noisy value, each row by itself"
            )
        return known

    def run(self, known: Captured, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        program = known.program
        rows = len(program.given(call)[program.noisy])
        denoising, key = self.denoising(known, call)
        if key is None or rows % program.multiple or not program.fits(call):
            what = "times that differ between rows" if key is None else "other numbers of rows than it was captured for"
            self.tell(f"{self.path} was called with {what}, and ran as it is", topic=what)
            return self.as_is(args, kwargs)
        if denoising is None:
            if not program.holds_for(self.net):
                self.forget()
                return self.as_is(args, kwargs)
            denoising = self.begin(known, call, key)
        has_departed = denoising.has_departed
        results = denoising.run(call, key)
        if denoising.has_departed and not has_departed:
            self.tell_of_departure(denoising, key)
        if self.verify and denoising.is_exact and not program.is_verified_for(rows):
            dtypes = [call.kind[-1].dtype] if call.kind[-1].enabled else []
            expected = original_result(self.path, partial(self.original, *args, **kwargs))
            check_equal(self.path, results, expected, rounded_to=dtypes)
            program.note_verified(rows)
        return results

    def denoising(self, known: Captured, call: Call) -> tuple[Denoising | None, Key | None]:
        """The denoising that a call goes on with, None where it is the first of one, and its times."""
        last, program = self.here.__dict__.setdefault("denoisings", []), known.program
        announced = self.here.__dict__.get("announced")
        for own in last:
            if own.program is program and own.announced is announced:
                seen = own.look(call)
                if seen.key is not None and own.goes_on_with(call, seen.key, all(seen.same), known.schedule):
                    last.remove(own)
                    last.insert(0, own)
                    return own, seen.key
        given = program.given(call)
        return None, look([given[node] for node in program.times]).key

    def begin(self, known: Captured, call: Call, key: Key) -> Denoising:
        """A denoising that starts with this call."""
        last = self.here.denoisings
        for own in reversed(last):
            self.learn(known, own)
        # Where every call comes with another condition, what is computed for later timesteps is lost.
        is_restless = len(last) == TURNS and all(len(own.seen) == 1 for own in last)
        announced = self.here.__dict__.get("announced")
        schedule = None if is_restless else self.expected(known, call, key, announced)
        found = Denoising(known.program, call, self.reuse, schedule, announced)
        known.begin(found)
        # Of those calls that told which argument is what.
        first, times = self.here.__dict__.pop("earlier", (call, []))
        found.seen += times if first is call else []
        del last[TURNS - 1 :]
        last.insert(0, found)
        self.record.denoisings.append(found.record)
        return found

    def expected(self, known: Captured, call: Call, key: Key, announced: Announced | None) -> Schedule | None:
        """The times of a denoising that starts with this call: those announced, or those of the one before."""
        learned, program = known.schedule, known.program
        if announced is None or len(key) != 1:
            return learned
        own = known.announced.get(announced.times)
        if own is None:
            (time,) = (program.given(call)[node] for node in program.times)
            own = Schedule(tuple(Time.alike(time, number) for number in announced.times), announced.times)
            known.announced.put(announced.times, own)
        # Where guidance holds at some timesteps only, each of two methods is called at some of those announced.
        is_part = learned is not None and learned.announced == announced.times and learned in self.trusted
        return learned if is_part or key not in own.numbers else own

    def forget(self) -> None:
        """Drop what was captured of a denoiser that has other modules, hooks or attributes by now."""
        with LOCK:
            self.known.clear()
            self.refused.clear()
            self.stored = []
            self.here = threading.local()

    def learn(self, known: Captured, ended: Denoising) -> None:
        """Expect the times of a denoising in the next one."""
        schedule = known.schedule
        is_news = len(ended.seen) > max(ended.learned, SHORTEST - 1)
        if ended.program is not known.program or not is_news:
            return
        ended.learned = len(ended.seen)
        if schedule is None or not schedule.holds([own.key for own in ended.seen]):
            announced = None if ended.announced is None else ended.announced.times
            known.schedule = Schedule(tuple(ended.seen), announced)
        elif len(ended.seen) == len(schedule.calls):
            self.trusted.add(schedule)

    def tell_of_departure(self, denoising: Denoising, key: Key) -> None:
        """Say once that a timestep came that was not expected, by somebody who knew."""
        if denoising.schedule in self.trusted or denoising.announced is not None:
            known = "its loop announced" if denoising.announced else "in the denoising before"
            self.tell(
                f"{self.path} was called at another timestep ({key[0]:g}) than {known}, so values of time and "
                "condition are computed for each call of this one; the next expects its timesteps",
                topic="departed",
            )

    def tell(self, message: str, topic: str = "") -> None:
        warn_once(self.warned, message, topic)
