"""Several reports on one page: what differs in their settings, by how much their numbers differ, curves overlaid."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from ..data import inert
from ..evaluation import Key, format_metric
from ..methods import Logged
from ..settings import METHODS, UserError
from ..storage.files import atomic_write, printable, read_json, tell
from . import pictures, plots, result_plots
from .recording import MIME
from .render import render_page
from .report_differences import Report, ReportDifference, differences, headline, interval_of
from .runner import reports_root, writable_folder
from .verify import results_file

LONGEST = 40  # characters of a name
AS_DATA = ("name", "sha256", "pretrain", "train", "labels", "validation", "test", "judged", "folds", "groups")
OTHER_DATA = "These reports are not on the same data, so their numbers are not of the same task."
AS_MADE = (
    "commit", "dirty", "platform", "device", "threads", "precision", "packages",
)  # fmt: skip


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
    if out.suffix.lower() != ".html" or any(out.parent.samefile(file.parent) for file in files):
        raise UserError(f"--out {out}: choose a name that ends with .html, in another folder than a report's own.")
    writable_folder(out.parent)
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
            "noise?** Differences are from the first report. Their 95 % intervals come from those that the reports "
            "give, else from the spread over seeds and the number of images. What another seed would change is not "
            "known of a number with one seed: as much is counted as an accuracy on as many images as there were labels "
            "varies by."
        ),
        _text("## Settings\n\n" + _settings_table(reports)),
        _text("## Numbers\n\n" + _numbers_table(reports, found)),
    ]
    same_data = len({report.results.get("dataset", {}).get("sha256") for report in reports}) == 1
    picture = _budget_curves(reports)
    answers = {
        "answer": _answer(reports, found) if same_data else OTHER_DATA,
        "numbers": _tiles(reports),
        "spread": "95 % intervals",
        "figure": picture.name if picture else "",
    }
    said = nbformat.v4.new_output("display_data", {MIME: {"answers": {"comparison": answers}}, "text/html": ""})
    if picture:
        cells += [_text("## By number of labels"), _figure(picture)]
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
    note = "" if same_data else OTHER_DATA
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
    name = headline(reports[0])
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


def _tiles(reports: Sequence[Report]) -> list[dict[str, str]]:
    tiles = []
    for report in reports[:4]:
        name = headline(report)
        value = format_metric(name, {**report.results["metrics"][name], "n_seeds": 1})
        ends = interval_of(report, name)
        spread = f"{ends['low']:.1f} to {ends['high']:.1f}" if Key.parse(name).kind.spread == "share" else ""
        tiles.append({"value": value, "spread": spread, "what": f"{report.name}: {_words(name)}"})
    return tiles


def _budget_curves(reports: Sequence[Report]) -> pictures.Picture | None:
    """The linear probe's curves, by the metric that the first report leads with."""
    metric = Key.parse(headline(reports[0])).metric
    curves: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for report in reports:
        keys = (Key.parse(name) for name in report.results["metrics"])
        own = sorted(
            key.labels for key in keys if (key.arm, key.metric, key.subset) == ("linear", metric, "") and key.labels
        )
        if own:
            curves[report.name] = [(n, interval_of(report, str(Key(metric, "linear", n)))) for n in own]
    if not curves:
        return None
    data = {report.results["dataset"]["name"] for report in reports}
    name = data.pop() if len(data) == 1 else "each one's data"
    return result_plots.compared_curves(curves, metric, name, name="label_budget_curves")
