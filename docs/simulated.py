"""What docs/method.md says of two measurements on MNIST: whether intervals hold, and what having been seen is worth."""

from __future__ import annotations

import json

from .markdown import ROOT, table, wrapped

COVERAGE, SEEN = (ROOT / "reports" / "published" / name for name in ("coverage.json", "seen.json"))


def coverage() -> str:
    """How often intervals covered the accuracy on the test images, by number of labels and kind of images."""
    rows = [row for row in json.loads(COVERAGE.read_text())["rows"] if row["others"] == "test"]
    cells = [
        (
            f"{row['labels']:,}, {row['images']}",
            row["judged by"],
            f"{row['covers folds']:.0f} %",
            f"{row['covers all']:.0f} %",
            f"{row['naive, covers all']:.0f} %",
            f"± {row['width'] / 2:.1f}",
        )
        for row in rows
    ]
    head = ("labels, images", "judged by", "covers folds' probe", "covers probe on all", "naive interval", "points")
    said = (
        f"{rows[0]['draws']} draws in each row. The naive interval takes images for independent, and folds for one fit."
    )
    return f"{table(head, cells)}\n\n{wrapped(said)}"


def seen() -> str:
    """What it was worth that images were pretrained on without their labels."""
    row = json.loads(SEEN.read_text())[0]
    return wrapped(
        f"On MNIST that was worth {row['points']:+.2f} points with {row['labels']} labels (95 %: {row['low']:+.2f} to "
        f"{row['high']:+.2f}; five encoders)."
    )
