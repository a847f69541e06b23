"""README's results, from a published report: `make readme`. Nothing in that part is typed by hand."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import nbformat

from ..files import read_json
from ..settings import checkout
from .speed import conditions, goal_conditions, speed_table
from .tables import results_table, savings

ROOT = checkout() or Path.cwd()
PUBLISHED = ROOT / "reports" / "published" / "mnist-quick"
PICTURE = PUBLISHED / "label_budget_curve.png"
BEGIN, END = "<!-- results: made by `make readme` -->", "<!-- end of results -->"
BENCHMARKS = ROOT / "reports" / "published" / "benchmarks.json"
BEGIN_SPEED, END_SPEED = "<!-- speed: made by `make readme` -->", "<!-- end of speed -->"


def generated(results: dict[str, Any]) -> str:
    """The part of README between the two markers."""
    settings, metrics, data, made = (results[key] for key in ("settings", "metrics", "dataset", "provenance"))
    budgets, seconds = settings["budgets"], results["seconds"]
    few = min(budgets)
    pages = ", ".join(f"[{p.stem}]({p.relative_to(ROOT).as_posix()})" for p in sorted(PUBLISHED.glob("*.html")))
    name, n_seeds = data["name"].upper(), metrics["knn_accuracy"]["n_seeds"]
    return f"""\
![Test error against number of labels]({PICTURE.relative_to(ROOT).as_posix()})

{results_table(metrics, budgets, data["train"], name)}

Test accuracy after pretraining on {settings["n_images"]:,} unlabelled images of {name} for {settings["epochs"]} epochs:
{seconds["pretrain"]:.0f} s of the report's {seconds["total"] / 60:.1f} minutes, on {made["threads"]} threads,
{made["precision"]}, {n_seeds} seed{"s" if n_seeds > 1 else ""}. kNN on the same features:
{metrics["knn_accuracy"]["mean"]:.2f} %. "Random initialisation" has two readings, and both are here: a frozen random
encoder under the same linear classifier, and the same network trained from scratch, with the same augmentations.

{savings(metrics, budgets, few)}

The reports: {pages}; numbers: [results.json]({(PUBLISHED / "results.json").relative_to(ROOT).as_posix()})."""


def generated_speed(measured: dict[str, Any]) -> str:
    """The part of README between the two markers of speed."""
    page, numbers = (path.relative_to(ROOT).as_posix() for path in (BENCHMARKS.with_suffix(".html"), BENCHMARKS))
    return f"""\
{speed_table(measured)}

Unlabelled images per second of pretraining; seconds of pretraining until a linear probe with
{measured["goal"]["n_labels"]:,} labels gets there; milliseconds (extra MiB) for NT-Xent and its gradient on N images.
{conditions(measured)} {goal_conditions(measured["goal"])}
All arms train the same layers; only ratios within one run mean anything. The report: [benchmarks]({page}); numbers:
[benchmarks.json]({numbers})."""


def picture(notebook: Any) -> bytes:
    """The label-budget curve, as PNG, from the executed notebook 02."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "label_budget_curve" in cell.source and "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise ValueError("the notebook shows no label-budget curve")


def _between(text: str, begin: str, end: str, new: str) -> str:
    return f"{text[: text.index(begin) + len(begin)]}\n{new}\n{text[text.index(end) :]}"


def main() -> int:
    """Rewrite README's results, its picture and its measurements."""
    results = read_json(PUBLISHED / "results.json")
    PICTURE.write_bytes(picture(nbformat.read(PUBLISHED / "02_linear_eval.ipynb", as_version=4)))
    readme = ROOT / "README.md"
    text = _between(readme.read_text(), BEGIN, END, generated(results))
    measured = json.loads(BENCHMARKS.read_text())
    readme.write_text(_between(text, BEGIN_SPEED, END_SPEED, generated_speed(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
