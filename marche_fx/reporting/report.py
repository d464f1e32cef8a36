"""`explain` and `report`: what was found in a model's steps, and what a session computed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from torch import nn

from ..api.optimization import optimization_of, view_of
from ..api.options import default_steps, has_known_denoisers, method_names, not_a_module, token_wise_paths
from ..api.recipes import recipe_notes
from ..checks import check_flag, is_number, path_of, shown
from ..errors import ArgumentError
from ..passes.analysis.row_outputs import can_wait, find_row_outputs
from ..passes.pipeline import make_plan, rewrite
from ..refresh.builtin import OBSERVED
from ..renamed import renamed_argument
from ..runtime.open_sessions import current_session
from ..runtime.program import input_names, value_name
from ..saving.files import write_text
from ..speed.prediction import Prediction, rates_for
from .cuda_graphs import CudaGraphsReport, cuda_graphs_report
from .dot import graphviz
from .dropped import dropped_notes
from .graphs import graph_table
from .head_report import HeadReport, head_report
from .heads import explain_heads
from .model_explorer import graphs_json, node_data
from .operators import StepGraph, graph_dict
from .page.render import framed, page
from .session_report import SessionReport, session_report
from .step_report import StepReport, step_report
from .tables import as_text


@dataclass(frozen=True)
class Report:
    """Printable; `save` writes it to a file.

    Attributes:
        model: class name. steps: one for each capture. session: the last one that ended.
        notes: how to read it when it is empty. heads: one for each captured denoiser. graphs: one for each of steps.
        warnings: what its user was warned of, in full. cuda_graphs: what became of steps that were to run as such.
    """

    model: str
    steps: tuple[StepReport, ...]
    session: SessionReport | None = None
    notes: tuple[str, ...] = ()
    graphs: tuple[StepGraph, ...] = field(default=(), repr=False)
    heads: tuple[HeadReport, ...] = ()
    warnings: tuple[str, ...] = ()
    cuda_graphs: CudaGraphsReport | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.model, "bold underline")
        if self.session is not None:
            yield Text(self.session.verdict, "bold")
        yield from self.steps
        if self.session is not None:
            yield self.session
        if self.cuda_graphs is not None:
            yield self.cuda_graphs
        yield from self.heads
        for note in self.notes:
            yield Text(note)

    def __str__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        """The page, in a frame of a notebook."""
        return framed(self.html())

    def html(self) -> str:
        """The report as a page: one file that loads nothing from anywhere."""
        notes = self.notes if self.cuda_graphs is None else (*self.notes, *self.cuda_graphs.summary())
        return page(self.model, self.steps, self.graphs, self.session, self.heads, notes, self.warnings)

    def text(self) -> str:
        """What is printed, with all steps of the session and every operator, nothing of it cut."""
        parts = [as_text(self)]
        if self.session is not None:
            parts.append(self.session.text(steps=None))
        parts += [as_text(graph_table(own), width=None) for own in self.graphs]
        return "\n".join([*parts, *self.warnings])

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for `json`; keys are sorted."""
        return {
            "cuda_graphs": None if self.cuda_graphs is None else self.cuda_graphs.to_dict(),
            "heads": [head.to_dict() for head in self.heads],
            "model": self.model,
            "notes": list(self.notes),
            "session": None if self.session is None else self.session.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "warnings": list(self.warnings),
        }

    def save(self, path: str | Path) -> None:
        """Write the report to a file.

        ``.html`` is a page that opens anywhere; ``.txt`` is `text`; ``.json`` holds `to_dict` and the graphs, operator
        by operator; ``.dot`` the graphs for Graphviz, coloured by part: ``dot -Tsvg step.dot > step.svg``.

        Raises:
            ArgumentError: the name has another ending, or there is no such folder.
        """
        path = path_of("path of a report", path)
        check_target(path)
        if path.suffix == ".json":
            text = written({**self.to_dict(), "graphs": [graph_dict(own) for own in self.graphs]})
        elif path.suffix == ".dot":
            text = "\n".join(graphviz(own.name, own.split) for own in self.graphs)
        elif path.suffix == ".html":
            text = self.html()
        else:
            text = self.text()
        write_text(path, text)

    def save_model_explorer(self, folder: str | Path) -> None:
        """Write the graphs for Model Explorer, ``pip install ai-edge-model-explorer``, into a folder.

        ``graphs.json`` has two graphs for each captured step, as captured and rewritten; beside it stand numbers to
        colour the first by: ``flops.json``, ``active_flops.json``, and of a session ``rows.json``, ``age.json`` of what
        is cached, and ``drift.json`` where a `Monitor` looked::

            model-explorer graphs.json --node_data_paths=flops.json,rows.json

        Raises:
            ArgumentError: there is no such folder.
        """
        folder = path_of("folder", folder)
        if not folder.is_dir():
            raise ArgumentError(f"there is no folder {folder} to write the graphs to")
        choices = () if self.session is None else self.session.choices
        for name, values in {"graphs": graphs_json(self.model, self.graphs), **node_data(self.graphs, choices)}.items():
            write_text(folder / f"{name}.json", written(values))


def check_target(path: Path) -> None:
    """Whether a report can be saved there, before what it tells of has run."""
    if path.suffix not in (".html", ".txt", ".json", ".dot"):
        raise ArgumentError(f"a report is saved as .html, .txt, .json or .dot, got {path.name!r}")
    if not path.resolve().parent.is_dir():
        raise ArgumentError(f"there is no folder {path.resolve().parent} to write the report to")


def written(values: Any) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


