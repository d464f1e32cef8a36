"""What a session lost and why, from its own records, and the one line that mends it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from ..passes.capture.kinds import differences
from ..passes.graph.operands import shape_of
from ..passes.graph.reach import closure
from ..passes.graph.source import alike, describe, module_path
from ..passes.rules.flops import node_flops
from ..refresh import FullRefresh, begun_after, warmup_of
from .choose import BUCKET, are_few
from .findings import FEWEST, Findings, find
from .method import StepMethod
from .records import CallRecord

IN_A_ROW = 3
"""So many calls in a row in which one value changed every token, and the user is told at once."""

BOUNDING = (
    "Where it needs fewer, let it read those, as in logits[mask]; where the others may be a few steps old, bound them: "
    "refresh=SelectiveRefresh(0.05, queried=0.1)"
)
"""What to do of a loop that reads many rows in every step."""

WITHOUT_CHECKS = "torch.distributions.Distribution.set_default_validate_args(False)"

IN_FULL = 0.5
"""Operators that run on all tokens may take this share of a step's FLOPs before the user is told of them."""

TOPICS = ("a moving value", "nearly all", "warm-up", "runs again", "old rows")
"""What is told once each."""

OLD = 2.0
"""Rows that were read by name are told of from this age in steps on."""


def tell_of_a_moving_value(method: StepMethod, calls: Sequence[CallRecord]) -> None:
    """Say at once, after a few calls in a row in which every token ran, which value changed them all."""
    latest = calls[-1]
    recent = calls[-8 * (IN_A_ROW + 1) :]
    alike = [own for own in recent if own.method is latest.method and own.stream == latest.stream][-IN_A_ROW - 1 :]
    # Looked at once, when it has become so, since a look may wait for the device.
    before, alike = alike[:-IN_A_ROW], alike[-IN_A_ROW:]
    has_become = (
        len(alike) == IN_A_ROW and all(own.is_forced for own in alike) and not any(own.is_forced for own in before)
    )
    if not has_become or "a moving value" in method.warned or are_few(latest.visible):
        return
    found = find(alike)
    if found.values and found.values.most_common(1)[0][1] == IN_A_ROW:
        method.warn_once(moving_value(method, found, f"{IN_A_ROW} calls in a row"), topic="a moving value")


def moving_value(method: StepMethod, found: Findings, when: str) -> str:
    """Of a value that made every token run, ``when`` it did."""
    (name, argument), _ = found.values.most_common(1)[0]
    if not argument:
        return (
            f"every token of {method} was recomputed in {when}, because nearly every one was given another value "
            f"of {name} than in the call before. Where calls of several sequences take turns, tell them apart by "
            "`with marche_fx.stream(name):` around each; if one sequence changes so in every step, the step cannot be "
            "cached here"
        )
    allowed = method.settings.tolerance.get(argument)
    start = f"every token of {method} was recomputed in {when}, because every token reads {name}, which moved"
    further = "" if allowed is None else f" by more than the {allowed:g} of its size that it may"
    return (
        f"{start}{further}. {letting_it_move(method, argument)}; if it says which of several conditions a call is "
        "under, tell them apart by `with marche_fx.stream(name):` around each; otherwise the step cannot be cached here"
    )


def letting_it_move(method: StepMethod, argument: str) -> str:
    """What to write so that rows stay while an argument moves further than it may so far."""
    allowed = method.settings.tolerance.get(argument)
    if allowed is None:
        return f"If rows may stay as they are while it moves a little, say how far: {telling(argument, 0.3)}"
    return f"Let it move further: {telling(argument, 2 * allowed)}"


def telling(argument: str, allowed: float) -> str:
    return f"marche_fx.transform(model, tolerance={{{argument!r}: {allowed:g}}})"


def tell_at_the_end(methods: Sequence[StepMethod], calls: Sequence[CallRecord], *, is_usual: bool = True) -> None:
    """Warn once of a session that computed nearly everything, or read rows older than its loop may think.

    Args:
        is_usual: whether so few calls as are all in full are how this model is used; it may be somebody's first try.
    """
    for method in methods:
        own = [call for call in calls if call.method is method]
        found = find(own, warmup_of(method.policy))
        if found.runs_often:
            method.warn_once(runs_again(method, found), topic="runs again")
        elif found.has_parted:
            method.warn_once(parted(method, found), topic="nearly all")
        elif found.has_only_warmed_up:
            is_told = any("warm-up" in each.warned for each in methods)
            if is_usual and not is_told:
                method.warn_once(only_warmed_up(method, found), topic="warm-up")
        elif found.has_gained_nothing and not method.warned & {"a moving value", "length", "nearly all"}:
            method.warn_once(nearly_all(method, found), topic="nearly all")
        if found.begins_anew and method.policy != FullRefresh() and not method.warned & {*TOPICS, "length"}:
            method.warn_once(begun_anew(method, found, own), topic="nearly all")
        if found.oldest >= OLD:
            method.warn_once(
                f"rows of a result of {method} were read at {found.oldest_line} that had been computed "
                f"{found.oldest:.0f} steps before: a result was read after its step had been called again. Read what "
                "you need before the next call",
                topic="old rows",
            )


