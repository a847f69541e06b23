"""Several reports on one page: what differs in their settings, by how much their numbers differ, curves overlaid."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from ..data import inert
from ..evaluation import Key, format_metric
from ..evaluation.statistics import standard_error, uncertainty
from ..methods import Logged
from ..settings import METHODS, UserError
from ..storage.files import atomic_write, printable, read_json, tell
from . import pictures, plots, result_plots
from .recording import MIME
from .render import render_page
from .runner import reports_root, writable_folder
from .verify import measured_on, results_file

LONGEST = 40  # characters of a name
AS_DATA = ("name", "sha256", "pretrain", "train", "validation", "test")
AS_MADE = (
    "commit", "dirty", "platform", "device", "threads", "precision", "packages",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """A report that is compared: its name here, its results, and its training curves, run -> epochs, if it has them."""

    name: str
    results: Mapping[str, Any]
    curves: Mapping[str, list[dict[str, float]]]


def write_comparison(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Compare reports (folders, or files in them) with the first one, on one page, `reports/comparison.html` unless
    said otherwise. Raises: UserError."""
    if len(paths) < 2:
        raise UserError("name at least two reports to compare.")
    files = [results_file(path) for path in paths]
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("a report is named twice: name different ones.")
    names = short_names([file.absolute().parent for file in files])
    try:
        page = comparison_page([_read(file, name) for file, name in zip(files, names, strict=True)]).encode()
    except UserError:
        raise
    except Exception as error:  # whatever a stranger's file can bring about
        why = type(error).__name__
        raise UserError(f"one of these reports holds what cannot be compared ({why}).") from None
    out = Path(os.path.expanduser(out)).absolute() if out else writable_folder(reports_root()) / "comparison.html"
    if not os.path.isdir(out.parent):
        raise UserError(f"there is no folder {out.parent}: make it, or choose another file.")
    atomic_write(out, page)
    tell(printable(f"Comparison: {out}"))
    return out


def short_names(folders: Sequence[Path]) -> list[str]:
    """Each folder's name, inert, with as many of its parents as it takes to tell them apart, or else a number."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [inert("/".join(folder.parts[-depth:])) for folder in folders]
        if len(set(names)) == len(names):
            break
    names = [name if len(name) <= LONGEST else f"{name[:20]}...{name[23 - LONGEST :]}" for name in names]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _read(path: Path, name: str) -> Report:
    results = read_json(path)
    if not results.get("metrics"):
        raise UserError(f"{path} holds no numbers to compare: run its notebooks to their ends.")
    return Report(name, results, training_curves(results))


def training_curves(results: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Run -> epochs, from a report's history, with names that are inert. Raises what a broken one causes."""
    return {
        inert(run)[:LONGEST]: [{key: float(value) for key, value in epoch.items()} for epoch in epochs]
        for run, epochs in results.get("history", {}).items()
        if epochs
    }


def _logged(reports: Sequence[Report]) -> tuple[str, Logged] | None:
    """What all of them logged beside the loss, if it is the same."""
    methods = {str(report.results["settings"].get("method")) for report in reports if report.curves}
    name = methods.pop() if len(methods) == 1 else ""
    return next(iter(METHODS[name].LOG.items()), None) if name in METHODS else None


