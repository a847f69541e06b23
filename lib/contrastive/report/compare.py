"""Several reports on one page: what differs in their settings, by how much their numbers differ, curves overlaid."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from .. import plots
from ..evaluate import HEADLINE_LABELS
from ..files import BROKEN, atomic_write, printable, read_json, tell
from ..settings import UserError
from .record import MIME, PLAIN_UNITS, format_metric
from .render import render
from .tables import difference
from .verify import results_file

AS_DATA = ("name", "sha256", "pretrain", "train", "validation", "test")
AS_MADE = ("commit", "device", "threads", "precision", "packages")


@dataclass(frozen=True)
class Report:
    """A report that is compared: its name here, its results, and its training curves, run -> epochs, if it has them."""

    name: str
    results: Mapping[str, Any]
    curves: Mapping[str, list[dict[str, float]]]


def write_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Compare reports (folders, or files in them) with the first one, on one page `out`. Raises: UserError."""
    if len(paths) < 2:
        raise UserError("name at least two reports to compare.")
    files = [results_file(path) for path in paths]
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("a report is named twice: name different ones.")
    names = short_names([file.absolute().parent for file in files])
    try:
        reports = [_read(file, name) for file, name in zip(files, names, strict=True)]
        page = comparison(reports)
    except (*BROKEN, ArithmeticError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"one of these reports holds numbers that cannot be compared ({type(error).__name__}).") from None
    out = Path(os.path.expanduser(out)).absolute()
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent}: make it, or choose another file.")
    atomic_write(out, page.encode())
    tell(printable(f"Comparison: {out}"))
    return out


