"""The index of all reports: a table to sort and to filter, each row with a small picture of its curve."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from ..evaluation import Key, better_from_scratch, format_metric
from ..evaluation.arms import with_role
from ..storage.files import atomic_write, locked, printable, read_json
from .render import TEMPLATES, content_policy, template

WIDTH, HEIGHT, EDGE = 96, 40, 4  # of the picture, in pixels


def write_index(root: Path) -> Path:
    """Write `index.html` of all reports in the folder `root` and in the folders directly below it; newest first."""
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / "index.html", "writing it"):  # from the look at the folders on, or two would lose an entry
        rows = [_row(root, path) for path in [*root.glob("*/results.json"), *root.glob("*/*/results.json")]]
        rows.sort(key=lambda row: row["name"])
        rows.sort(key=lambda row: row["made"], reverse=True)
        atomic_write(root / "index.html", index_page(rows).encode())
    return root / "index.html"


def index_page(rows: Sequence[dict[str, Any]]) -> str:
    """The page of these rows."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    scripts = {"script": template("page.js"), "index_script": template("index.js")}
    return environment.get_template("reports.html.j2").render(
        rows=rows,
        statuses=sorted({row["status"] for row in rows}),
        datasets=sorted({row["dataset"]["text"] for row in rows if row["status"] != "damaged"}),
        style=template("style.css") + template("index.css"),
        policy=content_policy(*scripts.values()),
        **scripts,
    )


def _row(root: Path, path: Path) -> dict[str, Any]:
    folder = path.parent.relative_to(root)
    # Names of files need not be text.
    shown = {"name": printable(folder.as_posix()), "link": quote(os.fsencode(folder.as_posix())), "made": ""}
    try:
        return shown | _cells(path.parent, read_json(path))
    except Exception:  # whatever a stranger's file can bring about; the other rows are not to suffer
        return shown | {"status": "damaged", "pages": [], "dataset": cell("")}


def _cells(folder: Path, results: dict[str, Any]) -> dict[str, Any]:
    headline = results.get("headline_labels")
    metrics, settings = results.get("metrics", {}), results["settings"]

    metric = results.get("headline_metric", "accuracy")

    def result(arm: str) -> dict[str, str]:
        name = str(Key(metric, arm, headline))
        if name not in metrics:
            return cell("–", -1)
        return cell(
            format_metric(name, {**metrics[name], "n_seeds": 1}), metrics[name]["mean"]
        )  # its page has the spread

    pages = [f"{stem}.html" for stem in results["notebooks"] if re.fullmatch(r"\w{1,80}", stem, re.ASCII)]
    answers = results.get("answers", {})
    main = next((s for s in ("02_linear_eval", *answers) if s in answers), "")
    spent = results["seconds"]  # runs that were there already took their time, too
    minutes = max(spent["total"], spent.get("pretrain", 0) + spent.get("evaluate", 0)) / 60
    return {
        "status": cell(results["status"])["text"],
        "made": cell(results.get("provenance", {}).get("end", ""))["text"],
        "dataset": cell(results.get("dataset", {}).get("name", "–")),
        "method": cell(f"{settings.get('method', '–')}, {settings.get('encoder', '–')}"),
        "n_images": cell(f"{settings['n_images']:,}", settings["n_images"]),
        "epochs": cell(f"{settings['epochs']:,}", settings["epochs"]),
        "labels": cell(f"{headline:,}", headline) if headline else cell("–", -1),
        "linear": result("linear"),
        "random": result("random_encoder"),
        "supervised": result(better_from_scratch(metrics, headline, metric)) if headline else cell("–", -1),
        "minutes": cell(f"{minutes:.1f}", minutes),
        "answer": printable(" ".join(answers[main]["answer"].split()))[:400] if main else "",
        "curves": sparkline(metrics),
        "pages": [page for page in pages if (folder / page).is_file()],
    }


def cell(text: Any, value: float | None = None) -> dict[str, str]:
    """A table cell: what it shows, and by what it is sorted."""
    shown = printable(str(text))[:80]
    return {"text": shown, "sort": shown.lower() if value is None else f"{float(value):g}"}


def sparkline(metrics: dict[str, Any]) -> dict[str, str]:
    """Label-budget curves as the `points` of SVG polylines, on the figure's logarithmic axes."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for arm in with_role("index")[::-1]:  # the first on top
        keys = [key for name in metrics if (key := Key.parse(name)) == Key("accuracy", arm, key.labels)]
        budgets = sorted(key.labels for key in keys if key.labels is not None)
        errors = [max(100 - metrics[str(Key("accuracy", arm, n))]["mean"], 0.01) for n in budgets]
        curves[arm] = [(math.log(n), math.log(error)) for n, error in zip(budgets, errors, strict=True)]
    points = [point for curve in curves.values() for point in curve]
    if len({labels for labels, _ in points}) < 2:
        return {}
    low, high = ([pick(values) for values in zip(*points, strict=True)] for pick in (min, max))

    def place(point: tuple[float, float], axis: int, size: int) -> float:
        share = (point[axis] - low[axis]) / max(high[axis] - low[axis], 1e-9)
        return EDGE + (share if axis == 0 else 1 - share) * (size - 2 * EDGE)

    return {
        arm: " ".join(f"{place(p, 0, WIDTH):.1f},{place(p, 1, HEIGHT):.1f}" for p in curve)
        for arm, curve in curves.items()
    }
