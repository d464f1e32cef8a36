"""Turn a masked transformer's decoding step into an incremental program that recomputes active tokens only."""

from .errors import (
    ArgumentError,
    CaptureError,
    CheckpointError,
    DatasetError,
    EquivalenceError,
    GraphError,
    MarcheError,
    RuleError,
    SessionError,
    TrainingError,
    UnsupportedModelError,
)
from .passes.perturb import check_rule
from .passes.rule_register import register_rule
from .refresh import FullRefresh, History, Refresh, RefreshPolicy, SelectiveRefresh
from .report import Report, explain, report
from .transform import decoding, transform

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "CaptureError",
    "CheckpointError",
    "DatasetError",
    "EquivalenceError",
    "FullRefresh",
    "GraphError",
    "History",
    "MarcheError",
    "Refresh",
    "RefreshPolicy",
    "Report",
    "RuleError",
    "SelectiveRefresh",
    "SessionError",
    "TrainingError",
    "UnsupportedModelError",
    "check_rule",
    "decoding",
    "explain",
    "register_rule",
    "report",
    "transform",
]