def short_names(folders: Sequence[Path]) -> list[str]:
    """Each folder's name, with as many of its parents as it takes to tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return [re.sub(r"[^\w ./+-]", "_", name, flags=re.ASCII)[-60:] for name in names]


def _read(path: Path, name: str) -> Report:
    results = read_json(path)
    if not results["metrics"]:
        raise UserError(f"{path} holds no numbers to compare: run 02_linear_eval or 03_ablations.")
    curves: dict[str, list[dict[str, float]]] = {}
    notebook = path.with_name("01_pretrain.ipynb")
    if notebook.is_file():
        for cell in nbformat.reads(notebook.read_text(), 4).cells:
            for output in cell.get("outputs", []):
                shown = output.get("data", {}).get(plots.MIME, {})
                if shown.get("name") == "loss_curve":
                    for row in csv.DictReader(io.StringIO(shown["csv"])):
                        numbers = {key: float(value) for key, value in row.items() if key != "run"}
                        curves.setdefault(row["run"], []).append(numbers)
    return Report(name, results, curves)


def comparison(reports: Sequence[Report]) -> str:
    """The page. What came from the reports is shown as code or as numbers, so that nothing in it is taken for markup."""
    rows, beyond, told = metric_rows(reports)
    first, *others = (report.name for report in reports)
    cells = [
        _text(
            f"# Comparison: {first} and {', '.join(others)}\n\n**What differs between these reports, and by more than "
            "noise?** Every difference is taken from the first report. Its 95 % interval comes from the number of images "
            "and, with several seeds, from the spread over them; since the images are the same, it is rather too wide."
        ),
        _text("## Settings\n\n" + _settings_table(reports)),
        _text("## Numbers\n\n" + rows),
    ]
    same_data = len({report.results.get("dataset", {}).get("sha256") for report in reports}) == 1
    picture = _budget_curves(reports)
    answers = {
        "answer": f"{told} Of all numbers that they share, {beyond}.",
        "numbers": _tiles(reports),
        "spread": plots.uncertainty(_headline(reports[0])[1], _n_test(reports[0]))[1],
        "figure": picture.name if picture else "",
    }
    outputs = [_output({MIME: {"answers": {"comparison": answers}}, "text/plain": ""})]
    if picture:
        cells += [_text("## Test error by number of labels"), _figure(picture)]
    if any(report.curves for report in reports):
        runs = {f"{r.name}, {run}" if len(r.curves) > 1 else r.name: c for r in reports for run, c in r.curves.items()}
        cells += [_text("## Training"), _figure(plots.loss_curve(runs, named=True, name="loss_curves"))]
        missing = [report.name for report in reports if not report.curves]
        cells += [_text(f"Without a curve, since its report lacks 01_pretrain: {', '.join(missing)}.")] if missing else []
    checks = [
        f"- {report.name}: {sum(c['passed'] for c in report.results.get('checks', []))} of "
        f"{len(report.results.get('checks', []))} checks passed, status {_code(report.results['status'])}, made by "
        f"{_code(report.results.get('provenance', {}).get('command', 'an unknown command'))}"
        for report in reports
    ]
    cells += [_text("## Checks and commands\n\n" + "\n".join(checks))]
    cells += [nbformat.v4.new_code_cell("", outputs=outputs)]
    note = "" if same_data else "these reports are not on the same data, so their numbers are not of the same task."
    return render("comparison", nbformat.v4.new_notebook(cells=cells), {}, [], [], note)


def _text(source: str) -> Any:
    return nbformat.v4.new_markdown_cell(source)


def _output(data: dict[str, Any]) -> Any:
    return nbformat.v4.new_output("display_data", data)


def _figure(picture: plots.Picture) -> Any:
    data, metadata = picture._repr_mimebundle_()
    return nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", data, metadata=metadata)])


def _code(value: Any) -> str:
    return "`" + (re.sub(r"[^\w @.,:;()\[\]+/=-]", "_", str(value), flags=re.ASCII)[:120] or " ") + "`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, [":--"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings_table(reports: Sequence[Report]) -> str:
    rows = []
    for part, names in (("settings", None), ("dataset", AS_DATA), ("provenance", AS_MADE)):
        values = [report.results.get(part, {}) for report in reports]
        for name in names or sorted(set().union(*values)):
            own = [json.dumps(value.get(name), sort_keys=True) for value in values]
            if name == "packages":
                kept = [value.get(name, {}) for value in values]
                for package in sorted(set().union(*kept)):
                    versions = [str(packages.get(package, "–")) for packages in kept]
                    rows += [[_code(package), *map(_code, versions)]] if len(set(versions)) > 1 else []
            elif len(set(own)) > 1:
                rows.append([_code(name), *(_code(value.strip('"')) for value in own)])
    if not rows:
        return "No setting, no data, no version differs."
    return _table(["what differs", *(report.name for report in reports)], rows)


def metric_rows(reports: Sequence[Report]) -> tuple[str, str, str]:
    """The table of all metrics that the first report shares with another; how many differ by more than noise, in words;
    and what became of the headline, in a sentence."""
    first, rows, counted, beyond, told = reports[0], [], 0, 0, ""
    headline = _headline(first)[0]
    for name, metric in first.results["metrics"].items():
        if not any(name in other.results["metrics"] for other in reports[1:]):
            continue
        row = [_code(name), format_metric(name, dict(metric))]
        for other in reports[1:]:
            theirs = other.results["metrics"].get(name)
            if theirs is None:
                row += ["–", ""]
                continue
            points, interval = metric_difference(name, first, other)
            counted += interval is not None
            more = interval is not None and abs(points) > interval
            beyond += more
            decimals, unit = PLAIN_UNITS.get(name.split("@")[0], ("", 2))[1], "" if name in PLAIN_UNITS else " points"
            shown = f"{points:+.{decimals}f}"
            spread = f" ± {interval:.{decimals}f}" if interval is not None else " (one seed: no interval)"
            row += [format_metric(name, dict(theirs)), f"**{shown}**{spread}" if more else f"{shown}{spread}"]
            if name == headline:
                verdict = "more than noise" if more else "within noise"
                told += f"{name.partition('@')[2]} labels, {other.name} against {first.name}: {shown}{unit}{spread}, {verdict}. "
        rows.append(row)
    head = ["number", first.name]
    for other in reports[1:]:
        head += [other.name, "difference"]
    several = f"{beyond} of {counted} differ by more than noise (of twenty that do not differ, one would)"
    table = _table(head, rows) if rows else "These reports share no number."
    return table, several, f"With {told.strip()}" if told else "They share no headline number."


def metric_difference(name: str, first: Report, other: Report) -> tuple[float, float | None]:
    """Other less first, and the half width of its 95 % interval; None where one seed tells nothing about a spread."""
    a, b = other.results["metrics"][name], first.results["metrics"][name]
    if name.split("@")[0] in PLAIN_UNITS:
        if min(a["n_seeds"], b["n_seeds"]) < 2:
            return a["mean"] - b["mean"], None
        error = math.hypot(*(metric["std"] / math.sqrt(metric["n_seeds"]) for metric in (a, b)))
        return a["mean"] - b["mean"], 1.96 * error
    part = "validation" if name.startswith("validation") else "test"
    n = min(report.results["dataset"][part] for report in (first, other))
    points, error = difference({"a": a, "b": b}, "a", "b", n)
    return points, 1.96 * error


def _n_test(report: Report) -> int:
    return int(report.results["dataset"]["test"])


def _headline(report: Report) -> tuple[str, Mapping[str, Any]]:
    """The metric that a report leads with, and its name."""
    metrics = report.results["metrics"]
    labels = report.results.get("headline_labels", HEADLINE_LABELS)
    name = f"linear_accuracy@{labels}"
    name = name if name in metrics else next(iter(metrics))
    return name, metrics[name]


def _tiles(reports: Sequence[Report]) -> list[dict[str, str]]:
    tiles = []
    for report in reports[:4]:
        name, metric = _headline(report)
        spread = f"± {plots.uncertainty(metric, _n_test(report))[0]:.2f}" if name not in PLAIN_UNITS else ""
        tiles.append({"value": format_metric(name, dict(metric)).split(" ±")[0].rstrip(" %") + " %", "spread": spread,
                      "what": f"{report.name}: {name.replace('_', ' ').replace('@', ', labels: ')}"})  # fmt: skip
    return tiles


def _budget_curves(reports: Sequence[Report]) -> plots.Picture | None:
    curves: dict[str, tuple[str, Any]] = {}
    budgets: set[int] = set()
    for report in reports:
        own = {int(n) for n in re.findall(r"linear_accuracy@(\d+)", " ".join(report.results["metrics"]))}
        if own:
            curves[report.name] = ("linear", report.results["metrics"])
            budgets |= own
    if not curves:
        return None
    data = {report.results["dataset"]["name"] for report in reports}
    name = data.pop() if len(data) == 1 else "each one's data"
    n_test = min(_n_test(report) for report in reports)
    return plots.label_budget_curve(curves, sorted(budgets), name, n_test, name="label_budget_curves")
