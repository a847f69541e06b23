"""How soon pages show something, opened from disk in the system's Chromium: `python -m benchmarks.pages`.

For each published page, for an index of 500 reports and for a map of as many images as one may have, the median and the
largest time to the first contentful paint of several openings, each in a window of its own; of maps also to the first
drawing of all points.
"""

from __future__ import annotations

import copy
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import torch
from docs.generate import PUBLISHED, browser_path

from contrastive.report.explorer import MOST, explore
from contrastive.report.index import write_index
from contrastive.report.render import render_page
from contrastive.storage.files import read_json, write_json

OPENINGS, REPORTS = 9, 500
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
DRAWN = "performance.getEntriesByName('map-drawn')[0]?.startTime"


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


def map_of_many(folder: Path) -> Path:
    """A page with a map of MOST smooth colour images in three feature spaces, with all that a map can have."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (MOST, 3, 6, 6))).float()
    images = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").byte()
    labels = torch.from_numpy(rng.integers(0, 10, MOST))
    points = rng.normal(size=(3, MOST, 2)) + 3 * np.stack([labels % 4, labels // 4], 1)
    probabilities = torch.from_numpy(rng.dirichlet([0.3] * 10, MOST))
    near = ((np.arange(MOST)[:, None] + np.arange(1, 7)) % MOST).tolist()
    names = [f"images/of_a_folder/image_{i:05}.png" for i in range(MOST)]
    groups = [f"patient {i // 20}" for i in range(MOST)]
    spaces = dict(zip(("random", "ImageNet", "own"), points, strict=True))
    made = explore(images, spaces, labels, probabilities, list("abcdefghij"), near, groups=groups, names=names)
    output = nbformat.v4.new_output("display_data", made._repr_mimebundle_())
    cells = [nbformat.v4.new_markdown_cell("# A map"), nbformat.v4.new_code_cell("", outputs=[output])]
    path = folder / "map.html"
    path.write_text(render_page("02_map", nbformat.v4.new_notebook(cells=cells), {}, [], ["02_map"]), encoding="utf-8")
    return path


def first_times(page: Path, what: str = PAINT) -> list[float]:
    """Milliseconds to the first contentful paint of each opening, or to something else that a page notes."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        for _ in range(OPENINGS + 1):
            window = browser.new_page()
            window.goto(page.absolute().as_uri())
            window.wait_for_function(f"() => {what} !== undefined")
            times.append(float(window.evaluate(what)))
            window.close()
        browser.close()
    return times[1:]  # the first opening starts the browser's processes


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        published = [path for root in (PUBLISHED, PUBLISHED.parent) for path in sorted(root.glob("*.html"))]
        index, many = index_of_many(Path(folder)), map_of_many(Path(folder))
        named = {index: f"index of {REPORTS}", many: f"map of {MOST}"}
        for page in [*published, index, many]:
            times, name = first_times(page), named.get(page, page.name)
            size, middle = page.stat().st_size / 1e6, statistics.median(times)
            print(f"{name:20} {size:5.2f} MB  first contentful paint {middle:4.0f} ms, at most {max(times):4.0f} ms")
        times = first_times(many, DRAWN)
        print(f"{named[many]:20} all points drawn {statistics.median(times):4.0f} ms, at most {max(times):4.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
