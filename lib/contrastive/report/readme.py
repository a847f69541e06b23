"""README's results, from a published report: `make readme`. Nothing in that part is typed by hand."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import nbformat

from ..settings import checkout
from .tables import results_table, savings

ROOT = checkout() or Path.cwd()
PUBLISHED = ROOT / "reports" / "published" / "mnist-quick"
PICTURE = PUBLISHED / "label_budget_curve.png"
BEGIN, END = "<!-- results: made by `make readme` -->", "<!-- end of results -->"


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


def picture(notebook: Any) -> bytes:
    """The label-budget curve, as PNG, from the executed notebook 02."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "label_budget_curve" in cell.source and "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    raise ValueError("the notebook shows no label-budget curve")


def main() -> int:
    """Rewrite README's results and picture."""
    results = json.loads((PUBLISHED / "results.json").read_text())
    PICTURE.write_bytes(picture(nbformat.read(PUBLISHED / "02_linear_eval.ipynb", as_version=4)))
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    readme.write_text(f"{before}\n{generated(results)}\n{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
