"""Turn a masked transformer's decoding step into an incremental program that recomputes active tokens only."""

from .errors import (
    ArgumentError,
    CaptureError,
    CheckpointError,
    DatasetError,
    EquivalenceError,
    GraphError,
    MarcheError,
    SessionError,
    TrainingError,
    UnsupportedModelError,
)
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
    "SelectiveRefresh",
    "SessionError",
    "TrainingError",
    "UnsupportedModelError",
    "decoding",
    "explain",
    "report",
    "transform",
]