def tell_of_operators_in_full(methods: Sequence[StepMethod], calls: Sequence[CallRecord]) -> None:
    """Warn once of a step of which most is computed for all tokens, however few are active."""
    for method in methods:
        programs = [own.program for own in calls if own.method is method and own.active]
        if len(programs) < FEWEST or method.policy == FullRefresh() or "in full" in method.warned:
            continue
        program = max(programs, key=programs.count)
        flops = {node: node_flops(node) for node in program.plan.region.full}
        share = sum(flops.values()) / max(program.cost.original(), 1)
        if share >= IN_FULL:
            method.warn_once(in_full(method, max(flops, key=lambda node: flops[node]), share), topic="in full")


def in_full(method: StepMethod, dearest: fx.Node, share: float) -> str:
    return (
        f"{share:.0%} of the FLOPs of {method} are of operators that run on all tokens, whichever are active, so they "
        f"are at most {1 / share:.1f}x fewer; the dearest is {describe(dearest)}, and print(marche_fx.report(model)) "
        f"says of each why{picked_apart(dearest)}"
    )


def picked_apart(node: fx.Node) -> str:
    """What to do of rows that are picked by values; empty of others."""
    if not is_picked(node):
        return ""
    before = closure([node], lambda own: filter(is_picked, own.all_input_nodes))
    # The one that picks them; what it is computed of has rows of all tokens.
    picker = next(own for own in node.graph.nodes if own in before)
    path = module_path(picker)
    named = (
        f" If {path!r} treats each token by itself, have it called as it is: token_wise={alike(path)!r}" if path else ""
    )
    return f". Its rows are picked by values, as those of an expert, and no rule follows them.{named}"


def is_picked(node: fx.Node) -> bool:
    """Whether a value has as many rows as values say."""
    return any(isinstance(size, torch.SymInt) and size.node.hint is None for size in shape_of(node))


def runs_again(method: StepMethod, found: Findings) -> str:
    (first, later, by_query), _ = found.again.most_common(1)[0]
    start = f"{method} ran {found.runs} times in {found.calls} calls: "
    if by_query:
        return (
            f"{start}query= names some of the rows that are read, called at {first}, and the step runs again for those "
            f"that are read at {later}. Let it name these too"
        )
    return (
        f"{start}rows of its result are read at {first}, and the step runs again for others, read at {later}. Read all "
        "at once, as in logits[mask], or name all of them by query=, which transform takes"
    )


def only_warmed_up(method: StepMethod, found: Findings) -> str:
    """Of a session of which most calls were the policy's first; what would have forced these too is told before it."""
    policy, warmup = method.policy, warmup_of(method.policy)
    if are_few(found.tokens):
        return of_few_tokens(method, found)
    if 2 * max((*found.values.values(), *found.readers.values()), default=0) >= found.forced:
        return (
            f"{nearly_all(method, found)}. Besides, {policy} computes the first {warmup} calls of a generation in "
            "full: give the policy warmup=1, too"
        )
    sooner = begun_after(policy, 1)
    mend = f"pass refresh={sooner!r}" if sooner != policy else f"let {type(policy).__name__} begin sooner"
    return (
        f"{found.share:.0%} of the rows of {method} were computed in {found.calls} calls, so hardly anything is "
        f"gained: {policy} computes the first {warmup} calls of a generation in full, and these were most. To reuse "
        f"rows from the second on, {mend}"
    )


def parted(method: StepMethod, found: Findings) -> str:
    """Of a session whose calls under few conditions were taken for those of many."""
    return (
        f"{found.share:.0%} of the rows of {method} were computed in {found.calls} calls, so hardly anything is "
        f"gained: {found.parted} of them were taken for the first ones under further conditions, since calls under "
        "each differ in many tokens, too. Tell conditions and sequences apart by `with marche_fx.stream(name):` around "
        "the calls of each"
    )


def begun_anew(method: StepMethod, found: Findings, calls: Sequence[CallRecord]) -> str:
    """Of a session in which most calls were of another kind of arguments than those before."""
    programs = list(dict.fromkeys(call.program for call in calls))
    shapes, values, lines = differences([(own.capture, own.leaf_names) for own in programs])
    start = (
        f"{found.share:.0%} of the rows of {method} were computed in {found.calls} calls, so hardly anything is "
        f"gained: {found.anew} of them found nothing to reuse, since"
    )
    if shapes:
        return (
            f"{start} {in_words(shapes)} had another shape in each. Where the model knows padding, pad to one shape; "
            "where these are keys and values that it keeps itself, leave its own cache out, for a session has its own; "
            "otherwise the step cannot be cached here"
        )
    if values:
        return (
            f"{start} {in_words(values)}, of which no part is a tensor, was another in each. Pass numbers that change "
            "as tensors; where the model branches on them, the step cannot be cached here"
        )
    if lines:
        return (
            f"{start} the model asks for values of its arguments at {' and '.join(lines)}, and goes on with others in "
            "each. Where it may compute with the tensor instead of a number, let it, as by torch.where; where the "
            "number is for somebody else, take it outside of the step"
        )
    return (
        f"{start} their arguments, or what the model keeps in attributes, were of another kind in each: dtypes, "
        "devices, autocast or nesting. Keep these the same in all calls of a generation"
    )


