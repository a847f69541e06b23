"""What the evaluations of several seeds say together: means, intervals, differences between arms, labels saved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .arms import ARMS, SCRATCH, with_role
from .evaluator import Evaluation
from .judging import Judging
from .labels_saved import label_savings
from .metrics import COMPARED, Key, Metrics, aggregate
from .statistics import Difference, interval, paired_difference

UNEVEN = 1.5  # times as many images of the most frequent class as of all on average: then accuracy says less
SAVING = ("linear", "finetuned", "general")  # arms of which it is asked how many labels they save


def headline_metric(labels: np.ndarray) -> str:
    """The metric that a report leads with. Of two classes, or uneven ones, balanced accuracy: always guessing the most
    frequent class would have a high accuracy."""
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    even = len(counts) > 2 and counts.max() <= UNEVEN * counts.mean()
    return "accuracy" if even else "balanced_accuracy"


@dataclass
class Findings:
    """What evaluations, one of each seed, say together.

    judging: how their images were judged. few: the number of labels that is looked at beside the headline's.
    pretraining_seconds: that a run took.
    """

    evaluations: Sequence[Evaluation]
    judging: Judging
    few: int
    pretraining_seconds: float = 0.0

    @cached_property
    def metric(self) -> str:
        """The metric that the report leads with."""
        known = self.judging.images.train_labels[self.judging.images.labelled]
        return headline_metric(np.concatenate([known.numpy(), self.judging.labels.numpy()]))

    @property
    def headline(self) -> int:
        """The number of labels that the report leads with."""
        return self.evaluations[0].headline

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Every number over seeds."""
        return aggregate([row for evaluation in self.evaluations for row in evaluation.rows])

    @cached_property
    def keys(self) -> list[Key]:
        """The numbers that compare arms."""
        return [Key.parse(name) for name in self.evaluations[0].values]

    def budgets(self, arm: str) -> list[int]:
        """The numbers of labels with which an arm was measured."""
        return sorted(key.labels for key in self.keys if key.arm == arm and key.metric == "accuracy" and key.labels)

    def has(self, arm: str, n: int | None = None, metric: str = "") -> bool:
        """Whether an arm was measured with n labels, by default with the headline's, and by its metric."""
        return str(Key(metric or self.metric, arm, n or self.headline)) in self.evaluations[0].values

    def values(self, key: Key, draws: int | None = None) -> np.ndarray:
        """Values of the judged images (see `per_image`), float64 seeds x draws x images."""
        return np.stack([e.values[str(key)][:draws].double().numpy() for e in self.evaluations])

    @cached_property
    def intervals(self) -> dict[str, dict[str, float]]:
        """For each number that compares arms its mean and 95 % interval, in percent, as JSON."""
        found = {}
        for key in self.keys:
            own = interval(self.values(key), self.judging.design)
            found[str(key)] = {"mean": 100 * own.mean, "low": 100 * own.low, "high": 100 * own.high}
        return found

    def percent(self, arm: str, n: int | None = None, metric: str = "") -> dict[str, float]:
        """Mean and interval of an arm with n labels, by default of the headline's metric and number of labels."""
        return self.intervals[str(Key(metric or self.metric, arm, n or self.headline))]

    def difference(self, ours: str, other: str, n: int | None = None, metric: str = "") -> Difference:
        """How much better one arm is than another, in points, on the draws of labels that both had."""
        a, b = (self.values(Key(metric or self.metric, arm, n or self.headline)) for arm in (ours, other))
        draws = min(a.shape[1], b.shape[1])
        return paired_difference(a[:, :draws], b[:, :draws], self.judging.design)

    @cached_property
    def compared(self) -> dict[str, dict[str, float]]:
        """The linear probe less each arm, by every metric, and with the headline's what general features are less each,
        as JSON: named as in `linear_accuracy@600 - supervised_accuracy@600`."""
        found = {}
        for ours in self.keys:
            wanted = ours.arm == "linear" or (ours.arm in with_role("general") and ours.metric == self.metric)
            for other in self.keys if wanted else ():
                if (other.labels, other.metric) == (ours.labels, ours.metric) and other.arm not in ("linear", ours.arm):
                    difference = self.difference(ours.arm, other.arm, ours.labels, ours.metric)
                    found[difference_name(ours, other)] = vars(difference)
        return found

    def scratch(self, n: int | None = None) -> str:
        """The arm to be beaten: of the networks from scratch, the one with the better mean."""
        return better_from_scratch(self.metrics, n or self.headline, self.metric)

    def savings(self, arm: str) -> dict[str, dict[str, float | None]]:
        """For each number of labels of an arm, how many the same network needs from scratch, with augmentations or
        without, whichever is better there: `label_savings`, as JSON. None stands for more than were tried. `reached` is
        the arm's metric, in percent, with the draws of labels that the network had, too."""
        draws = min(len(own) for name, own in self.evaluations[0].values.items() if Key.parse(name).arm in SCRATCH)
        curve = {}
        for n in sorted({n for arm in SCRATCH for n in self.budgets(arm)}):
            curve[n] = self.values(Key(self.metric, self.scratch(n), n), draws)
        found = {}
        for n in self.budgets(arm):
            ours = self.values(Key(self.metric, arm, n), draws)
            saved = vars(label_savings(ours, curve, n, self.judging.design)) | {"reached": 100 * float(ours.mean())}
            found[str(n)] = {name: None if math.isinf(value) else value for name, value in saved.items()}
        return found

    @cached_property
    def saved(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """`savings` of each arm that was measured."""
        return {arm: self.savings(arm) for arm in SAVING if self.budgets(arm)}

    @property
    def guess(self) -> dict[str, float]:
        """What always guessing the most frequent class gives, in percent, by metric."""
        names = {metric: str(Key(metric, "majority_class")) for metric in COMPARED}
        return {metric: self.metrics[name]["mean"] for metric, name in names.items() if name in self.metrics}

    def measured(self, full: bool | None = None) -> list[str]:
        """The arms that were measured with numbers of labels, in order; of a full evaluation alone, or without them."""
        return [arm.id for arm in ARMS.values() if full in (None, arm.full) and self.budgets(arm.id)]

    @property
    def costs(self) -> dict[str, float]:
        """Seconds that each arm took, with the seed that took longest: what was in a cache took others none."""
        names = dict.fromkeys(name for e in self.evaluations for name in e.costs)
        return {name: max(e.costs.get(name, 0.0) for e in self.evaluations) for name in names}


def difference_name(ours: Key, other: Key) -> str:
    """What the difference of two numbers is called."""
    return f"{ours} - {other}"


def better_from_scratch(metrics: Metrics, n: int, metric: str = "accuracy") -> str:
    """The arm to be beaten with n labels: of the networks from scratch that were measured, the one with the better
    mean."""
    means = {arm: metrics[name]["mean"] for arm in SCRATCH if (name := str(Key(metric, arm, n))) in metrics}
    return max(means, key=means.__getitem__, default=SCRATCH[0])
