"""What the evaluations of several seeds say together: means, differences between arms, labels saved."""

import math
from collections.abc import Sequence

import numpy as np

from .arms import SCRATCH
from .evaluator import Evaluation
from .labels_saved import label_savings
from .metrics import Key, Metrics, aggregate
from .statistics import paired_difference


def comparisons(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """The linear probe's accuracies less each arm's, on the draws of labels that both had, by
    `statistics.paired_difference`, as JSON: named as in `linear_accuracy@600 - supervised_accuracy@600`."""
    keys = [Key.parse(name) for name in evaluations[0].right]
    found = {}
    for ours in keys:
        for other in keys if ours.arm == "linear" else ():
            if other.labels == ours.labels and other != ours:
                draws = min(len(evaluations[0].right[str(key)]) for key in (ours, other))
                a, b = (_shares(evaluations, key, draws) for key in (ours, other))
                found[difference_name(ours, other)] = vars(paired_difference(a, b))
    return found


def difference_name(ours: Key, other: Key) -> str:
    """What the difference of two numbers is called."""
    return f"{ours} - {other}"


def better_from_scratch(metrics: Metrics, n: int) -> str:
    """The arm to be beaten with n labels: of the networks from scratch that were measured, the one with the better
    mean."""
    means = {arm: metrics[name]["mean"] for arm in SCRATCH if (name := str(Key("accuracy", arm, n))) in metrics}
    return max(means, key=means.__getitem__, default=SCRATCH[0])


def savings_by_budget(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float | None]]:
    """For each number of labels of the linear probe, how many the same network needs from scratch, with augmentations
    or without, whichever is better there: `savings.label_savings`, as JSON. None stands for more than were tried.
    `accuracy` is the probe's, in percent, with the draws of labels that the network had, too.
    """
    metrics = aggregate([row for evaluation in evaluations for row in evaluation.rows])
    keys = [Key.parse(name) for name in evaluations[0].right]
    budgets = [key.labels for key in keys if key.arm == "linear" and key.labels is not None]
    curve = {}
    for n in budgets:
        if str(key := Key("accuracy", better_from_scratch(metrics, n), n)) in metrics:
            curve[n] = _shares(evaluations, key)
    draws = min(len(evaluations[0].right[str(key)]) for key in keys if key.arm in SCRATCH)
    found = {}
    for n in budgets:
        ours = _shares(evaluations, Key("accuracy", "linear", n), draws)
        saved = vars(label_savings(ours, curve, n)) | {"accuracy": 100 * float(ours.mean())}
        found[str(n)] = {name: None if math.isinf(value) else value for name, value in saved.items()}
    return found


def _shares(evaluations: Sequence[Evaluation], key: Key, draws: int | None = None) -> np.ndarray:
    """Seeds x test images: in which share of the (first so many) draws of labels each image was right."""
    return np.stack([e.right[str(key)][:draws].double().mean(0).numpy() for e in evaluations])
