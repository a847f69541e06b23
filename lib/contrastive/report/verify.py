"""Make a report again, with nothing taken from the first time, and compare every number."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..storage.files import BROKEN, printable, read_json, tell
from ..training.runs import code_hash
from ..settings.model import UserError, make_settings, runs_root
from ..evaluation.statistics import standard_error
from .record import PLAIN_UNITS, format_metric
from .runner import reports_root, run_report

# For one seed, whose spread is not known: how far what is no accuracy may move, as a share of it. In short runs on
# digits and MNIST other threads and precisions moved it by up to 2.3 %, seeds with a standard deviation of 2 to 13 %.
SHARE = 0.05
# Points that the calibration error before scaling may move for each seed: it goes with the probe's penalty, which
# validation images choose in steps. In 8 seeds of a short run on digits that made it 1 to 2 %, 4 to 5 %, or 14 %.
STEP = 12.0


def verify(report: Path, changes: dict[str, Any], out: str | None = None, timeout: float | None = None) -> int:
    """Run a report's settings again and print for each number whether it is identical, within its spread, or off.

    report: its folder, or a file in it. changes: parameters that shall differ, such as `device`. The runs are made
    anew, in a folder that is removed in the end, or kept to go on with when this fails. Returns the exit code:
    0, 1 when a number is off or the report failed, 128 and more when a signal stopped it. Raises: UserError.
    """
    path = results_file(report)
    old = read_json(path)
    try:
        settings, notebooks = dict(old["settings"]), [str(name) for name in old["notebooks"]]
        # Whatever else is wrong with a stranger's numbers shows here, not after hours of training.
        compare(old, {**old, "metrics": {name: {**m, "values": None} for name, m in old["metrics"].items()}})
        if not old["metrics"] or not all(math.isfinite(m["mean"]) for m in old["metrics"].values()):
            raise ValueError("no numbers")
    except (*BROKEN, ArithmeticError):
        raise UserError(f"{path} holds no numbers that could be compared.") from None
    preset = settings.get("preset", "quick")
    usual = make_settings(preset=preset).model_dump(mode="json")
    given = {name: value for name, value in settings.items() if value != usual.get(name)}
    given = {"preset": preset, **given, **changes}
    make_settings(**given)
    name = path.absolute().parent.name
    # Of its own for each report, request and state of the code: what an interrupted one left there is still of use.
    asked = json.dumps([str(path.resolve()), old, given, code_hash()], default=str)
    runs = runs_root() / f"verify-{hashlib.sha256(asked.encode()).hexdigest()[:16]}"
    before = os.environ.get("CONTRASTIVE_RUNS")
    os.environ["CONTRASTIVE_RUNS"] = str(runs)
    try:
        code, new = run_report(given, notebooks, out or str(reports_root() / f"{name}-verified"), timeout)
    finally:
        os.environ.pop("CONTRASTIVE_RUNS")
        os.environ |= {"CONTRASTIVE_RUNS": before} if before is not None else {}
    if code >= 128 or new.get("errors"):  # what was trained is of use to the next attempt
        return code
    shutil.rmtree(runs, ignore_errors=True)
    verdicts = compare(old, new)
    tell("")
    for verdict, said in verdicts:
        tell(printable(f"{verdict:13}  {said}"))
    counts = {v: sum(verdict == v for verdict, _ in verdicts) for v in ("identical", "within spread", "OFF")}
    tell("\n" + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return int(counts["OFF"] > 0 or code != 0)


def results_file(report: Path) -> Path:
    """The results of a report that is named by its folder or a file in it. Raises: UserError."""
    path = report / "results.json" if os.path.isdir(report) else report.with_name("results.json")
    if not os.path.isfile(path):
        raise UserError(f"there is no report at {report}: give a folder that holds results.json.")
    return path


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For each number of two results, the verdict (identical, within spread, OFF) and what was compared."""
    verdicts = []
    data = ("name", "sha256", "pretrain", "train", "validation", "test")
    for name in data:
        a, b = (results.get("dataset", {}).get(name) for results in (old, new))
        verdicts.append(("identical", f"dataset {name}: {a}") if a == b else ("OFF", f"dataset {name}: {a} -> {b}"))
    for name, metric in old["metrics"].items():
        other = new.get("metrics", {}).get(name)
        if other is None:
            verdicts.append(("OFF", f"{name}: {format_metric(name, metric)} -> missing"))
        elif other["values"] == metric["values"]:
            verdicts.append(("identical", f"{name}: {format_metric(name, metric)}"))
        else:
            allowed = spread(name, metric, *measured_on(name, old))
            verdict = "within spread" if abs(metric["mean"] - other["mean"]) <= allowed else "OFF"
            shown = f"{format_metric(name, metric)} -> {format_metric(name, other)} (allowed: {allowed:.2g})"
            verdicts.append((verdict, f"{name}: {shown}"))
    had_passed = {check["name"] for check in old.get("checks", []) if check["passed"]}  # some may no longer be made
    failed = [check["name"] for check in new.get("checks", []) if not check["passed"]]
    return verdicts + [("OFF", f"check {name!r} had passed") for name in failed if name in had_passed]


def measured_on(name: str, results: Mapping[str, Any]) -> tuple[int, int | None]:
    """The number of images that a metric was measured on, and of labels that it was fitted with, if any."""
    if "validation_accuracy[" in name:
        return int(results["dataset"]["validation"]), int(results["settings"]["ablation_labels"])
    if name.endswith("[transfer]"):
        return int(results["dataset"]["transfer_test"]), None
    _, at, number = name.partition("@")
    return int(results["dataset"]["test"]), int(number) if at else None


def is_accuracy(name: str) -> bool:
    """Whether a metric is a share of images, whose sampling error follows from their number."""
    return name.split("@")[0] not in PLAIN_UNITS and not name.startswith(("calibration_error", "macro_auc"))


def spread(name: str, metric: Mapping[str, Any], n_images: int, n_labels: int | None) -> float:
    """How far a metric's mean may move by rounding that differs, as it does with other threads, precisions or devices.

    Twice the standard deviation over its seeds or, with one seed, twice the standard error of an accuracy on as many
    images as there were labels, which comes near it; for any accuracy at least twice the standard error on the images
    that it was measured on. For what is no percentage, at least SHARE of it; for the calibration error before scaling,
    at least STEP over the number of seeds.
    """
    several = metric["n_seeds"] > 1
    if name.startswith("calibration_error@"):
        return max(2 * metric["std"], STEP / metric["n_seeds"])
    if name.split("@")[0] in PLAIN_UNITS:
        return max(2 * metric["std"] if several else 0.0, SHARE * abs(metric["mean"]))
    by_labels = standard_error(metric["mean"], n_labels) if n_labels else 0.0
    return 2 * max(metric["std"] if several else by_labels, standard_error(metric["mean"], n_images))
