"""Programs around generated models: branches of guidance, sessions in turn, writes and views before reads.

Each branch of a loop has an interpreter of its own, so what one branch computes must not reach another.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

import marche_fx
from marche_fx import DriftRefresh, RandomRefresh, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from tests.generated.arguments import Arguments, Batch, make_batch, passed
from tests.generated.check import TOLERANCE, GeneratedModelError, compare, leaves, relative_error
from tests.generated.model import build
from tests.generated.recipe import Described, Recipe
from tests.oracle import Oracle
from tests.program import oracle_of
from tests.sessions import positions

CONDITIONS = ("time", "context")
"""Arguments that differ from branch to branch."""


@dataclass(frozen=True, repr=False)
class Loop(Described):
    """How a model is decoded.

    Attributes:
        steps: decoding steps. branches: calls in each. starts: step in which branches but the first begin. pauses: step
            that they leave out. named: whether the user says which branch a call is of.
        policy: of refresh. sessions: two generations in turn. form: how a session is opened.
        writes: whether results are written before rows are read. views: whether rows are read through views.
        kept: whether results of an earlier call are read after the next. operators: whether operators of the loop stand
            between a result and what is read of it. asks: whether the user says beforehand of some tokens that they
            will be read.
        full: whether every step is in full. passes: whether time passes from step to step, in some without new tokens.
        inference: whether all of it runs in inference mode, whose tensors PyTorch counts no writes of.
        goes_on: whether it goes on with what the step left in its arguments.
    """

    steps: int = 5
    branches: int = 1
    starts: int = 0
    pauses: int = 99
    named: bool = False
    policy: str = "random"
    sessions: int = 1
    form: str = "with"
    writes: bool = False
    views: bool = False
    kept: bool = False
    operators: bool = False
    asks: bool = False
    seed: int = 0
    full: bool = False
    passes: bool = False
    inference: bool = False
    goes_on: bool = False


POLICIES: dict[str, Callable[[], marche_fx.RefreshPolicy]] = {
    "random": lambda: RandomRefresh(0.3, warmup=1),
    "selective": lambda: SelectiveRefresh(0.3, warmup=1),
    "drift": lambda: DriftRefresh(0.3, warmup=1),
    "bounded": lambda: RandomRefresh(0.2, warmup=1, queried=0.2),
}


def choose_loop(choose: Callable[..., Any]) -> Loop:
    branches = choose(1, 1, 2, 2, 3)
    return Loop(
        steps=choose(3, 4, 5),
        branches=branches,
        starts=choose(0, 0, 1, 2),
        pauses=choose(99, 99, 2),
        named=choose(False, True),
        policy=choose(*POLICIES),
        sessions=choose(1, 1, 2),
        form=choose("with", "generator", "entered again"),
        writes=choose(False, True),
        views=choose(False, True),
        kept=choose(False, False, True),
        seed=choose(*range(100)),
        operators=choose(False, True),
        asks=choose(False, True),
        full=choose(False, False, False, True),
        passes=choose(False, True),
        inference=choose(False, False, True),
        goes_on=choose(False, True),
    )


def numbered_loop(seed: int, number: int) -> Loop:
    """One of the loops of ``seed``, the same at every call."""
    generator = random.Random(f"loop {seed} {number}")
    return choose_loop(lambda *options: generator.choice(options))


WRITES: tuple[Callable[[Tensor, Tensor], Any], ...] = (
    lambda z, mask: z.__setitem__((..., 0), -3.0),
    lambda z, mask: z.__setitem__(mask, 2.0),
    lambda z, mask: z.mul_(0.5),
    lambda z, mask: z[0].add_(1.0),
    lambda z, mask: z[:, -1].fill_(4.0),
    lambda z, mask: z.transpose(0, 1)[0].clamp_(-0.1, 0.1),
    lambda z, mask: z.masked_fill_(mask.unflatten(1, (-1, *[1] * (z.ndim - 2))), 0.25),
    lambda z, mask: z.__setitem__(z < z.mean(-1, keepdim=True), -1.0),
    lambda z, mask: z.__setitem__((..., -1), z[..., -1] + 0.5),
    lambda z, mask: z[..., 0].__iadd__(z.amax(-1)),
)

OPERATORS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda z: z / 0.7,
    lambda z: z.softmax(-1),
    lambda z: z - z.logsumexp(-1, keepdim=True),
    lambda z: z.float().double(),
    lambda z: torch.cat([z[:, :1], z[:, :-1]], 1),
    lambda z: torch.cat([z, -z])[: len(z)],
    lambda z: z.flip(1),
    lambda z: z.roll((1, 2), (0, 1)),
    lambda z: z.repeat(2, 2, *[1] * (z.ndim - 2))[1 : 1 + len(z), 1 : 1 + z.shape[1]],
    lambda z: nn.functional.pad(z, (*[0, 0] * (z.ndim - 2), -1, 1), value=0.5),
    lambda z: z[:1].expand(z.shape) + 1,
    lambda z: z.gather(1, (torch.arange(z.shape[1]) // 2).view(1, -1, *[1] * (z.ndim - 2)).expand(z.shape)),
    lambda z: z.gather(-1, z.argmax(-1, keepdim=True)).expand(z.shape),
    lambda z: z.where(z > 0, torch.zeros((), dtype=z.dtype)),
    lambda z: z.clone().mul_(torch.linspace(0, 1, z.shape[1], dtype=z.dtype).view(-1, *[1] * (z.ndim - 2))),
)

VIEWS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda z: z[..., :1],
    lambda z: z[:, 1:],
    lambda z: z.transpose(0, 1),
    lambda z: z.flatten(0, 1),
    lambda z: z[0],
    lambda z: z.chunk(2)[0],
    lambda z: z[None][0].unsqueeze(2).squeeze(2),
)


def through(operators: Sequence[Callable[[Tensor], Tensor]], value: Tensor) -> Tensor:
    for operator in operators:
        value = operator(value)
    return value


@dataclass
class Branch:
    """One condition of a generation: what differs, and the interpreter of each stream that its calls were.

    Tokens that happen to turn back look like calls that take turns, and begin another stream.
    """

    number: int
    conditions: dict[str, Tensor]
    oracles: dict[int, Oracle] = field(default_factory=dict)


@dataclass
class Call:
    """A call of the step whose results are read now or later.

    Attributes:
        result: the late result with rows. expected: what the interpreter says of it, with all that was written.
    """

    branch: Branch
    inputs: list[Tensor]
    result: Tensor
    expected: Tensor | None = None
    writes: list[tuple[Callable[[Tensor, Tensor], Any], Tensor]] = field(default_factory=list)

    @property
    def known(self) -> Tensor:
        """What is known of the result: where all that is read was written before, no step runs."""
        if self.expected is not None:
            return self.expected
        known = torch.full_like(resolved(torch.empty_like(self.result)), torch.nan)
        for write, mask in self.writes:
            write(known, mask)
        return known


class Generation:
    """One session of a loop."""

    def __init__(self, recipe: Recipe, loop: Loop, model: nn.Module, optimized: nn.Module, number: int) -> None:
        self.recipe = recipe
        self.loop = loop
        self.model = model
        self.optimized = optimized
        self.opened = (marche_fx.session if loop.form == "entered again" else marche_fx.decoding)(optimized)
        self.generator = Generator().manual_seed(1000 * loop.seed + number)
        self.batch = make_batch(recipe, self.generator)
        (program,) = optimization_of(optimized).steps["forward"].programs
        # Branches that differ in tokens alone are told when they have taken turns.
        are_told = loop.named or bool(program.plan.axes.dims.get(program.plan.inputs[0]))
        self.passes = loop.passes and self.batch.time is not None
        names = [name for name in CONDITIONS if getattr(self.batch, name) is not None]
        self.is_time_known = False
        if self.passes:
            names.remove("time")
        self.branches = [
            Branch(own, {name: getattr(make_batch(recipe, self.generator), name) for name in names})
            for own in range(loop.branches if names and are_told else 1)
        ]
        self.known = 0
        self.waiting: Call | None = None
        rows = [own for own, found in enumerate(program.row_outputs) if found is not None and found.dims == (0, 1)]
        self.row_result = rows[0] if rows and program.is_late else None

    def steps(self) -> Iterator[None]:
        """Make one decoding step after another."""
        if self.loop.form == "entered again":
            for step in range(self.loop.steps):
                with self.opened:
                    self.step(step)
                yield
            self.opened.close()
        elif self.loop.form == "generator":
            with self.opened:
                for step in range(self.loop.steps):
                    self.step(step)
                    yield
        else:
            self.opened.__enter__()
            for step in range(self.loop.steps):
                self.step(step)
                yield
            self.opened.__exit__(None, None, None)

    def chance(self, share: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < share

    def one_of(self, values: Sequence[Any]) -> Any:
        return values[int(torch.randint(len(values), (), generator=self.generator))]

    def step(self, number: int) -> None:
        fresh = make_batch(self.recipe, self.generator).tokens
        is_new = torch.rand(fresh.shape[:2], generator=self.generator) < 0.4
        if self.passes:
            assert self.batch.time is not None
            self.batch.time = 0.9 * self.batch.time
            # In the first steps tokens move with it, by which it is told from a condition.
            if number < 2 or self.chance(0.5):
                is_new[:] = number < 2
        before = self.batch.tokens
        self.batch.tokens = torch.where(is_new.view(*is_new.shape, *[1] * (fresh.ndim - 2)), fresh, before)
        for branch in self.branches:
            if not branch.number or not (number < self.loop.starts or number == self.loop.pauses):
                self.call(branch)
        self.is_time_known |= self.passes and number > 0 and not torch.equal(self.batch.tokens, before)

    def call(self, branch: Branch) -> None:
        earlier, self.waiting = self.waiting, None
        if earlier is not None and earlier.branch is branch:
            # A call of which nobody holds the result does nothing.
            earlier = None
        args, kwargs = self.arguments(branch)
        theirs = deepcopy((args, kwargs))
        inputs = [leaf.clone() for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        with marche_fx.stream(f"branch {branch.number}") if self.loop.named else nullcontext():
            results = leaves(self.optimized(*args, **kwargs))
        if self.recipe.writes != "none":
            self.model(*theirs[0], **theirs[1])
            compare(leaves((args, kwargs)), leaves(theirs), f"left in the arguments in {self.loop!r}", self.recipe)
        if earlier is not None:
            self.read(earlier)
        if self.row_result is None:
            values = [own.clone() if isinstance(own, Tensor) else own for own in resolved(results)]
            self.compare_whole(values, self.interpreted(branch, inputs))
            return
        call = Call(branch, inputs, results[self.row_result])
        if self.loop.kept and self.chance(0.5):
            self.waiting = call
        else:
            self.read(call)

    def arguments(self, branch: Branch) -> Arguments:
        """Of a call, into which the step may write."""
        batch = Batch(**{**vars(self.batch), **branch.conditions})
        # Tokens that a step moved between the first calls of two branches look like those of the next step.
        if not self.loop.goes_on or (len(self.branches) > 1 and not self.loop.named):
            batch.tokens = batch.tokens.clone()
        return passed(self.recipe, batch)

    def compare_whole(self, values: Sequence[Any], expected: Sequence[Any]) -> None:
        pairs = [(own, other) for own, other in zip(values, expected, strict=True) if isinstance(own, Tensor)]
        compare([own for own, _ in pairs], [other for _, other in pairs], f"in {self.loop!r}", self.recipe)

    def interpreted(self, branch: Branch, inputs: list[Tensor]) -> list[Any]:
        """What the branch's interpreter says of the last that was computed."""
        assert self.opened.session is not None
        records, expected = self.opened.session.records, []
        for record in records[self.known :]:
            if any(own is not branch and record.stream in own.oracles for own in self.branches):
                raise GeneratedModelError(f"branches share a stream in {self.loop!r}", self.recipe)
            if record.stream not in branch.oracles:
                if self.is_time_known and branch.oracles:
                    raise GeneratedModelError(f"time opens a stream in {self.loop!r}", self.recipe)
                branch.oracles[record.stream] = oracle_of(record.program.plan, self.model)
            # Where the policy has no room for what is read, it may be older than its token's keys and values.
            read = record.computed if self.loop.policy == "bounded" and not self.loop.full else None
            expected = branch.oracles[record.stream].step(inputs, positions(record), read)
        self.known = len(records)
        return expected

    def read(self, call: Call) -> None:
        """Write, look and read in some order, and compare every row that is read."""
        for _ in range(3):
            mask = torch.rand(call.result.shape[:2], generator=self.generator) < 0.4
            mask[0, 0] = True
            if self.loop.writes and call.result.is_floating_point() and self.chance(0.5):
                write = self.one_of(WRITES)
                write(call.result, mask)
                # A slice of few rows is read before it is written.
                self.update(call)
                call.writes.append((write, mask))
                if call.expected is not None:
                    write(call.expected, mask)
                continue
            view = self.one_of(VIEWS) if self.loop.views and self.chance(0.5) else lambda z: z
            operators = [self.one_of(OPERATORS) for _ in range(3)] if self.loop.operators else []
            if not call.result.is_floating_point():
                operators = []
            index = view(mask.view(*mask.shape, *[1] * (call.result.ndim - 2)).expand(call.result.shape))
            found = view(through(operators, call.result))[index]
            self.update(call)
            expected = view(through(operators, call.known))[index]
            error = relative_error(found, expected) if found.numel() else 0.0
            if error > TOLERANCE:
                raise GeneratedModelError(f"rows that are read are off by {error:.0e} in {self.loop!r}", self.recipe)

    def update(self, call: Call) -> None:
        """Let the interpreter compute what was computed since, and repeat what was written before."""
        results = self.interpreted(call.branch, call.inputs)
        if results:
            assert self.row_result is not None
            call.expected = results[self.row_result].clone()
            for write, mask in call.writes:
                write(call.expected, mask)


