"""Refresh policies: which cached tokens to recompute beside the changed and the queried ones."""

from .budget import AdaptiveBudget, CosineBudget
from .combine import Both
from .history import History, Refresh, RefreshPolicy
from .policies import (
    BudgetedRefresh,
    DriftRefresh,
    FullRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    SelectiveRefresh,
    StalenessRefresh,
)
from .presets import PRESETS, preset
from .saving import load_policy, policy_from_dict, policy_to_dict, save_policy
from .signals import AttentionReceived, InputDrift, RowSignal, Signal, ValueDrift

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
    "RowSignal",
    "SelectiveRefresh",
    "Signal",
    "StalenessRefresh",
    "ValueDrift",
    "load_policy",
    "policy_from_dict",
    "policy_to_dict",
    "preset",
    "save_policy",
]