@renamed_argument("fraction", "active")
def report(optimized: nn.Module, *, active: float = 0.1) -> Report:
    """What `transform` made of a model, so far: steps are captured at their first call.

    Args:
        active: the share of tokens to take as active where rows and FLOPs of a partial step are told.

    Raises:
        ArgumentError: the model was not made by `transform`, or ``active`` is not between 0 and 1.
    """
    check_active(active)
    optimization = optimization_of(optimized)
    # Also of children that the loop was found to call.
    parts = [optimization, *optimization.parts.values()]
    programs = [program for part in parts for step in part.steps.values() for program in step.programs]
    current = current_session(optimization)
    is_open = current is not None and bool(current.log.calls)
    session = current if is_open else optimization.last_session
    notes = [] if programs else ["No step has been called yet; it is captured at its first call."]
    summaries = {step.name: step.captures.lengths.summary for part in parts for step in part.steps.values()}
    notes += [f"{name}: {told}" for name, told in summaries.items() if told]
    outside = {step.name: step.calls_outside for part in parts for step in part.steps.values() if step.calls_outside}
    for name, count in outside.items():
        notes.append(
            f"{count} calls of {name} were made outside of a session, and computed every token. Decode inside "
            "`with marche_fx.decoding(model):`"
        )
    notes += dropped_notes(parts)
    notes += recipe_notes(optimization)
    store = optimization.settings.graphs
    packs = optimization.settings.pack_weights
    steps = tuple(
        step_report(
            *(own.plan, own.split, active, own.passes),
            rounding=own.rounding,
            packed_bytes=own.packed_bytes if packs else 0,
        )
        for own in programs
    )
    return Report(
        type(optimized).__name__,
        steps,
        session_report(session, is_open=is_open) if session is not None and session.log.calls else None,
        tuple(notes),
        tuple(StepGraph(step.name, own.plan, own.split, step.active) for own, step in zip(programs, steps)),
        tuple(head_report(step) for step in optimization.heads.values()),
        (
            *(told for part in parts for step in part.steps.values() for told in step.method.told),
            *(() if store is None else store.told),
        ),
        cuda_graphs_report(store, programs),
    )


@renamed_argument("fraction", "active")
def explain(
    model: nn.Module,
    *args: Any,
    step: str | None = None,
    active: float = 0.1,
    speed: bool = False,
    inner: str | Sequence[str] | None = None,
    sample: Callable[[Any], Any] | None = None,
    token_wise: str | Sequence[str] = (),
    **kwargs: Any,
) -> Report:
    """What `transform` would make of ``model.step(*args, **kwargs)``; changes nothing of it.

    The step is called once, on copies of the model's modules that share its weights, and then traced. Without arguments
    of a step it tells of the denoisers of the model's head: which argument is noisy, the time and the condition, what
    is slow, residual branches and guidance halves. They are those of ``inner``, or those known for MAR.

    Args:
        step: the method's name. When omitted, the step method that `transform` takes; of several the one that accepts
            these arguments.
        active: the share of tokens to take as active where rows and FLOPs of a partial step are told.
        speed: predict how much faster a compiled step is, from the rates of products and attention on this machine,
            which are measured for a few seconds the first time. What the loop does between steps is not counted.
        inner: denoisers, as of `transform`.
        sample: called with a copy of the model, has it denoise a few tokens; needed where the denoisers are not those
            known for MAR.
        token_wise: children that are called as they are, as of `transform`.

    Raises:
        ArgumentError: ``active`` is not between 0 and 1, the model has no such method or child, or it has several step
            methods of which not one alone accepts these arguments; ``sample`` is missing, or never calls a denoiser.
        CaptureError, UnsupportedModelError: as a transformed model would at its first call.
    """
    check_active(active)
    check_flag("speed", speed)
    if not isinstance(model, nn.Module):
        raise ArgumentError(not_a_module(model, "explain"))
    is_of_head = not (args or kwargs or step) and has_known_denoisers(model)
    if is_of_head or inner is not None or sample is not None:
        return Report(type(model).__name__, (), heads=explain_heads(model, inner, sample))
    name = step_for(model, step, args, kwargs)
    plan = make_plan(view_of(model, token_wise_paths(model, token_wise)), name, args, kwargs)
    # What other step methods return is read by a step method, as a whole, and nothing is observed there.
    is_last = name not in default_steps(model)[:-1]
    skip_unread = is_last and can_wait(plan, find_row_outputs(plan))
    rewritten = rewrite(plan, skip_unread=skip_unread, headed=True, compile=False)
    names = input_names(model, plan)
    moves_all = tuple(value_name(plan, own.node, names) for own in rewritten.watched if own.token_dim is None)
    found = step_report(plan, rewritten.split, active, (*plan.passes, *rewritten.passes), moves_all)
    if speed:
        observed = OBSERVED if is_last else 0
        prediction = Prediction(plan, rates_for(plan), read_only=rewritten.split.read_only, observed=observed)
        found = found.with_speedups(prediction)
    return Report(type(model).__name__, (found,), graphs=(StepGraph(name, plan, rewritten.split, found.active),))


def step_for(model: nn.Module, step: str | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The step method that these arguments are of."""
    names = method_names(model, step, default=default_steps(model), argument="step")
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if accepts(getattr(model, name), args, kwargs)]
    if len(fitting) != 1:
        signatures = "; ".join(f"{name}{inspect.signature(getattr(model, name))}" for name in names)
        raise ArgumentError(
            f"explain tells of one step method, and {type(model).__name__} has {len(names)}, of which "
            f"{'several accept' if fitting else 'none accepts'} these arguments: {signatures}. Name one, as in "
            f"explain(model, ..., step={names[0]!r})"
        )
    return fitting[0]


def accepts(method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments has the right number and names of them."""
    try:
        inspect.signature(method).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def check_active(active: float) -> None:
    if not is_number(active) or not 0 <= active <= 1:
        raise ArgumentError(f"active must be a number from 0 to 1, the share of active tokens, got {shown(active)}")
