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

from .. import pictures, plots
from ..evaluate import HEADLINE_LABELS, uncertainty
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
        raise UserError(
            f"one of these reports holds numbers that cannot be compared ({type(error).__name__})."
        ) from None
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
                shown = output.get("data", {}).get(pictures.MIME, {})
                if shown.get("name") == "loss_curve":
                    for row in csv.DictReader(io.StringIO(shown["csv"])):
                        numbers = {key: float(value) for key, value in row.items() if key != "run"}
                        curves.setdefault(row["run"], []).append(numbers)
    return Report(name, results, curves)


def comparison(reports: Sequence[Report]) -> str:
    """The page. What came from the reports is shown as code or as numbers, so none of it is taken for markup."""
    found = [differences(reports[0], other) for other in reports[1:]]
    first, *others = (report.name for report in reports)
    cells = [
        _text(
            f"# Comparison: {first} and {', '.join(others)}\n\n**What differs between these reports, and by more than "
            "noise?** Differences are from the first report. Their 95 % intervals come from the number of images "
            "and, with several seeds, from the spread over them; as the images are the same, they are rather "
            "too wide."
        ),
        _text("## Settings\n\n" + _settings_table(reports)),
        _text("## Numbers\n\n" + _numbers_table(reports, found)),
    ]
    same_data = len({report.results.get("dataset", {}).get("sha256") for report in reports}) == 1
    picture = _budget_curves(reports)
    answers = {
        "answer": _answer(reports, found),
        "numbers": _tiles(reports),
        "spread": uncertainty(_headline(reports[0])[1], _n_test(reports[0]))[1],
        "figure": picture.name if picture else "",
    }
    outputs = [_output({MIME: {"answers": {"comparison": answers}}, "text/html": ""})]
    if picture:
        cells += [_text("## Test error by number of labels"), _figure(picture)]
    if any(report.curves for report in reports):
        runs = {f"{r.name}, {run}" if len(r.curves) > 1 else r.name: c for r in reports for run, c in r.curves.items()}
        cells += [_text("## Training"), _figure(plots.loss_curve(runs, named=True, name="loss_curves"))]
        if missing := [report.name for report in reports if not report.curves]:
            cells.append(_text(f"Without numbers of a curve in an own 01_pretrain: {', '.join(missing)}."))
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


def _figure(picture: pictures.Picture) -> Any:
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
            own = [json.dumps(value.get(name), sort_keys=True).strip('"') for value in values]
            if name == "packages":
                kept = [value.get(name, {}) for value in values]
                for package in sorted(set().union(*kept)):
                    versions = [str(packages.get(package, "–")) for packages in kept]
                    rows += [[_code(package), *map(_code, versions)]] if len(set(versions)) > 1 else []
            elif len(set(own)) > 1:
                rows.append(
                    [_code(name), *(_code(value[:12] if name in ("sha256", "commit") else value) for value in own)]
                )
    if not rows:
        return "No setting, no data, no version differs."
    return _table(["what differs", *(report.name for report in reports)], rows)


@dataclass(frozen=True)
class Difference:
    """How far a metric is from the first report's: in its unit, with the half width of the 95 % interval, or None."""

    name: str
    value: float
    interval: float | None

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and abs(self.value) > self.interval

    def __str__(self) -> str:
        decimals = PLAIN_UNITS.get(self.name.split("@")[0], ("", 2))[1]
        spread = "(1 seed)" if self.interval is None else f"± {self.interval:.{decimals}f}"
        return f"{self.value:+.{decimals}f} {spread}"


def differences(first: Report, other: Report) -> dict[str, Difference]:
    """Other less first, for each metric that both have."""
    found = {}
    for name, ours in first.results["metrics"].items():
        theirs = other.results["metrics"].get(name)
        if theirs is None:
            continue
        if name.split("@")[0] in PLAIN_UNITS:  # where one seed tells nothing about the spread
            value, several = theirs["mean"] - ours["mean"], min(theirs["n_seeds"], ours["n_seeds"]) > 1
            error = math.hypot(*(m["std"] / math.sqrt(m["n_seeds"]) for m in (theirs, ours))) if several else None
        else:
            part = "validation" if name.startswith("validation") else "test"
            n = min(int(report.results["dataset"][part]) for report in (first, other))
            value, error = difference({"theirs": theirs, "ours": ours}, "theirs", "ours", n)
        found[name] = Difference(name, value, None if error is None else 1.96 * error)
    return found


def _numbers_table(reports: Sequence[Report], found: Sequence[Mapping[str, Difference]]) -> str:
    head, rows = ["number", reports[0].name], []
    for other in reports[1:]:
        head += [other.name, "difference"]
    for name, metric in reports[0].results["metrics"].items():
        row = [_code(name), format_metric(name, dict(metric))]
        for other, own in zip(reports[1:], found, strict=True):
            shown = f"**{own[name]}**" if name in own and own[name].beyond_noise else str(own.get(name, ""))
            row += [format_metric(name, dict(other.results["metrics"][name])) if name in own else "–", shown]
        rows += [row] if any(name in own for own in found) else []
    return _table(head, rows) if rows else "These reports share no number."


def _answer(reports: Sequence[Report], found: Sequence[Mapping[str, Difference]]) -> str:
    name, _ = _headline(reports[0])
    parts = [
        f"{other.name} {own[name]} ({'more than noise' if own[name].beyond_noise else 'within noise'})"
        for other, own in zip(reports[1:], found, strict=True)
        if name in own
    ]
    unit = "" if name.split("@")[0] in PLAIN_UNITS else ", in points"
    first = f"{_words(name)}, against {reports[0].name}{unit}: {'; '.join(parts)}. " if parts else ""
    several = [d for own in found for d in own.values() if d.interval is not None]
    return (
        f"{first}Of the {len(several)} differences that can be judged, {sum(d.beyond_noise for d in several)} are more "
        "than noise; of twenty that are none, one would seem so."
    )


def _words(name: str) -> str:
    """A metric's name as words: `linear_accuracy@600` as `Linear accuracy, 600 labels`."""
    what, at, labels = name.partition("@")
    return f"{what.replace('_', ' ').capitalize()}" + (f", {int(labels):,} labels" if at else "")


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
        value = format_metric(name, {**metric, "n_seeds": 1})
        spread = "" if name in PLAIN_UNITS else f"± {uncertainty(metric, _n_test(report))[0]:.2f}"
        tiles.append({"value": value, "spread": spread, "what": f"{report.name}: {_words(name)}"})
    return tiles


def _budget_curves(reports: Sequence[Report]) -> pictures.Picture | None:
    curves: dict[str, tuple[str, Any, int]] = {}
    budgets: set[int] = set()
    for report in reports:
        own = {int(n) for n in re.findall(r"linear_accuracy@(\d+)", " ".join(report.results["metrics"]))}
        if own:
            curves[report.name] = ("linear", report.results["metrics"], _n_test(report))
            budgets |= own
    if not curves:
        return None
    data = {report.results["dataset"]["name"] for report in reports}
    name = data.pop() if len(data) == 1 else "each one's data"
    return plots.label_budget_curve(curves, sorted(budgets), name, name="label_budget_curves")
