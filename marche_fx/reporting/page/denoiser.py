"""A captured denoiser on the page: what it depends on, what of it is slow or a branch, what of it ran when."""

from __future__ import annotations

from collections.abc import Iterable

from ...passes.trail import counted
from ..head_report import PARTS, HeadReport
from ..tables import short
from .html import Html, table, tag


def head_html(head: HeadReport) -> Html:
    parts = ([PARTS[own.name], str(own.operators), short(own.flops), f"{own.share:.1%}"] for own in head.parts)
    slow = ([own.operator, ", ".join(own.causes), short(own.flops)] for own in head.slow_values)
    branches = ([own.operator, own.held, short(own.flops)] for own in head.branches)
    return tag(
        "section",
        tag("h2", f"Denoiser: {head.path}"),
        tag("p", head.reuse),
        [tag("p", f"Runs as it is: {own}", class_="warning") for own in head.refused],
        [tag("p", own) for own in told(head)],
        table(
            f"parts of {head.path}",
            ("depends on", "operators", "FLOPs of a row", "of all"),
            parts,
            numbers=(1, 2, 3),
        )
        if head.parts
        else "",
        table(
            f"slow values of {head.path}, the same for every noisy value",
            ("value", "depends on", "FLOPs of a row"),
            slow,
            numbers=(2,),
        )
        if head.slow_values
        else "",
        table(
            f"residual branches of {head.path}",
            ("branch", "held between calls", "FLOPs of a row"),
            branches,
            numbers=(2,),
        )
        if head.branches
        else "",
        class_="head",
    )


def told(head: HeadReport) -> Iterable[str]:
    if not head.roles and not head.refused:
        yield "Not captured yet: the first calls tell which argument is what."
    if head.roles:
        yield "; ".join(f"{name}: {role}" for name, role in head.roles.items())
    if head.halves:
        yield head.halves
    if head.calls:
        yield (
            f"{head.calls} calls in {counted(head.denoisings, 'denoising')}, {head.flops_ratio:.2f} of the original's "
            f"FLOPs; {head.as_is} calls ran as they are. Last denoising: {head.last}, slow values computed at "
            f"{head.slow} timesteps."
        )
