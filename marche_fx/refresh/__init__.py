"""Refresh policies: which cached tokens to recompute beside the changed and the queried ones.

policy    what a policy is, and two at once       builtin   those that come with the library
history   what a policy sees and answers          signals   what it may have measured
budget    how many tokens, by step or by drift    checking  answers that cannot be done
presets   policies by name                        saving    as JSON
"""

from .budget import AdaptiveBudget, CosineBudget
from .builtin import (
    BudgetedRefresh,
    DriftRefresh,
    FullRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    SelectiveRefresh,
    StalenessRefresh,
)
from .history import History, Refresh
from .policy import Both, RefreshPolicy, begun_after, warmup_of
from .presets import PRESETS, preset
from .saving import load_policy, policy_from_dict, policy_to_dict, save_policy
from .signals import AttentionReceived, InputDrift, ResultConfidence, RowSignal, Signal, ValueDrift

__all__ = [
    "PRESETS",
    "AdaptiveBudget",
    "AttentionReceived",
    "Both",
    "BudgetedRefresh",
    "CosineBudget",
    "DriftRefresh",
    "FullRefresh",
    "History",
    "InputDrift",
    "InterleavedRefresh",
    "NeighbourRefresh",
    "RandomRefresh",
    "Refresh",
    "RefreshPolicy",
    "ResultConfidence",
    "RowSignal",
    "SelectiveRefresh",
    "Signal",
    "StalenessRefresh",
    "ValueDrift",
    "begun_after",
    "load_policy",
    "policy_from_dict",
    "policy_to_dict",
    "preset",
    "save_policy",
    "warmup_of",
]
