"""What a frozen encoder is worth: arms, probes, controls, diagnostics, metrics and statistics.

`evaluate(run, images)` measures a run; `Findings` says what the evaluations of several seeds show together, with
intervals. Within: judging (on which images, with which labels) -> arms (what is compared) -> measurement -> findings.
"""

from .arms import ARMS, SCRATCH
from .evaluator import Evaluation, evaluate, measuring_version
from .findings import Findings, better_from_scratch, difference_name
from .judging import how_judged
from .metrics import METRICS, Key, aggregate, as_table, format_metric
from .soundness import check, data_checks, health, loss_drop
