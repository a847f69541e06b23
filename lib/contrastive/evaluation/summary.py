"""What the evaluations of several seeds say together: means, differences between arms, labels saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .evaluator import Evaluation
from .savings import label_savings
from .statistics import paired_difference, summary

# What is compared on the same labels: prefix of the metric -> name
ARMS = {
    "linear": "pretrained, frozen + linear",
    "supervised": "same CNN from scratch, augmented",
    "supervised_plain": "same CNN from scratch, not augmented",
    "random_encoder": "random, frozen + linear",
    "raw_pixel": "raw pixels + linear",
}
# Measured besides if `evaluation` is full
MORE_ARMS = {
    "finetuned": "pretrained, fine-tuned",
    "pca": "principal components + linear",
    "scattering": "scattering transform + linear",
    "projection": "pretrained, projections z + linear",
}
SCRATCH = ("supervised", "supervised_plain")  # arms that have labels alone; the better one is what is to be beaten


def comparisons(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """The linear probe's accuracies less each arm's, on the draws of labels that both had, by
    `stats.paired_difference`, as JSON: named as in `linear_accuracy@600 - supervised_accuracy@600`."""
    found = {}
    for ours in evaluations[0].right:
        arm, _, n = ours.partition("_accuracy@")
        for other in evaluations[0].right if arm == "linear" else ():
            if other.endswith(f"_accuracy@{n}") and other != ours:
                draws = min(len(evaluations[0].right[name]) for name in (ours, other))
                a, b = (_shares(evaluations, name, draws) for name in (ours, other))
                difference = paired_difference(a, b)
                found[f"{ours} - {other}"] = vars(difference)
    return found


def better_from_scratch(metrics: Mapping[str, Mapping[str, Any]], n: int) -> str:
    """The arm to be beaten with n labels: of the CNNs from scratch that were measured, the one with the better mean."""
    means = {arm: metrics[f"{arm}_accuracy@{n}"]["mean"] for arm in SCRATCH if f"{arm}_accuracy@{n}" in metrics}
    return max(means, key=means.__getitem__, default=SCRATCH[0])


def savings(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, float | None]]:
    """For each number of labels of the linear probe, how many the same CNN needs from scratch, with augmentations or
    without, whichever is better there: `savings.label_savings`, as JSON. None stands for more than were tried.
    `accuracy` is the probe's, in percent, with the draws of labels that the CNN had, too.
    """
    metrics = aggregate(evaluations)
    budgets = [int(name.partition("@")[2]) for name in evaluations[0].right if name.startswith("linear_accuracy@")]
    curve = {}
    for n in budgets:
        if (name := f"{better_from_scratch(metrics, n)}_accuracy@{n}") in metrics:
            curve[n] = _shares(evaluations, name)
    draws = min(len(own) for name, own in evaluations[0].right.items() if name.startswith(SCRATCH))
    found = {}
    for n in budgets:
        ours = _shares(evaluations, f"linear_accuracy@{n}", draws)
        saved = vars(label_savings(ours, curve, n)) | {"accuracy": 100 * float(ours.mean())}
        found[str(n)] = {name: None if math.isinf(value) else value for name, value in saved.items()}
    return found


def _shares(evaluations: Sequence[Evaluation], name: str, draws: int | None = None) -> np.ndarray:
    """Seeds x test images: in which share of the (first so many) draws of labels each image was right."""
    return np.stack([e.right[name][:draws].double().mean(0).numpy() for e in evaluations])


def aggregate(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    """Each metric over seeds: mean, standard deviation (of a sample; 0 for one seed), n_seeds, values."""
    return {name: summary([e.metrics[name] for e in evaluations]) for name in evaluations[0].metrics}
