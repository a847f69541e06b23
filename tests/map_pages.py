"""A page with a map of images, and what tests ask of it."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import torch
from PIL import Image

from contrastive.report.explorer import explore
from contrastive.report.render import render_page

N, EDGE = 90, 16
CLASSES = ["one", "two", "<b>three</b>"]
EVIL = '<img src=x onerror="window.pwned=1">'


@dataclass
class Map:
    """A page with a map, and what the map was made of."""

    path: Path
    spaces: dict[str, np.ndarray]
    labels: torch.Tensor
    predicted: torch.Tensor
    names: list[str]
    images: torch.Tensor

    def pixels(self, page, i, space="a"):
        """Where image i is on the page, without zoom."""
        points = self.spaces[space]
        share = (points[i] - points.min(0)) / (points.max(0) - points.min(0))
        box = page.locator(".explorer .map").bounding_box()
        side = box["width"] - 2 - 2 * EDGE  # 2: its border
        return box["x"] + 1 + EDGE + side * share[0], box["y"] + 1 + EDGE + side * (1 - share[1])


def map_page(folder: Path) -> Map:
    """Write a page with a map of N images, with names that are no good."""
    rng = np.random.default_rng(0)
    free = [place for place in range(100) if place % 10 < 9 or place < 70]  # the buttons of the zoom are in a corner
    corner = rng.permutation(free)[:N]
    grid = np.stack([corner % 10, corner // 10], 1) + rng.uniform(-0.2, 0.2, (N, 2))  # so that no two are too near
    spaces = {"a": grid, EVIL: -grid[:, ::-1].copy()}
    labels = torch.from_numpy(rng.integers(-1, 3, N))
    probabilities = torch.from_numpy(rng.dirichlet([0.5] * 3, N))
    probabilities[:3] = torch.nan
    predicted = torch.where(probabilities[:, 0].isnan(), -1, probabilities.argmax(1))
    images = (torch.arange(N) * 2 + 40).byte().view(N, 1, 1, 1).expand(N, 3, 12, 12).clone()
    images[:, 1] = 255 - images[:, 1]
    names = [f"=folder {i}/{EVIL}.png" for i in range(N)]
    near = [[(i + k) % N for k in range(1, 7)] for i in range(N)]
    groups = [f"@patient {i % 15}" for i in range(N)]
    shown = explore(images, spaces, labels, probabilities, CLASSES, near, groups=groups, names=names)
    output = nbformat.v4.new_output("display_data", shown._repr_mimebundle_())
    cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_code_cell("x", outputs=[output])]
    path = folder / "page.html"
    path.write_text(render_page("02_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["02_x"]))
    return Map(path, spaces, labels, predicted, names, images)


def selected(page):
    """How many are, as the page says."""
    return int(re.search(r"(\d+) selected", page.locator(".selection").inner_text())[1])


def saved(page):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save as CSV").click()
    return list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))


def colours(page, x, y, side):
    """Red, green and blue of a square of the page, of so many pixels around a place."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    shot = page.screenshot(clip={"x": round(x) - side // 2, "y": round(y) - side // 2, "width": side, "height": side})
    return np.array(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
