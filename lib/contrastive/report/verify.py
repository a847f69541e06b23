"""Make a report again, with nothing taken from the first time, and compare every number."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluation import Key, format_metric
from ..evaluation.statistics import standard_error
from ..settings import Settings, UserError, parameters, runs_root
from ..storage.files import BROKEN, printable, read_json, tell
from ..training import FITTED, resolve
from .runner import FORMAT, reports_root, run_report

MACHINE = ("precision", "device")  # what is taken from this machine, unless something is asked for
# For one seed, whose spread is not known: how far what is no accuracy may move, as a share of it. In short runs on
# digits and MNIST other threads and precisions moved it by up to 2.3 %, seeds with a standard deviation of 2 to 13 %.
# (Another processor moved an accuracy with 5,000 labels by 0.33 points, which is where two standard errors end.)
SHARE = 0.05
# Points that the calibration error before scaling may move for each seed: it goes with the probe's penalty, which
# validation images choose in steps. In 8 seeds of a short run on digits that made it 1 to 2 %, 4 to 5 %, or 14 %.
STEP = 12.0


def make_again(report: Path, changes: dict[str, Any], out: str | None = None, timeout: float | None = None) -> int:
    """Run a report's settings again and print for each number whether it is identical, within its spread, or off.

    Precision and device are this machine's, unless they are asked for: a report made elsewhere would be many times
    slower, or impossible. The runs are made anew, in a folder that is removed in the end, or kept to go on with when
    this fails.

    Args:
        report: its folder, or a file in it.
        changes: parameters that shall differ, such as `dataset`, where the images lie elsewhere.
        out: where the new report goes.
        timeout: seconds that a single cell may take.

    Returns:
        The exit code: 0, 1 when a number is off or the report failed, 128 and more when a signal stopped it.

    Raises:
        UserError: when the report cannot be made again.
    """
    path = results_file(report)
    old = read_json(path)
    if out and os.path.realpath(os.path.expanduser(out)) == os.path.realpath(path.parent):
        raise UserError(f"--out {out} is the report that is verified, and would be replaced. Choose another folder.")
    given, notebooks = _request(path, old, changes)
    given, resolved = _with_its_views(old, given, changes)
    given = _in_its_words(old, given, changes, resolved)
    if said := _other_machine(old["settings"], resolved.flat()):
        tell(printable(said))
    name = path.absolute().parent.name
    # Of its own for each report and request: what an interrupted one left there is still of use.
    asked = json.dumps([str(path.resolve()), old, given], default=str)
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
    verdicts = compare_results(old, new)
    tell("")
    for verdict, said in verdicts:
        tell(printable(f"{verdict:13}  {said}"))
    counts = {v: sum(verdict == v for verdict, _ in verdicts) for v in ("identical", "within spread", "OFF")}
    tell("\n" + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return int(counts["OFF"] > 0 or code != 0)


def _request(path: Path, old: Mapping[str, Any], changes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters and notebooks that make a report again. Raises: UserError."""
    try:
        settings, notebooks = dict(old["settings"]), [str(name) for name in old["notebooks"]]
        if old.get("format") != FORMAT and set(settings) - set(parameters()):
            raise UserError(f"{path} was made by older code, whose parameters had other names: make that report anew.")
        # Whatever else is wrong with a stranger's numbers shows here, not after hours of training.
        compare_results(old, {**old, "metrics": {name: {**m, "values": None} for name, m in old["metrics"].items()}})
        if not old["metrics"] or not all(math.isfinite(m["mean"]) for m in old["metrics"].values()):
            raise ValueError("no numbers")
    except UserError:
        raise
    except (*BROKEN, ArithmeticError):
        raise UserError(f"{path} holds no numbers that could be compared.") from None
    preset = settings.get("preset", "quick")
    chosen = {name: settings[name] for name in ("encoder", "method") if name in settings}
    usual = Settings(preset=preset, **chosen).as_json()
    # What a preset's numbers had become is asked for, or an asked one could shrink that had not.
    kept = {*chosen, *(name for name in FITTED if settings.get(name) is not None)}
    given = {n: v for n, v in settings.items() if n not in MACHINE and (n in kept or v != usual.get(n))}
    given = {"preset": preset, **given, **changes}
    Settings(**given)
    return given, notebooks


def _with_its_views(
    old: Mapping[str, Any], given: dict[str, Any], changes: Mapping[str, Any]
) -> tuple[dict[str, Any], Settings]:
    """The parameters, and what they mean: with views as large as the images where the report had such, which once was
    the default of digits, too."""
    resolved, images = resolve(Settings(**given))
    if old["settings"].get("view_size") is None and resolved.views.view_size and "view_size" not in changes:
        given = {**given, "view_size": images.format.shape[1]}
        resolved, _ = resolve(Settings(**given))
    return given, resolved