def in_words(names: Sequence[str]) -> str:
    """``'ids' and 'mask'``."""
    return " and ".join(map(repr, names))


def nearly_all(method: StepMethod, found: Findings) -> str:
    if are_few(found.tokens):
        return of_few_tokens(method, found)
    if found.runs_behind_whole_reads:
        return runs_behind(method, found)
    # What forced few of the calls is not why the others were.
    values, readers = (2 * max(own.values(), default=0) >= found.forced for own in (found.values, found.readers))
    if found.values and values:
        times = found.values.most_common(1)[0][1]
        return moving_value(method, found, f"{times} of {found.calls} calls")
    start = (
        f"{found.share:.0%} of the rows of {method} were computed in {found.calls} calls, so hardly anything is "
        "gained: "
    )
    if found.readers and readers:
        (line, is_query), times = found.readers.most_common(1)[0]
        if is_query:
            return (
                f"{start}query= asks for nearly every row in {times} of them, called at {line}. Let it ask for those "
                "alone that the loop reads"
            )
        return f"{start}the loop reads nearly every row at {line}, in {times} of them. {BOUNDING}"
    if found.lopsided:
        (line, samples, is_query), times = found.lopsided.most_common(1)[0]
        reads = f"query= asks, called at {line}," if is_query else f"the loop asks, at {line},"
        return (
            f"{start}{reads} in {times} of them for nearly every row of {samples} and for fewer of the others, and "
            "equally many rows of every sample are computed. Under guidance by a doubled batch, ask for the same rows "
            "of both halves, as in mask.chunk(2)[0].repeat(2, 1): a masked prompt is not to be read"
        )
    (name, argument), times = next(iter(found.partly.most_common(1)), (("", ""), 0))
    mostly = f"; in {times} of them {name}, had changed half of them or more" if times else ""
    mend = f". {letting_it_move(method, argument)}" if argument else ""
    most = (
        f"{start}in {found.forced} of them more than 80% of the tokens were to run, rounded up to a multiple of "
        f"{BUCKET}: they had changed, were read or refreshed{mostly}"
    )
    (line, is_query), often = next(iter(found.mostly.most_common(1)), (("", False), 0))
    if 2 * often >= found.forced and times < often:
        asks = f"query= asks, called at {line}," if is_query else f"the loop asks, at {line},"
        return f"{most}; {asks} for half of the rows or more in {often} of them. {BOUNDING}"
    return f"{most}{mend}. Fewer tokens a step, or more steps, leave more to reuse"


def of_few_tokens(method: StepMethod, found: Findings) -> str:
    return (
        f"all rows of {method} were computed in {found.calls} calls: a sample has {found.tokens} tokens, and a "
        f"step computes a multiple of {BUCKET} of them. Nothing can be reused of so few; call the original"
    )


def runs_behind(method: StepMethod, found: Findings) -> str:
    (first, later), times = found.behind.most_common(1)[0]
    return (
        f"{found.share:.0%} of the rows of {method} were computed in {found.calls} calls, so hardly anything is "
        f"gained: in {times} of them its result was read as a whole at {first}, with old rows, and it ran again for "
        f"rows that are read at {later}. Let the loop choose its rows before it reads any; where they depend on the "
        "whole, pass refresh='exact', by which each call runs once and no row is old"
    )


def tell_of_a_whole_read(method: StepMethod, call: CallRecord, oldest: Tensor) -> None:
    """Warn once of a result that was read as a whole, ``oldest`` steps old where it is oldest.

    The loop may think that all of it is new, whatever rows of it were read before.
    """
    topic = "read as a whole"
    # A look at how old it is waits for the device.
    if topic not in method.warned and call.active < call.visible and float(oldest) > 0:
        method.warn_once(read_as_a_whole(call), topic=topic)


def read_as_a_whole(call: CallRecord) -> str:
    program = call.program
    shape = (program.samples, program.tokens)
    rows = "Read the rows you need, as in logits[rows], or pass" if any(program.row_outputs) else "Pass"
    return (
        f"a result of {call.method} was read as a whole, and only {call.active} of its {call.visible} tokens were "
        f"recomputed. {rows} query= to transform, which is called with the step's arguments and returns the tokens "
        f"whose results are read, a bool mask {shape} ({program.tokens_in_words} tokens)."
    )


def runs_again_after_a_check(method: StepMethod, line: str) -> str:
    return (
        f"{method} ran again for rows of its result that are read at {line}, which were not expected when a check "
        f"of torch.distributions had read all of it. Without the check, by {WITHOUT_CHECKS}, it runs once"
    )
