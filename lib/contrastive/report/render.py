"""Executed notebooks -> HTML that needs nothing from outside; and the index of all reports."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import nbformat
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from ..files import atomic_write, locked, printable, read_json
from .record import collect, format_metric

TEMPLATES = Path(__file__).with_name("templates")
# What a page may do, whatever got into it: show its own text, styles and pictures. No script, no request.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(
    stem: str, notebook: Any, results: dict[str, Any], errors: list[dict[str, str]], siblings: list[str], note: str = ""
) -> str:
    """One executed notebook as an HTML page with a banner for what went wrong and for which data were used."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # stderr holds library chatter; what a reader must know is in banner and checks
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        else:
            cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb\)", r"](\1.html)", cell.source)
    exporter = HTMLExporter(template_name="contrastive", extra_template_basedirs=[str(TEMPLATES)])
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    own = collect(notebook)
    failed = [c for c in results.get("checks", []) if not c["passed"]]
    page, _ = exporter.from_notebook_node(
        notebook,
        resources={
            "policy": POLICY,
            "style": (TEMPLATES / "style.css").read_text(),
            "page_title": page_title(notebook) or stem,
            "stem": stem,
            "siblings": siblings,
            "errors": errors,
            "failed_checks": failed,
            "note": note,
            "code_changed": own.get("provenance", {}).get("training_code_changed_since_run"),
        },
    )
    return page


def page_title(notebook: Any) -> str:
    """The first heading of a notebook, without markup."""
    for cell in notebook.cells:
        for line in cell.source.splitlines():
            if cell.cell_type == "markdown" and line.startswith("# "):
                return line[2:].strip()
    return ""


def write_index(root: Path) -> Path:
    """Write `index.html` of all reports in the folder `root` and in the folders directly below it; newest first."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / "index.html", "writing it"):  # from the look at the folders on, or two would lose an entry
        rows = []
        for path in sorted([*root.glob("*/results.json"), *root.glob("*/*/results.json")], key=_time, reverse=True):
            folder = path.parent.relative_to(root)
            try:
                row = _index_row(path.parent, read_json(path))
            except Exception:  # whatever a stranger's file can bring about; the other rows are not to suffer
                row = {"status": "damaged", "pages": []}
            link = quote(os.fsencode(folder.as_posix()))  # names of files need not be text
            rows.append({"link": link, "name": printable(folder.as_posix()), **row})
        environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
        style = (TEMPLATES / "style.css").read_text()
        page = environment.get_template("reports.html.j2").render(rows=rows, style=style, policy=POLICY)
        atomic_write(root / "index.html", page.encode())
    return root / "index.html"


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # just removed
        return 0.0


def _index_row(folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    headline = results.get("headline_labels")
    metrics = results.get("metrics", {})

    def value(prefix: str) -> str:
        name = f"{prefix}_accuracy@{headline}"
        return format_metric(name, metrics[name]) if name in metrics else "–"

    row = {
        "status": results["status"],
        "dataset": results.get("dataset", {}).get("name", "–"),
        "n_images": results["settings"]["n_images"],
        "epochs": results["settings"]["epochs"],
        "labels": f"{headline:,}" if headline else "–",
        "linear": value("linear"),
        "random": value("random_encoder"),
        "supervised": value("supervised"),
        "minutes": f"{results['seconds']['total'] / 60:.1f}",
    }
    pages = [f"{stem}.html" for stem in results["notebooks"] if re.fullmatch(r"\w{1,80}", stem, re.ASCII)]
    shown = {name: printable(str(value))[:80] for name, value in row.items()}
    return {**shown, "pages": [page for page in pages if (folder / page).is_file()]}