def _in_its_words(
    old: Mapping[str, Any], given: dict[str, Any], changes: Mapping[str, Any], resolved: Settings
) -> dict[str, Any]:
    """Only those of the parameters that the report itself was asked for, which its page shows, if the others still come
    of themselves; else all."""
    try:
        said = {"preset", "dataset", *old["provenance"]["changed"], *changes}
        fewer = {name: value for name, value in given.items() if name in said}
        return fewer if resolve(Settings(**fewer))[0] == resolved else given
    except (UserError, *BROKEN):  # a stranger's file may hold anything
        return given


def _other_machine(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What is said of a machine that is not that of the report; empty if it is."""
    differing = [f"{n} {there.get(n)} there, {here[n]} here" for n in MACHINE if there.get(n) != here[n]]
    said = f"The report was made with {'; '.join(differing)}: its numbers are compared by their spread."
    return said if differing else ""


def results_file(report: Path) -> Path:
    """The results of a report that is named by its folder or a file in it. Raises: UserError."""
    path = report / "results.json" if os.path.isdir(report) else report.with_name("results.json")
    if not os.path.isfile(path):
        raise UserError(f"there is no report at {report}: give a folder that holds results.json.")
    return path


def compare_results(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str]]:
    """For each number of two results, the verdict (identical, within spread, OFF) and what was compared."""
    verdicts = []
    for name in ("sha256", "pretrain", "train", "validation", "test"):  # its name may be another: the checksum counts
        a, b = (results.get("dataset", {}).get(name) for results in (old, new))
        verdicts.append(("identical", f"dataset {name}: {a}") if a == b else ("OFF", f"dataset {name}: {a} -> {b}"))
    for name, metric in old["metrics"].items():
        measured = new.get("metrics", {})
        other = measured.get(name, measured.get(f"linear_{name}"))  # older reports named no arm where there was one
        if other is None:
            verdicts.append(("OFF", f"{name}: {format_metric(name, metric)} -> missing"))
        elif other["values"] == metric["values"]:
            verdicts.append(("identical", f"{name}: {format_metric(name, metric)}"))
        else:
            allowed = spread(name, metric, old)
            verdict = "within spread" if abs(metric["mean"] - other["mean"]) <= allowed else "OFF"
            shown = f"{format_metric(name, metric)} -> {format_metric(name, other)} (allowed: {allowed:.2g})"
            verdicts.append((verdict, f"{name}: {shown}"))
    had_passed = {check["name"] for check in old.get("checks", []) if check["passed"]}  # some may no longer be made
    failed = [check["name"] for check in new.get("checks", []) if not check["passed"]]
    return verdicts + [("OFF", f"check {name!r} had passed") for name in failed if name in had_passed]


def measured_on(name: str, results: Mapping[str, Any]) -> tuple[int, int | None]:
    """The number of images that a metric was measured on, and of labels that it was fitted with, if any."""
    key, data = Key.parse(name), results["dataset"]
    if key.metric == "validation_accuracy":
        return int(data["validation"]), int(results["settings"]["ablation_labels"])
    if key.subset == "transfer":
        return int(data["transfer_test"]), key.labels
    return int(data.get("judged", data["test"])), key.labels  # older reports were all judged on test images


def spread(name: str, metric: Mapping[str, Any], results: Mapping[str, Any]) -> float:
    """How far a metric's mean may move by rounding that differs, as it does with other threads, precisions or devices.

    Twice the standard deviation over its seeds. With one seed, of an accuracy: as far as two runs would be apart in 95
    of 100 cases, if each erred as it would on so many new images as there were labels and test images; for rounding
    that differs ends in other weights, as another seed would. In any case as far as the test images alone may move it.
    For the calibration error once probabilities are scaled, as far as for the accuracy of the same probe; before that,
    at least STEP over the number of seeds. For what is no share of images, at least SHARE of it.
    """
    several, key = metric["n_seeds"] > 1, Key.parse(name)
    of_seeds = 2 * metric["std"] if several else 0.0
    if key.kind.spread == "steps":
        return max(of_seeds, STEP / metric["n_seeds"])
    if key.kind.spread == "relative" and key.kind.unit != "%":
        return max(of_seeds, SHARE * abs(metric["mean"]))
    probe = results["metrics"].get(str(Key("accuracy", "linear", key.labels)), metric)
    percent = (metric if key.kind.spread == "share" else probe)["mean"]
    n_images, n_labels = measured_on(name, results)
    errors = [standard_error(percent, n) for n in (n_images, None if several else n_labels) if n]
    return max(of_seeds, 1.96 * math.sqrt(2 * sum(error**2 for error in errors)))
