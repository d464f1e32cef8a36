"""``marche-fx bench``: variants of a decoding step timed side by side in one run.

run        the bench: takes `settings`, a `workload` or `user_model`, and `variants`, by `schedule`; makes `rows`
resume     goes on with a bench that was cut off; `soak` thousands of sessions, whether anything grows
turn       one variant's step; `lockstep` steps all in turn, `candidates` makes what is timed, `warm_up` runs it first
heads      what draws a variant's tokens
ablation   what each ingredient of a generation is worth, alone and beside the others
scaling    time against tokens, with `fit`; `breakdown` where a step's time goes
memory     what a size needs; `resident` what a step took; `largest` the largest batch within the original's memory
overhead   what a step costs beside its arithmetic: operators, compiled calls, kernels, waits, allocations
compiler   the compiler's counters and folder; `machine` what the figures were measured on
tables, plots, scaling_plot, command   what is printed, drawn, and asked for on the command line
"""

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
