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
from .tables import against, recipes_table, savings, versus

ROOT = checkout() or Path.cwd()
# Published reports in README's table, which leads with the first
RECIPES = ("mnist-digits", "mnist-simclr", "mnist-quick")
ABLATIONS = "mnist-ablations"
SHOWN = (100, 600, 5000, 30_000)  # labels
PUBLISHED = ROOT / "reports" / "published" / RECIPES[0]
PICTURE = PUBLISHED / "first_screen.png"
ALT = "A report's first screen: question, answer, key numbers, test error by labels, data, settings, checks, command"
BEGIN, END = "<!-- results: made by `make readme` -->", "<!-- end of results -->"
BENCHMARKS = ROOT / "reports" / "published" / "benchmarks.json"
BEGIN_POLICIES, END_POLICIES = "<!-- policies: made by `make readme` -->", "<!-- end of policies -->"
BEGIN_SPEED, END_SPEED = "<!-- speed: made by `make readme` -->", "<!-- end of speed -->"


def recipe(results: dict[str, Any]) -> str:
    """What a report's recipe is called: policy, epochs, seeds."""
    settings = results["settings"]
    n = settings["n_seeds"]
    size = f", views of {settings['view_size']} pixels" if settings["view_size"] else ""
    return f"policy {settings['augment']}{size}, {settings['epochs']} epochs, {n} seed{'s' if n > 1 else ''}"


def published() -> dict[str, dict[str, Any]]:
    """The results of the published reports in README's table, by their folders' names."""
    return {name: read_json(PUBLISHED.with_name(name) / "results.json") for name in RECIPES}


def generated(reports: dict[str, dict[str, Any]]) -> str:
    """The part of README between the two markers."""
    results = reports[RECIPES[0]]
    settings, metrics, data = results["settings"], results["metrics"], results["dataset"]
    pages = ", ".join(f"[{p.stem}]({_from_root(p)})" for p in sorted(PUBLISHED.glob("*.html")))
    table = recipes_table({recipe(own): own for own in reports.values()}, SHOWN)
    made = "\n".join(f"- {_made(folder, own)}" for folder, own in reports.items())
    return f"""\
![{ALT}]({_from_root(PICTURE)})

{table}

Linear probes on frozen encoders that were pretrained on {settings["n_images"]:,} unlabelled images of
{data["name"].upper()}; all {data["test"]:,} test images; mean and standard deviation over the seeds, each of which
also draws other images and labels. "Random initialisation" has two readings, and both are here: a frozen random
encoder under the same linear classifier, and the same network trained from scratch.
A difference is paired, by seed, test image and draw of labels: where an arm was trained on the first draw only, it is
of this draw, and need not be that of the two means.
Below the recipes: the other arms of the first one's report.

{savings(metrics, results["savings"], min(SHOWN))}
{projections(results)}

{made}

{ablations()}

The first one's pages: {pages}; numbers: [results.json]({_from_root(PUBLISHED / "results.json")})."""


def projections(results: dict[str, Any]) -> str:
    """How the features before the projection head compare with those behind it, with few labels and with many."""
    said = "; ".join(
        f"with {n:,} labels {versus(against(results['comparisons'], n, 'projection'), 'the one on z')}"
        for n in (min(SHOWN), max(SHOWN))
    )
    return f"The linear probe on features h, beside one on the projections z, which are usually thrown away: {said}."


def _made(folder: str, results: dict[str, Any]) -> str:
    """How a published report was made, with a link to it."""
    settings, seconds, made = results["settings"], results["seconds"], results["provenance"]
    n = settings["n_seeds"]
    return (
        f"[{recipe(results)}]({_from_root(PUBLISHED.with_name(folder))}/02_linear_eval.html): `{made['command']}`; "
        f"{seconds['pretrain'] / 60 / n:.1f} minutes of pretraining{' a seed' if n > 1 else ''}, "
        f"{made['threads']} thread{'s' if made['threads'] > 1 else ''}, {made['precision']}; "
        f"from scratch {settings['supervised_steps']:,} steps"
    )


def ablations() -> str:
    """What the published ablations found, with a link."""
    folder = PUBLISHED.with_name(ABLATIONS)
    results = read_json(folder / "results.json")
    return (
        f"**Which parts of the recipe matter?** {results['answers']['03_ablations']['answer']} Each finding, with its "
        f"interval: [03_ablations]({_from_root(folder / '03_ablations.html')}), "
        f"by `{results['provenance']['command']}`."
    )


def _from_root(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


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
    photograph(PUBLISHED / "02_linear_eval.html", PICTURE)
    with tempfile.TemporaryDirectory() as folder:  # an index without what else lies in reports/
        (Path(folder) / PUBLISHED.parent.name).symlink_to(PUBLISHED.parent)
        atomic_write(ROOT / "reports" / "index.html", write_index(Path(folder)).read_bytes())
    readme = ROOT / "README.md"
    text = _between(readme.read_text(), BEGIN, END, generated(published()))
    measured = json.loads(BENCHMARKS.read_text())
    text = _between(text, BEGIN_POLICIES, END_POLICIES, generated_policies())
    readme.write_text(_between(text, BEGIN_SPEED, END_SPEED, generated_speed(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
