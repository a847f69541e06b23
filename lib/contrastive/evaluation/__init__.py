"""What a frozen encoder is worth: arms, probes, controls, diagnostics, metrics and statistics.

`evaluate(run, images)` measures a run; `aggregate`, `comparisons` and `savings` say what several seeds show together.
"""

from .arms import ARMS, SCRATCH
from .evaluator import Evaluation, evaluate
from .health import check, health, loss_drop
from .metrics import METRICS, Key, aggregate, as_table, format_metric
from .summary import better_from_scratch, comparisons, difference_name, savings

__all__ = [
    "ARMS",
    "METRICS",
    "SCRATCH",
    "Evaluation",
    "Key",
    "aggregate",
    "as_table",
    "better_from_scratch",
    "check",
    "comparisons",
    "difference_name",
    "evaluate",
    "format_metric",
    "health",
    "loss_drop",
    "savings",
]
