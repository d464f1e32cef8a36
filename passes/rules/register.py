"""Rules for operators of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch._ops import OpOverload

from ...checks import check_flag
from ...errors import RuleError
from .notation import parse, pattern
from .perturb import check_rule, overload
from .table import RULES, is_pointwise


def register_rule(op: Any, rule: str, example: Sequence[Any] | None = None, *, replace: bool = False) -> None:
    """Say in one line what an operator of your own does to dimensions.

    Without a rule an operator is taken to mix everything, so it runs on all tokens at every step. Register the rule
    before the first call of a transformed model, which is when its step is captured.

    Args:
        op: what ``torch.library.custom_op`` returns, or an operator as ``torch.ops`` has it, of a single overload.
        rule: a pattern for each tensor among its arguments, ``->``, and the one of every output. ``...`` stands for any
            dimensions, broadcast from the right; ``?`` ends an operand that may be missing; a dimension that is not in
            the output is summed away; one after ``mixes`` stays in place, but an element there reads others along it.
        example: arguments of a call, in float64 best, on which `check_rule` tests the rule before it is registered.
        replace: take the place of a rule that the operator has already.

    Raises:
        RuleError: the rule is malformed, or fails on the example; the operator has a rule, or writes its arguments.
            Nothing is registered then.
        ArgumentError: the operator cannot be called as in the example.

    Example::

        @torch.library.custom_op("mylib::modulate", mutates_args=())
        def modulate(x: Tensor, scale: Tensor) -> Tensor:  # [B, N, D], [B, D] -> [B, N, D]
            return x * (1 + scale[:, None])

        marche_fx.register_rule(
            modulate, "b n c, b c -> b n c", example=(torch.randn(2, 5, 3), torch.randn(2, 3))
        )
    """
    target = overload(op)
    check_flag("replace", replace)
    if target._schema.is_mutable:
        raise RuleError(f"{target} writes its arguments; a rule describes an operator that returns new tensors")
    if not replace and (target in RULES or is_pointwise(target)):
        raise RuleError(f"{target} has a rule already; pass replace=True to register {rule!r} in its place")
    check_operands(target, rule)
    before = RULES.get(target)
    RULES[target] = pattern(rule)
    try:
        if example is not None:
            check_rule(target, example)
    except Exception as error:
        del RULES[target]
        if before is not None:
            RULES[target] = before
        if isinstance(error, RuleError):
            raise RuleError(f"rule {rule!r} is not registered: {error}") from None
        raise


def check_operands(target: OpOverload, rule: str) -> None:
    """Refuse a rule of more or fewer operands than the operator has, unless it takes a list of them."""
    tensors = [own for own in target._schema.arguments if "Tensor" in str(own.type)]
    described = len(parse(rule).operands)
    if described != len(tensors) and not any("List[" in str(own.type) for own in tensors):
        names = ", ".join(own.name for own in tensors)
        raise RuleError(f"rule {rule!r} has {described} operands, but {target} has {len(tensors)}: {names}")
