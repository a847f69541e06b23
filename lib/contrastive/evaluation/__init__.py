"""What a frozen encoder is worth: arms, probes, controls, diagnostics, metrics and statistics.

`evaluate(run, images)` measures a run; `aggregate`, `comparisons` and `savings_by_budget` say what several
seeds show together.
"""

from .across_seeds import better_from_scratch, comparisons, difference_name, savings_by_budget
from .arms import ARMS, SCRATCH
from .evaluator import Evaluation, evaluate, measuring_version
from .metrics import METRICS, Key, aggregate, as_table, format_metric
from .soundness import check, data_checks, health, loss_drop