def comparison_page(reports: Sequence[Report]) -> str:
    """The page. What came from the reports is shown as code or as numbers, so none of it is taken for markup."""
    found = [differences(reports[0], other) for other in reports[1:]]
    first, *others = (report.name for report in reports)
    cells = [
        _text(
            f"# Comparison: {first} and {', '.join(others)}\n\n**What differs between these reports, and by more than "
            "noise?** Differences are from the first report. Their 95 % intervals come from the spread over "
            "seeds and the number of images. Of a number with one seed, the spread is taken to be that of an accuracy "
            "on as many images as there were labels."
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
    said = nbformat.v4.new_output("display_data", {MIME: {"answers": {"comparison": answers}}, "text/html": ""})
    if picture:
        cells += [_text("## Error by number of labels"), _figure(picture)]
    if any(report.curves for report in reports):
        runs = {f"{r.name}, {run}" if len(r.curves) > 1 else r.name: c for r in reports for run, c in r.curves.items()}
        cells += [
            _text("## Training"),
            _figure(plots.loss_curve(runs, _logged(reports), named=True, name="loss_curves")),
        ]
        if missing := [report.name for report in reports if not report.curves]:
            cells.append(_text(f"Without a history of their training: {', '.join(missing)}."))
    checks = [
        f"- {report.name}: {sum(c['passed'] for c in report.results.get('checks', []))} of "
        f"{len(report.results.get('checks', []))} checks passed, status {_code(report.results['status'])}, made by "
        f"{_code(report.results.get('provenance', {}).get('command', 'an unknown command'))}"
        for report in reports
    ]
    cells += [_text("## Checks and commands\n\n" + "\n".join(checks)), nbformat.v4.new_code_cell("", outputs=[said])]
    note = "" if same_data else "these reports are not on the same data, so their numbers are not of the same task."
    return render_page("comparison", nbformat.v4.new_notebook(cells=cells), {}, [], [], note)


def _text(source: str) -> Any:
    return nbformat.v4.new_markdown_cell(source)


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
class ReportDifference:
    """How far a metric is from the first report's: in its unit, with the half width of the 95 % interval, or None."""

    name: str
    value: float
    interval: float | None

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and abs(self.value) > self.interval

    def __str__(self) -> str:
        decimals = Key.parse(self.name).kind.decimals
        spread = "(1 seed)" if self.interval is None else f"± {self.interval:.{decimals}f}"
        return f"{self.value:+.{decimals}f} {spread}"


def differences(first: Report, other: Report) -> dict[str, ReportDifference]:
    """Other less first, for each metric that both have."""
    found = {}
    for name, ours in first.results["metrics"].items():
        theirs = other.results["metrics"].get(name)
        if theirs is not None:
            sides = [(first.results, ours), (other.results, theirs)]
            found[name] = ReportDifference(name, theirs["mean"] - ours["mean"], interval_95(name, sides))
    return found


def interval_95(name: str, sides: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float | None:
    """Half the width of the 95 % interval of the difference of a metric's two means, from (results, metric) of each.

    By Student's t with Welch's degrees of freedom, for the spread over few seeds is not well known. With one seed, an
    accuracy's spread is taken as `verify` takes it; of what is no accuracy, nothing is known: None.
    """
    from scipy.stats import t

    fixed, over_seeds = 0.0, []
    for results, metric in sides:
        n_images, n_labels = measured_on(name, results)
        several, share = metric["n_seeds"] > 1, Key.parse(name).kind.spread == "share"
        if several:
            over_seeds.append((metric["std"] ** 2 / metric["n_seeds"], metric["n_seeds"] - 1))
        elif not share:
            return None
        if share:
            fixed += standard_error(metric["mean"], n_images) ** 2
            fixed += standard_error(metric["mean"], n_labels) ** 2 if n_labels and not several else 0.0
    total = fixed + sum(variance for variance, _ in over_seeds)
    unsure = sum(variance**2 / freedom for variance, freedom in over_seeds)
    return float(t.ppf(0.975, total**2 / unsure) if unsure else 1.96) * total**0.5


def _numbers_table(reports: Sequence[Report], found: Sequence[Mapping[str, ReportDifference]]) -> str:
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


def _answer(reports: Sequence[Report], found: Sequence[Mapping[str, ReportDifference]]) -> str:
    name, _ = _headline(reports[0])
    parts = [
        f"{other.name} {own[name]} ({'more than noise' if own[name].beyond_noise else 'within noise'})"
        for other, own in zip(reports[1:], found, strict=True)
        if name in own
    ]
    unit = ", in points" if Key.parse(name).kind.unit == "%" else ""
    first = f"{_words(name)}, against {reports[0].name}{unit}: {'; '.join(parts)}. " if parts else ""
    judged = [d for own in found for d in own.values() if d.interval is not None and d.value != 0]
    beyond = sum(d.beyond_noise for d in judged)
    return f"{first}Of the {len(judged)} numbers that differ and can be judged, {beyond} differ by more than noise."


def _words(name: str) -> str:
    """A metric's name as words: `linear_accuracy@600` as `Linear accuracy, 600 labels`."""
    key = Key.parse(name)
    what = " ".join(filter(None, (key.arm, key.metric, key.subset))).replace("_", " ").capitalize()
    return inert(what) + (f", {key.labels:,} labels" if key.labels is not None else "")


def _n_test(report: Report) -> int:
    return int(report.results["dataset"].get("judged", report.results["dataset"]["test"]))


def _headline(report: Report) -> tuple[str, Mapping[str, Any]]:
    """The metric that a report leads with, and its name."""
    metrics = report.results["metrics"]
    name = str(Key("accuracy", "linear", report.results.get("headline_labels")))
    name = name if name in metrics else next(iter(metrics))
    return name, metrics[name]


def _tiles(reports: Sequence[Report]) -> list[dict[str, str]]:
    tiles = []
    for report in reports[:4]:
        name, metric = _headline(report)
        value = format_metric(name, {**metric, "n_seeds": 1})
        share = Key.parse(name).kind.spread == "share"
        spread = f"± {uncertainty(metric, _n_test(report))[0]:.2f}" if share else ""
        tiles.append({"value": value, "spread": spread, "what": f"{report.name}: {_words(name)}"})
    return tiles


def _budget_curves(reports: Sequence[Report]) -> pictures.Picture | None:
    curves: dict[str, tuple[str, Any, int]] = {}
    budgets: set[int] = set()
    for report in reports:
        keys = [Key.parse(name) for name in report.results["metrics"]]
        own = {key.labels for key in keys if key.arm == "linear" and key.labels is not None}
        if own:
            curves[report.name] = ("linear", report.results["metrics"], _n_test(report))
            budgets |= own
    if not curves:
        return None
    data = {report.results["dataset"]["name"] for report in reports}
    name = data.pop() if len(data) == 1 else "each one's data"
    return result_plots.label_budget_curve(curves, sorted(budgets), name, name="label_budget_curves")
