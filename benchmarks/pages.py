"""How soon pages show something, opened from disk in the system's Chromium: `python -m benchmarks.pages`.

For each published page, and for an index of 500 reports, the median and the largest time to the first contentful paint
of several openings, each in a window of its own.
"""

from __future__ import annotations

import copy
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from docs.generate import PUBLISHED, browser_path

from contrastive.report.index import write_index
from contrastive.storage.files import read_json, write_json

OPENINGS, REPORTS = 9, 500
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def index_of_many(folder: Path) -> Path:
    """An index of as many reports as REPORTS, each with other numbers."""
    published = read_json(PUBLISHED / "results.json")
    for i in range(REPORTS):
        results = copy.deepcopy(published)
        for metric in results["metrics"].values():
            metric["mean"] *= 1 - i / 10_000
        (folder / f"run-{i}").mkdir()
        write_json(folder / f"run-{i}" / "results.json", results)
        shutil.copy(PUBLISHED / "02_linear_eval.html", folder / f"run-{i}")  # so that it is linked
    return write_index(folder)


def first_paints(page: Path) -> list[float]:
    """Milliseconds to the first contentful paint of each opening."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(OPENINGS + 1):
            window = browser.new_page()
            window.goto(page.absolute().as_uri())
            window.wait_for_function(f"() => {PAINT} !== undefined")
            times.append(float(window.evaluate(PAINT)))
            window.close()
        browser.close()
    return times[1:]  # the first opening starts the browser's processes


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        published = [path for root in (PUBLISHED, PUBLISHED.parent) for path in sorted(root.glob("*.html"))]
        for page in [*published, index_of_many(Path(folder))]:
            times, name = first_paints(page), f"index of {REPORTS}" if page.parent == Path(folder) else page.name
            size, middle = page.stat().st_size / 1e6, statistics.median(times)
            print(f"{name:20} {size:5.2f} MB  first contentful paint {middle:4.0f} ms, at most {max(times):4.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
