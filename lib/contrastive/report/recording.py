"""Numbers in a notebook's output: readable for people, and as JSON for the runner to collect."""

import html
import json
from collections.abc import Sequence
from typing import Any

from IPython.display import display

from ..evaluation import format_metric

MIME = "application/vnd.contrastive.results+json"

LONG = 30  # metrics that are shown without being asked for
# Parts that are too long to be shown at once -> what unfolds them
FOLDED = {
    "settings": "All settings of this run",
    "comparisons": "All differences, in points, with their 95 % intervals and p-values",
    "savings": "All numbers of labels that the network needs from scratch, with their 95 % intervals",
    "savings_by_arm": "The same for each way",
    "intervals": "All results with their 95 % intervals, in percent",
    "costs": "Seconds that each way took",
    "history": "What training logged, epoch by epoch",
    "table": "Every single measurement",
}


def record(**fragment: Any) -> None:
    """Show a part of the report's results (settings, dataset, metrics, seconds, checks, provenance) below the cell.

    The same part goes into the cell's output as JSON, from which the runner puts `results.json` together; so the
    file holds what the page shows, also when the notebook was run by hand.
    """
    fragment = json.loads(json.dumps(fragment, allow_nan=False))  # fails here and now when something in it is no JSON
    display({MIME: fragment, "text/html": _as_html(fragment), "text/plain": _as_text(fragment)}, raw=True)


def conclude(
    notebook: str,
    answer: str,
    numbers: Sequence[tuple[str, str, str]],
    spread: str = "",
    figure: str = "",
    data: str = "",
    trained: str = "",
) -> None:
    """Show and record a notebook's answer, of which its page's first screen is made.

    answer: one or two plain sentences. numbers: the few that carry it, as (value, its spread or "", what it is).
    spread: what the spreads are, in words. figure: name of the picture, shown in this notebook, that says most. data,
    trained: what was used and how it was trained, where it is not what the settings say.
    """
    tiles = [dict(zip(("value", "spread", "what"), number, strict=True)) for number in numbers]
    said = {"answer": answer, "numbers": tiles, "spread": spread, "figure": figure, "data": data, "trained": trained}
    record(answers={notebook: said})


def collect(notebook: Any) -> dict[str, Any]:
    """Everything that `record` put into the outputs of a notebook: dicts merged, lists joined, in order."""
    merged: dict[str, Any] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            merge(merged, output.get("data", {}).get(MIME, {}))
    return merged


def merge(into: dict[str, Any], fragment: dict[str, Any]) -> None:
    """Merge a fragment of results into another, in place."""
    for key, value in fragment.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key].update(value)
        elif isinstance(value, list) and isinstance(into.get(key), list):
            into[key] += [item for item in value if item not in into[key]]
        else:
            into[key] = value


def _rows(fragment: dict[str, Any]) -> list[tuple[str, str, list[tuple[str, ...]]]]:
    """Sections of a fragment: each one's kind, caption and rows."""
    sections = []
    rows: list[tuple[str, ...]]
    for key, value in fragment.items():
        caption = key
        if key == "metrics":
            rows = [(name, format_metric(name, metric)) for name, metric in value.items()]
        elif key == "answers":
            (said,) = value.values()
            rows = [(f"{n['value']} {n['spread']}".strip(), n["what"]) for n in said["numbers"]]
            caption = said["answer"]
        elif key == "checks":
            rows = [
                ("passed" if c["passed"] else "FAILED", c["name"], f"seen: {c['seen']}", f"expected: {c['expected']}")
                for c in value
            ]
        elif key == "history":
            rows = [(run, f"{len(epochs):,} epochs, in results.json") for run, epochs in value.items()]
        elif key == "table":
            rows = [("rows", f"{len(value['rows']):,}, in results.json")]
        elif isinstance(value, dict):
            rows = [(name.replace("_", " "), _plain(item)) for name, item in value.items()]
        else:
            rows, caption = [(key.replace("_", " "), _plain(value))], ""
        sections.append((key, caption, rows))
    return sections


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, dict):
        words = (f"{k} {'< 0.001' if k == 'p' and v < 0.001 else _plain(v)}" for k, v in value.items())
        return ", ".join(words) or "none"
    if isinstance(value, list):
        return ", ".join(_plain(v) for v in value)
    return str(value)


def _as_text(fragment: dict[str, Any]) -> str:
    lines = []
    for _, caption, rows in _rows(fragment):
        lines.append(caption)
        lines += ["  " + "  ".join(row) for row in rows]
    return "\n".join(lines)


def _as_html(fragment: dict[str, Any]) -> str:
    parts = []
    for kind, caption, rows in _rows(fragment):
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
        above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        table = f'<table class="record {html.escape(kind)}">{above}<tbody>{body}</tbody></table>'
        summary = f"All {len(rows)} metrics" if kind == "metrics" and len(rows) > LONG else FOLDED.get(kind)
        if summary:
            table = f"<details><summary>{summary}</summary>{table}</details>"
        parts.append(table)
    return "".join(parts)


def _cells(row: tuple[str, ...]) -> str:
    first, *others = map(html.escape, row)
    copied = " data-copy" if first == "command" else ""  # the page puts a button there
    return f'<th scope="row">{first}</th>' + "".join(f"<td{copied}>{cell}</td>" for cell in others)
