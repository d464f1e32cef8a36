"""The method that takes the place of a denoiser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import CaptureError, UnsupportedModelError
from ..lazy.modes import untraced
from ..passes.capture.alone import LOCK
from ..passes.capture.any_rows import AnyRows, capture_any_rows
from ..runtime.terminal import saying
from ..runtime.users_code import warn_once
from ..runtime.verify import check_equal
from .calls import Call, Key, look
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
            long as nothing is captured. path: the method's, in the transformed model.
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
    ) -> None:
        self.net = net
        self.method = method
        self.original = original
        self.path = path
        self.reuse = reuse
        self.compile = compile
        self.verify = verify
        self.programs: dict[Any, HeadProgram] = {}
        self.schedules: dict[Any, Schedule] = {}
        self.announced: dict[tuple[Any, tuple[float, ...]], Schedule] = {}
        """Those that loops announced, by kind of calls."""
        self.stored: list[StoredHead] = []
        """Captures of another process."""
        self.refused: dict[Any, str] = {}
        """Why calls of a kind run as they are."""
        self.trusted: set[Schedule] = set()
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
            program = self.program(call)
            if program is None:
                return self.as_is(args, kwargs)
            return self.run(program, call, args, kwargs)

    def expect(self, timesteps: Sequence[float]) -> None:
        """Take the calls that follow, in this thread, for denoisings that begin, at these timesteps in their order."""
        self.here.announced = Announced(tuple(map(float, timesteps)))

    def as_is(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.record.as_is += 1
        return self.original(*args, **kwargs)

    def program(self, call: Call) -> HeadProgram | None:
        """What computes calls of this kind; None where the original does, for now or for good."""
        found = self.programs.get(call.kind)
        if found is not None:
            return found
        if call.kind in self.refused:
            return None
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
            found = self.programs.get(call.kind) or self.captured(call, roles)
        del finders[call.kind]
        self.here.earlier = call, finder.times(roles)
        return found

    def restored(self, call: Call) -> HeadProgram | None:
        """What another process captured of calls of this kind, where that holds here; it is used now or never."""
        stored = next((own for own in self.stored if own.kind == call.kind), None)
        if stored is None:
            return None
        with LOCK:
            if stored not in self.stored:
                return self.programs.get(call.kind)
            self.stored.remove(stored)
            rows, reason = stored.restored(self.net, call)
            if rows is None:
                self.tell(f"a saved capture of {self.path} is not used: {reason}; it is captured anew")
                return None
            return self.made(call, stored.roles, lambda: rows)

    def captured(self, call: Call, roles: Roles) -> HeadProgram | None:
        rows = rows_of(call.leaves, roles)
        return self.made(
            call, roles, lambda: capture_any_rows(self.net, self.method, call.args, call.kwargs, rows=rows)
        )

    def made(self, call: Call, roles: Roles, capturing: Callable[[], AnyRows]) -> HeadProgram | None:
        """The program of a capture; None, after a warning, where there can be none."""
        try:
            with saying(f"capturing {self.path}"):
                found = HeadProgram(self.net, capturing, roles, branches=self.reuse.branches, compile=self.compile)
        except (CaptureError, UnsupportedModelError) as error:
            self.refused[call.kind] = str(error)
            self.tell(f"{self.path} runs as it is: {error}")
            return None
        self.programs[call.kind] = found
        if self.reuse.guidance > 1 and found.multiple > 1 and not found.has_halves:
            self.tell(
                f"{self.path} takes its rows for two halves and computes both at every call, for all that "
                f"guidance={self.reuse.guidance} asks: {found.halves}. The network must run on cat([half, half]) of "
                "one noisy value, each row by itself"
            )
        return found

    def run(self, program: HeadProgram, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rows = len(program.given(call)[program.noisy])
        denoising, key = self.denoising(program, call)
        if key is None or rows % program.multiple or not program.fits(call):
            what = "times that differ between rows" if key is None else "other numbers of rows than it was captured for"
            self.tell(f"{self.path} was called with {what}, and ran as it is", topic=what)
            return self.as_is(args, kwargs)
        if denoising is None:
            if not program.holds_for(self.net):
                self.forget()
                return self.as_is(args, kwargs)
            denoising = self.begin(program, call, key)
        has_departed = denoising.has_departed
        results = denoising.run(call, key)
        if denoising.has_departed and not has_departed:
            self.tell_of_departure(denoising, key)
        if self.verify and denoising.is_exact and not program.is_verified_for(rows):
            dtypes = [call.kind[-1].dtype] if call.kind[-1].enabled else []
            check_equal(self.path, results, self.original(*args, **kwargs), rounded_to=dtypes)
            program.note_verified(rows)
        return results

    def denoising(self, program: HeadProgram, call: Call) -> tuple[Denoising | None, Key | None]:
        """The denoising that a call goes on with, None where it is the first of one, and its times."""
        known = self.here.__dict__.setdefault("denoisings", [])
        expected = self.schedules.get(call.kind)
        announced = self.here.__dict__.get("announced")
        for own in known:
            if own.program is program and own.announced is announced:
                seen = own.look(call)
                if seen.key is not None and own.goes_on_with(call, seen.key, all(seen.same), expected):
                    known.remove(own)
                    known.insert(0, own)
                    return own, seen.key
        given = program.given(call)
        return None, look([given[node] for node in program.times]).key

    def begin(self, program: HeadProgram, call: Call, key: Key) -> Denoising:
        """A denoising that starts with this call."""
        known = self.here.denoisings
        for own in reversed(known):
            self.learn(call.kind, own)
        # Where every call comes with another condition, what is computed for later timesteps is lost.
        is_restless = len(known) == TURNS and all(len(own.seen) == 1 for own in known)
        announced = self.here.__dict__.get("announced")
        schedule = None if is_restless else self.expected(program, call, key, announced)
        found = Denoising(program, call, self.reuse, schedule, announced)
        # Of those calls that told which argument is what.
        first, times = self.here.__dict__.pop("earlier", (call, []))
        found.seen += times if first is call else []
        del known[TURNS - 1 :]
        known.insert(0, found)
        self.record.denoisings.append(found.record)
        return found

    def expected(self, program: HeadProgram, call: Call, key: Key, announced: Announced | None) -> Schedule | None:
        """The times of a denoising that starts with this call: those announced, or those of the one before."""
        learned = self.schedules.get(call.kind)
        if announced is None or len(key) != 1:
            return learned
        if (call.kind, announced.times) not in self.announced:
            (time,) = (program.given(call)[node] for node in program.times)
            calls = tuple(Time.alike(time, number) for number in announced.times)
            self.announced[call.kind, announced.times] = Schedule(calls, announced.times)
        own = self.announced[call.kind, announced.times]
        # Where guidance holds at some timesteps only, each of two methods is called at some of those announced.
        is_part = learned is not None and learned.announced == announced.times and learned in self.trusted
        return learned if is_part or key not in own.numbers else own

    def forget(self) -> None:
        """Drop what was captured of a denoiser that has other modules, hooks or attributes by now."""
        with LOCK:
            self.programs, self.schedules, self.announced, self.refused, self.stored = {}, {}, {}, {}, []
            self.here = threading.local()

    def learn(self, kind: Any, ended: Denoising) -> None:
        """Expect the times of a denoising in the next one."""
        schedule = self.schedules.get(kind)
        is_news = len(ended.seen) > max(ended.learned, SHORTEST - 1)
        if ended.program is not self.programs.get(kind) or not is_news:
            return
        ended.learned = len(ended.seen)
        if schedule is None or not schedule.holds([own.key for own in ended.seen]):
            announced = None if ended.announced is None else ended.announced.times
            self.schedules[kind] = Schedule(tuple(ended.seen), announced)
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
