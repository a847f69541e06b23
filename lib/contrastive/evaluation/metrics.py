"""Every number that is measured: what it is called, its unit, and how sure it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np

from .per_image import accuracy_values, balanced_accuracy_values, macro_auc_values
from .statistics import summary


@dataclass(frozen=True)
class Metric:
    """A kind of number. spread: by what it varies when nothing but chance differs: `share` of images, with a binomial
    error; `steps`, since a penalty is chosen in steps; or `relative` to itself."""

    unit: str = "%"
    decimals: int = 2
    higher_is_better: bool | None = True
    spread: str = "share"


# What compares arms: from class probabilities and labels, values of the judged images whose mean is the number
COMPARED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "accuracy": accuracy_values,
    "balanced_accuracy": balanced_accuracy_values,
    "macro_auc": macro_auc_values,
}
KNN_K = (10, 100, 200)  # beside the usual one
_WITHOUT_LABELS = {
    "alignment": Metric("", 3, False, "relative"),
    "uniformity": Metric("", 3, False, "relative"),
    "effective_rank": Metric("dimensions", 1, None, "relative"),
    "feature_std": Metric("", 3, None, "relative"),
}
METRICS: dict[str, Metric] = {
    "accuracy": Metric(),
    "balanced_accuracy": Metric(),
    **{f"accuracy_k{k}": Metric() for k in KNN_K},
    "validation_accuracy": Metric(),
    "paired_share": Metric(),
    "macro_auc": Metric(spread="relative"),
    "calibration_error": Metric(higher_is_better=False, spread="steps"),
    "calibration_error_scaled": Metric(higher_is_better=False, spread="relative"),
    **_WITHOUT_LABELS,
    **{f"{name}_z": metric for name, metric in _WITHOUT_LABELS.items()},
}


@dataclass(frozen=True)
class Key:
    """Which number: of which arm (see `arms`), with how many labels, on which subset of images.

    As text it is what `results.json` calls it: `linear_accuracy@600`, `linear_accuracy[shear]`, `effective_rank_z`.
    """

    metric: str
    arm: str = ""
    labels: int | None = None
    subset: str = ""

    def __str__(self) -> str:
        name = f"{self.arm}_{self.metric}" if self.arm else self.metric
        return (
            name + (f"@{self.labels}" if self.labels is not None else "") + (f"[{self.subset}]" if self.subset else "")
        )

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key whose text that is; of a name that nobody knows, a metric of that name. Raises: ValueError."""
        found = re.fullmatch(r"([^@\[]*)(?:@(\d+))?(?:\[(.*)\])?", text, re.DOTALL)
        if found is None:
            raise ValueError(f"{text!r} names no number")
        name, labels, subset = found.groups()
        n = None if labels is None else int(labels)
        for metric in sorted(METRICS, key=len, reverse=True):
            if name == metric or name.endswith(f"_{metric}"):
                return cls(metric, name[: -len(metric)].rstrip("_"), n, subset or "")
        return cls(name, "", n, subset or "")

    @property
    def kind(self) -> Metric:
        """What kind of number it is; percent, if nobody knows it."""
        return METRICS.get(self.metric, Metric())


@dataclass(frozen=True)
class Row:
    """One measurement. draw: which draw of labels."""

    arm: str
    metric: str
    labels: int | None
    subset: str
    seed: int
    draw: int
    value: float

    @property
    def key(self) -> Key:
        """Which number it is a measurement of."""
        return Key(self.metric, self.arm, self.labels, self.subset)


COLUMNS = tuple(column.name for column in fields(Row))
Metrics = Mapping[str, Mapping[str, Any]]  # text of a key -> mean, std, n_seeds, values


def as_table(rows: Iterable[Row]) -> dict[str, Any]:
    """Rows as JSON: the columns' names, then a list for each row."""
    return {"columns": list(COLUMNS), "rows": [list(astuple(row)) for row in rows]}


def aggregate(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Each number over seeds, by the text of its key: mean, standard deviation, number of seeds, and the values, each
    of which is the mean over draws."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(str(row.key), {}).setdefault(row.seed, []).append(row.value)
    return {name: summary([sum(v) / len(v) for v in by_seed.values()]) for name, by_seed in found.items()}


def format_metric(name: str | Key, metric: Mapping[str, Any]) -> str:
    """A number as text: mean, standard deviation over seeds if there are several, unit."""
    kind = (Key.parse(name) if isinstance(name, str) else name).kind
    spread = f" ± {metric['std']:,.{kind.decimals}f}" if metric["n_seeds"] > 1 else ""
    return f"{metric['mean']:,.{kind.decimals}f}{spread} {kind.unit}".rstrip()
