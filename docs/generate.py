"""What is generated of README.md and docs/*.md, README's picture and the committed index: `make readme`.

Numbers come from `reports/published/*/results.json` and `benchmarks.json`, tables of parameters from the code. A
published report is a document of the commit that made it: nothing here asks whether it is of today's code.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks` and `docs`, which are not installed

from contrastive.report.index import write_index
from contrastive.storage.files import atomic_write
from docs import other_images, parameters, published, simulated
from docs.markdown import ROOT
from docs.published import BENCHMARKS, PICTURE, PUBLISHED, RECIPES

__all__ = ["BENCHMARKS", "PUBLISHED", "RECIPES", "between", "browser_path", "generated_parts", "main"]


def generated_parts() -> dict[tuple[str, str], str]:
    """(document, below the root; name of a part) -> what `make readme` writes between the part's markers."""
    reports = published.published()
    first = reports[RECIPES[0]]
    return {
        ("README.md", "answer"): published.answer(first),
        ("README.md", "limits"): published.limits(reports),
        ("README.md", "photographs"): other_images.photographs(),
        ("README.md", "results"): published.short_table(first),
        ("docs/results.md", "recipes"): published.recipes(reports),
        ("docs/results.md", "other images"): other_images.other_images(),
        ("docs/results.md", "ablations"): published.ablations(),
        ("docs/results.md", "encoders"): published.encoders(),
        ("docs/method.md", "coverage"): simulated.coverage(),
        ("docs/method.md", "seen"): simulated.seen(),
        ("docs/performance.md", "speed"): speed(),
        ("docs/parameters.md", "parameters"): parameters.parameters(),
        ("docs/parameters.md", "presets"): parameters.presets(),
        ("docs/parameters.md", "policies"): parameters.policies(),
    }


def speed() -> str:
    """What `make bench` measured for the published report."""
    return published.speed(json.loads(BENCHMARKS.read_text()))


def markers(part: str) -> tuple[str, str]:
    """The comments before and after a generated part."""
    return f"<!-- {part}: made by `make readme` -->", f"<!-- end of {part} -->"


def between(text: str, part: str) -> str:
    """What stands between a part's markers. Raises: ValueError when they are missing."""
    begin, end = markers(part)
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def replaced(text: str, part: str, new: str) -> str:
    """The text with another content between a part's markers. Raises: ValueError when they are missing."""
    begin, end = markers(part)
    return f"{text[: text.index(begin) + len(begin)]}\n{new}\n{text[text.index(end) :]}"


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


def write_parts() -> None:
    """Write every generated part into its document."""
    for (document, part), new in generated_parts().items():
        path = ROOT / document
        path.write_text(replaced(path.read_text(), part, new))


def main() -> int:
    """Make README's picture, the committed index of the published reports, and all generated parts again."""
    photograph(PUBLISHED / "02_linear_eval.html", PICTURE)
    with tempfile.TemporaryDirectory() as folder:  # an index without what else lies in reports/
        (Path(folder) / PUBLISHED.parent.name).symlink_to(PUBLISHED.parent)
        atomic_write(ROOT / "reports" / "index.html", write_index(Path(folder)).read_bytes())
    write_parts()
    return 0


if __name__ == "__main__":
    sys.exit(main())
