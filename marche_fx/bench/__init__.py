"""``marche-fx bench``: variants of a decoding step timed side by side in one run."""

from .breakdown import Breakdown, break_down
from .rows import Bench, Row
from .run import bench, save_bench
from .scaling import Scaling, measure_scaling
from .settings import Settings
from .tables import bench_tables
from .user_model import user_workload
from .variants import Variant, parse_variants
from .workload import Workload, mar_workload, recorded_workload

__all__ = [
    "Bench",
    "Breakdown",
    "Row",
    "Scaling",
    "Settings",
    "Variant",
    "Workload",
    "bench",
    "bench_tables",
    "break_down",
    "mar_workload",
    "measure_scaling",
    "parse_variants",
    "recorded_workload",
    "save_bench",
    "user_workload",
]
