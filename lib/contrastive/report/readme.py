"""README's results and the committed index, from the published reports: `make readme`. None of it is typed by hand."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import atomic_write, read_json
from ..settings import OPERATIONS, POLICIES, checkout
from .index import write_index
from .speed import conditions, goal_conditions, speed_table
from .tables import results_table, savings

ROOT = checkout() or Path.cwd()
PUBLISHED = ROOT / "reports" / "published" / "mnist-quick"
PICTURE = PUBLISHED / "first_screen.png"
ALT = "A report's first screen: question, answer, key numbers, test error by labels, data, settings, checks, command"
BEGIN, END = "<!-- results: made by `make readme` -->", "<!-- end of results -->"
BENCHMARKS = ROOT / "reports" / "published" / "benchmarks.json"
BEGIN_POLICIES, END_POLICIES = "<!-- policies: made by `make readme` -->", "<!-- end of policies -->"
BEGIN_SPEED, END_SPEED = "<!-- speed: made by `make readme` -->", "<!-- end of speed -->"


def generated(results: dict[str, Any]) -> str:
    """The part of README between the two markers."""
    settings, metrics, data, made = (results[key] for key in ("settings", "metrics", "dataset", "provenance"))
    budgets, seconds = settings["budgets"], results["seconds"]
    few = min(budgets)
    pages = ", ".join(f"[{p.stem}]({p.relative_to(ROOT).as_posix()})" for p in sorted(PUBLISHED.glob("*.html")))
    name, n_seeds = data["name"].upper(), metrics["knn_accuracy"]["n_seeds"]
    return f"""\
![{ALT}]({PICTURE.relative_to(ROOT).as_posix()})

{results_table(metrics, budgets, data["train"], name)}

Test accuracy after pretraining on {settings["n_images"]:,} unlabelled images of {name} for {settings["epochs"]} epochs:
{seconds["pretrain"]:.0f} s of the report's {seconds["total"] / 60:.1f} minutes, on {made["threads"]} threads,
{made["precision"]}, {n_seeds} seed{"s" if n_seeds > 1 else ""}. kNN on the same features:
{metrics["knn_accuracy"]["mean"]:.2f} %. "Random initialisation" has two readings, and both are here: a frozen random
encoder under the same linear classifier, and the same network trained from scratch, with the same augmentations.

{savings(metrics, results["savings"], few)}

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


def generated_policies() -> str:
    """The part of README about augmentation policies."""
    rows = [
        f"| `{op}` | {', '.join(f'{what} ({usual:g})' for what, (*_, usual) in numbers.items())} |"
        for op, numbers in OPERATIONS.items()
    ]
    table = "\n".join(rows)
    return f"""\
An augmentation policy is a name or an operation, to which others are added and from which they are taken away, each
with its usual numbers or with numbers of its own: `simclr-hflip`, `digits+elastic:0.03`, `crop:0.3:1+rotate:20+stroke`.
Whatever their order in the text, they are applied in this one:

| operation | its numbers (the usual ones) |
|:--|:--|
{table}

`simclr` is the recipe as written: RandomHorizontalFlip, RandomResizedCrop, ColorJitter, GaussianBlur, RandomGrayscale,
then normalisation with (0.1307, 0.3081). It stands for `{POLICIES["simclr"]}`.
`digits` is the one for digits, never mirrored, with strokes of other widths: `{POLICIES["digits"]}`.
Greyscale, hue and saturation change nothing on images with one channel."""


def browser_path() -> str | None:
    """Where the system's Chromium is, if it has one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def photograph(page: Path, into: Path) -> None:
    """A page's first screen as PNG, taken in the system's Chromium."""
    from playwright.sync_api import sync_playwright  # of the `dev` dependencies, as are all that `make readme` needs

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(
            viewport={"width": 1280, "height": 760}, color_scheme="light", device_scale_factor=1.5
        )
        window.goto(page.absolute().as_uri())
        window.screenshot(path=into)
        browser.close()
    Image.open(into).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(into, optimize=True)


def _between(text: str, begin: str, end: str, new: str) -> str:
    return f"{text[: text.index(begin) + len(begin)]}\n{new}\n{text[text.index(end) :]}"


def main() -> int:
    """Rewrite README's results, its picture and its measurements, and the index of the published reports."""
    results = read_json(PUBLISHED / "results.json")
    photograph(PUBLISHED / "02_linear_eval.html", PICTURE)
    with tempfile.TemporaryDirectory() as folder:  # an index without what else lies in reports/
        (Path(folder) / PUBLISHED.parent.name).symlink_to(PUBLISHED.parent)
        atomic_write(ROOT / "reports" / "index.html", write_index(Path(folder)).read_bytes())
    readme = ROOT / "README.md"
    text = _between(readme.read_text(), BEGIN, END, generated(results))
    measured = json.loads(BENCHMARKS.read_text())
    text = _between(text, BEGIN_POLICIES, END_POLICIES, generated_policies())
    readme.write_text(_between(text, BEGIN_SPEED, END_SPEED, generated_speed(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
