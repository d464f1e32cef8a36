"""Turn a masked transformer's decoding step into an incremental program that recomputes active tokens only."""

from .api.decoding import decoding, session
from .api.samples import keep_samples
from .api.transform import transform
from .denoising import Denoising, load_denoising, save_denoising
from .errors import (
    ArgumentError,
    CaptureError,
    CheckpointError,
    DatasetError,
    EquivalenceError,
    GraphError,
    MarcheError,
    OutOfMemoryError,
    PolicyError,
    RecipeError,
    RuleError,
    SamplingError,
    StorageError,
    TrainingError,
    TuningError,
    UnsupportedModelError,
)
from .head.policy import HeadReuse, Hold, HoldBranches, Interpolate
from .head.saving import load_head_reuse, save_head_reuse
from .passes.rules.perturb import check_rule
from .passes.rules.register import register_rule
from .recipes import Recipe, load_recipe, save_recipe
from .refresh import (
    AdaptiveBudget,
    AttentionReceived,
    Both,
    BudgetedRefresh,
    CosineBudget,
    DriftRefresh,
    FullRefresh,
    History,
    InputDrift,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    Refresh,
    RefreshPolicy,
    ResultConfidence,
    RowSignal,
    SelectiveRefresh,
    Signal,
    StalenessRefresh,
    ValueDrift,
    load_policy,
    save_policy,
)
from .renamed import renamed_function
from .reporting.report import Report, explain, report
from .runtime.monitor import Monitor
from .runtime.session import stream
from .sampling.run import Sampled, sample
from .sampling.share import Share
from .saving.captures import load_captures, save_captures
from .tuning.generation import tune_recipe
from .tuning.ingredients import Ingredients
from .tuning.tune import Tuned, tune
from .tuning.tuned_recipe import TunedRecipe
from .version import __version__ as __version__

save = renamed_function("save", save_captures)
load = renamed_function("load", load_captures)

__all__ = [
    "AdaptiveBudget",
    "ArgumentError",
    "AttentionReceived",
    "Both",
    "BudgetedRefresh",
    "CaptureError",
    "CheckpointError",
    "CosineBudget",
    "DatasetError",
    "Denoising",
    "DriftRefresh",
    "EquivalenceError",
    "FullRefresh",
    "GraphError",
    "HeadReuse",
    "History",
    "Hold",
    "HoldBranches",
    "Ingredients",
    "InputDrift",
    "InterleavedRefresh",
    "Interpolate",
    "MarcheError",
    "Monitor",
    "NeighbourRefresh",
    "OutOfMemoryError",
    "PolicyError",
    "RandomRefresh",
    "Recipe",
    "RecipeError",
    "Refresh",
    "RefreshPolicy",
    "Report",
    "ResultConfidence",
    "RowSignal",
    "RuleError",
    "Sampled",
    "SamplingError",
    "SelectiveRefresh",
    "Share",
    "Signal",
    "StalenessRefresh",
    "StorageError",
    "TrainingError",
    "Tuned",
    "TunedRecipe",
    "TuningError",
    "UnsupportedModelError",
    "ValueDrift",
    "check_rule",
    "decoding",
    "explain",
    "keep_samples",
    "load_captures",
    "load_denoising",
    "load_head_reuse",
    "load_policy",
    "load_recipe",
    "register_rule",
    "report",
    "sample",
    "save_captures",
    "save_denoising",
    "save_head_reuse",
    "save_policy",
    "save_recipe",
    "session",
    "stream",
    "transform",
    "tune",
    "tune_recipe",
]