@torch.no_grad()
def check_loop(recipe: Recipe, loop: Loop) -> None:
    """Decode with the model of a recipe as a loop says.

    Raises:
        GeneratedModelError: rows that are read are not what the branch's own interpreter says.
    """
    with torch.inference_mode() if loop.inference else nullcontext():
        decode(recipe, loop)


def decode(recipe: Recipe, loop: Loop) -> None:
    recipe = replace(recipe.captured, picked=recipe.picked)
    model = build(recipe)
    asked = Generator().manual_seed(loop.seed)

    def query(*_: Any, **__: Any) -> Tensor:
        (program,) = optimization_of(optimized).steps["forward"].programs
        return torch.rand(program.shape, generator=asked) < 0.1

    optimized = marche_fx.transform(
        model,
        refresh="exact" if loop.full else POLICIES[loop.policy](),
        query=query if loop.asks else None,
        compile=False,
        token_wise=recipe.token_wise,
    )
    args, kwargs = passed(recipe, make_batch(recipe, Generator().manual_seed(loop.seed)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Outside of a session, which captures the step; it must be exact.
        theirs = deepcopy((args, kwargs))
        found, expected = leaves(optimized(*args, **kwargs)), leaves(model(*theirs[0], **theirs[1]))
        compare(resolved(found), expected, "out of a session", recipe)
        loops = [Generation(recipe, loop, model, optimized, number).steps() for number in range(loop.sessions)]
        for _ in range(loop.steps + 1):
            for own in loops:
                next(own, None)
