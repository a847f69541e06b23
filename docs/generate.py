"""What is generated of README.md and docs/*.md, README's picture and the committed index: `make readme`.

Numbers come from `reports/published/*/results.json` and `benchmarks.json`, tables of parameters from the code's
registries. A published report is a document of the commit that made it: nothing here asks whether it is of today's code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `benchmarks`, which is not installed

from benchmarks.tables import conditions, goal_conditions, speed_table  # noqa: E402
from contrastive.augment import OPERATIONS, POLICIES, spell_policy  # noqa: E402
from contrastive.evaluation.arms import ARMS  # noqa: E402
from contrastive.evaluation.summary import better_from_scratch  # noqa: E402
from contrastive.report.index import write_index  # noqa: E402
from contrastive.report.tables import against, savings, versus  # noqa: E402
from contrastive.settings import PRESETS, Component, EncoderSettings, MethodSettings  # noqa: E402
from contrastive.settings.model import CHOICES, FIXED, ORDER  # noqa: E402
from contrastive.storage.files import atomic_write, read_json  # noqa: E402

PUBLISHED = ROOT / "reports" / "published"
# Reports of the tables. The first is that of README, the second the recipe as the paper has it.
RECIPES = ("mnist-digits", "mnist-simclr", "mnist-quick")
ABLATIONS = "mnist-ablations"
PICTURE = PUBLISHED / RECIPES[0] / "first_screen.png"
BENCHMARKS = PUBLISHED / "benchmarks.json"
ALT = "A report's first screen: question, answer, key numbers, test error by labels, data, settings, checks, command"
SHOWN = (100, 600, 5000, 30_000)  # numbers of labels
SCRATCH = ("supervised", "supervised_plain")  # arms that have labels alone
README_ARMS = ("linear", *SCRATCH, "random_encoder")
PACKAGE = "contrastive."  # plug-ins that happen to be installed are not of this project
SUITS = {
    "simclr": "the recipe of the SimCLR paper, as written",
    "handwriting": "digits and letters: never mirrored, slightly turned and slanted, strokes of other widths",
    "natural": "small photographs: the recipe without its blur",
    "grey": "grey images such as X-rays: most of the picture stays in view",
    "none": "images as they are",
}

Results = Mapping[str, Any]


def generated_parts() -> dict[tuple[str, str], str]:
    """(file, below the root; name of the part's markers) -> what `make readme` writes between these."""
    reports = published()
    first = reports[RECIPES[0]]
    return {
        ("README.md", "answer"): answer(first),
        ("README.md", "limits"): limits(reports),
        ("README.md", "results"): short_table(first),
        ("docs/results.md", "recipes"): recipes(reports),
        ("docs/results.md", "ablations"): ablations(read_json(PUBLISHED / ABLATIONS / "results.json")),
        ("docs/results.md", "encoders"): encoders(),
        ("docs/parameters.md", "parameters"): parameters(),
        ("docs/parameters.md", "presets"): presets(),
        ("docs/parameters.md", "policies"): policies(),
        ("docs/performance.md", "speed"): speed(json.loads(BENCHMARKS.read_text())),
    }


def published() -> dict[str, Results]:
    """The results of the published reports of the tables, by their folders' names."""
    return {name: read_json(PUBLISHED / name / "results.json") for name in RECIPES}


def markers(part: str) -> tuple[str, str]:
    """The comments before and after a generated part."""
    return f"<!-- {part}: made by `make readme` -->", f"<!-- end of {part} -->"


def between(text: str, part: str) -> str:
    """What stands between a part's markers. Raises: ValueError when they are missing."""
    begin, end = markers(part)
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def _replaced(text: str, part: str, new: str) -> str:
    begin, end = markers(part)
    return f"{text[: text.index(begin) + len(begin)]}\n{new}\n{text[text.index(end) :]}"


def _link(path: Path, document: str) -> str:
    """A path as a link from a document (its path below the root)."""
    return Path(os.path.relpath(path, (ROOT / document).parent)).as_posix()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A table in Markdown. numbers: all columns but the first are set to the right."""
    lines = [head, (":--", *(("--:" if numbers else ":--") for _ in head[1:])), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# --- README -------------------------------------------------------------------------------------------------------


def answer(results: Results) -> str:
    """The picture, and the answer of the first report in a sentence."""
    few = savings(results["metrics"], results["savings"], min(SHOWN))
    images = f"{results['settings']['n_images']:,} images of {results['dataset']['name'].upper()}"
    return f"""\
![{ALT}]({_link(PICTURE, "README.md")})

Pretrained on {images} without labels: {few[0].lower()}{few[1:]}"""


def limits(reports: Mapping[str, Results]) -> str:
    """Where pretraining did not pay, as far as the published reports show it."""
    first, as_written, short = (reports[name] for name in RECIPES)
    few, everything = min(SHOWN), first["dataset"]["train"]
    suits, does_not, scratch = (
        f"{own['metrics'][f'{arm}_accuracy@{few}']['mean']:.2f}"
        for own, arm in ((first, "linear"), (as_written, "linear"), (first, "supervised"))
    )
    whom = "the same network trained from scratch"
    return f"""\
- **You have many labels.** With all {everything:,} of {first["dataset"]["name"].upper()}, the linear probe is
  {versus(_above_scratch(first, everything), whom)}.
- **The augmentations do not suit your images.** With those of the SimCLR paper, which were made for photographs and mirror
  digits, {few} labels give {does_not} % instead of {suits} %. From scratch, with augmentations that suit digits, the same network
  gets {scratch} %.
- **You trained too briefly.** The default report trains for {short["settings"]["epochs"]} epochs. With {SHOWN[2]:,} labels it is
  {versus(_above_scratch(short, SHOWN[2]), whom)}."""


def _above_scratch(results: Results, n: int) -> Mapping[str, float]:
    """The linear probe less the better network from scratch, with n labels."""
    return against(results["comparisons"], n, better_from_scratch(results["metrics"], n))


def short_table(results: Results) -> str:
    """Four arms by four numbers of labels."""
    settings, metrics = results["settings"], results["metrics"]
    rows = [(ARMS[arm].name, *_cells(metrics, arm)) for arm in README_ARMS]
    head = ("test accuracy (%) with", *(f"{n:,} labels" for n in SHOWN))
    return f"""\
{_table(head, rows, numbers=True)}

{results["dataset"]["name"].upper()}, {settings["n_images"]:,} images without labels, {settings["epochs"]} epochs; \
mean and standard deviation of {settings["n_seeds"]} seeds."""


# --- Results ------------------------------------------------------------------------------------------------------


def recipe_name(results: Results) -> str:
    """What a report's recipe is called: policy, epochs, seeds."""
    settings = results["settings"]
    n = settings["n_seeds"]
    size = f", views of {settings['view_size']} pixels" if settings["view_size"] else ""
    return f"policy {settings['augment']}{size}, {settings['epochs']} epochs, {n} seed{'s' if n > 1 else ''}"


def recipes(reports: Mapping[str, Results]) -> str:
    """The published recipes beside each other, with what is to be said of them."""
    results = reports[RECIPES[0]]
    pages = sorted((PUBLISHED / RECIPES[0]).glob("*.html"))
    links = ", ".join(f"[{page.stem}]({_link(page, 'docs/results.md')})" for page in pages)
    numbers = _link(PUBLISHED / RECIPES[0] / "results.json", "docs/results.md")
    return f"""\
{recipes_table({recipe_name(own): own for own in reports.values()})}

Linear probes on frozen encoders that were pretrained on {results["settings"]["n_images"]:,} images of
{results["dataset"]["name"].upper()} without labels; all {results["dataset"]["test"]:,} test images; mean and standard deviation
over the seeds, each of which also draws other images and other labels. "Random initialisation" has two readings, and both
are here: a frozen random encoder under the same linear classifier, and the same network trained from scratch.
A difference is paired, by seed, test image and draw of labels. Where an arm was trained on the first draw only, the
difference is of this draw, and need not be that of the two means. Below the recipes: the other arms of the first report.

{savings(results["metrics"], results["savings"], min(SHOWN))}
{projections(results)}

How each was made:

{chr(10).join(f"- {_made(folder, own)}" for folder, own in reports.items())}

Pages of the first report: {links}; its numbers: [results.json]({numbers})."""


def recipes_table(reports: Mapping[str, Results], budgets: Sequence[int] = SHOWN) -> str:
    """Several reports' linear probes beside each other, each with its networks from scratch, and the differences from the
    better one and from the random encoder; then the other arms of the first report.

    reports: what a report is called in the table -> its results.
    """
    first = next(iter(reports.values()))
    head = ("test accuracy (%) with", *(f"{n:,} labels" for n in budgets), f"kNN, {first['headline_labels']:,} labels")
    rows: list[tuple[str, ...]] = []
    for name, results in reports.items():
        metrics, several = results["metrics"], results["metrics"]["knn_accuracy"]["n_seeds"] > 1
        rows.append((f"**{name}**", *_cells(metrics, "linear", budgets), _cell(metrics["knn_accuracy"])))
        scratch = [arm for arm in SCRATCH if any(f"{arm}_accuracy@{n}" in metrics for n in budgets)]
        rows += [(f"– {ARMS[arm].name}", *_cells(metrics, arm, budgets), "") for arm in scratch]
        better = "the better of these" if len(scratch) > 1 else "this"
        rows.append((f"– pretraining, less {better}", *_above(results, budgets, better_from_scratch, several), ""))
        above = _above(results, budgets, lambda *_: "random_encoder", several)
        rows.append(("– pretraining, less the frozen random encoder", *above, ""))
        if results is not first and several:
            other = [_above_other(metrics, first["metrics"], n) for n in budgets]
            rows.append(("– pretraining, less the network from scratch with the first recipe's augmentations", *other, ""))
    metrics = first["metrics"]
    for arm in ARMS:
        if arm not in ("linear", *SCRATCH) and any(f"{arm}_accuracy@{n}" in metrics for n in budgets):
            rows.append((ARMS[arm].name, *_cells(metrics, arm, budgets), ""))
    return _table(head, rows, numbers=True)


def _cells(metrics: Results, arm: str, budgets: Sequence[int] = SHOWN) -> list[str]:
    names = [f"{arm}_accuracy@{n}" for n in budgets]
    return [_cell(metrics[name]) if name in metrics else "–" for name in names]


def _cell(metric: Results) -> str:
    """An accuracy without its unit, with the standard deviation over seeds if there are several."""
    spread = f" ± {metric['std']:.2f}" if metric["n_seeds"] > 1 else ""
    return f"{metric['mean']:.2f}{spread}"


def _above(results: Results, budgets: Sequence[int], arm_of: Any, with_p: bool) -> list[str]:
    """The linear probe less the arm that `arm_of(metrics, n)` names. A p-value of one seed, which is of its test images
    alone, is left out."""
    cells = []
    for n in budgets:
        name = f"linear_accuracy@{n} - {arm_of(results['metrics'], n)}_accuracy@{n}"
        d = results["comparisons"].get(name)
        cells.append("–" if d is None else _signed(d["points"], d["p"]) if with_p else f"{d['points']:+.2f}")
    return cells


def _above_other(metrics: Results, others: Results, n: int) -> str:
    """The linear probe less another report's network from scratch. Paired by seed: the same seed draws the same images
    and labels for both."""
    from scipy.stats import ttest_rel

    names = f"linear_accuracy@{n}", f"supervised_accuracy@{n}"
    if names[0] not in metrics or names[1] not in others:
        return "–"
    a, b = metrics[names[0]]["values"], others[names[1]]["values"]
    common = min(len(a), len(b))
    return _signed(sum(a[:common]) / common - sum(b[:common]) / common, ttest_rel(a[:common], b[:common]).pvalue)


def _signed(points: float, p: float) -> str:
    return f"{points:+.2f} (p {'< 0.001' if p < 0.001 else f'= {p:.2g}'})"


def projections(results: Results) -> str:
    """How the features before the projection head compare with those behind it, with few labels and with many."""
    parts = "; ".join(
        f"with {n:,} labels {versus(against(results['comparisons'], n, 'projection'), 'the one on z')}"
        for n in (min(SHOWN), max(SHOWN))
    )
    return f"The linear probe on features h, beside one on the projections z, which are usually thrown away: {parts}."


def _made(folder: str, results: Results) -> str:
    """How a published report was made, with a link to it."""
    settings, seconds, made = results["settings"], results["seconds"], results["provenance"]
    n = settings["n_seeds"]
    return (
        f"[{recipe_name(results)}]({_link(PUBLISHED / folder / '02_linear_eval.html', 'docs/results.md')}): "
        f"`{made['command']}`; "
        f"{seconds['pretrain'] / 60 / n:.1f} minutes of pretraining{' a seed' if n > 1 else ''}, "
        f"{made['threads']} thread{'s' if made['threads'] > 1 else ''}, {made['precision']}; "
        f"from scratch {settings['supervised_steps']:,} steps"
    )


def ablations(results: Results) -> str:
    """What the published ablations found, with a link."""
    page = _link(PUBLISHED / ABLATIONS / "03_ablations.html", "docs/results.md")
    return (
        f"{results['answers']['03_ablations']['answer']} Each finding, with its interval: [03_ablations]({page}), by "
        f"`{results['provenance']['command']}`."
    )


def encoders() -> str:
    """The published encoders and how to load one."""
    folders = sorted(path.parent for path in (PUBLISHED / RECIPES[0] / "encoders").glob("*/encoder.safetensors"))
    names = "\n".join(f"- [{path.name}]({_link(path, 'docs/results.md')})" for path in folders)
    return f"""\
{names}

```python
from contrastive import load_encoder

encoder = load_encoder("{folders[0].relative_to(ROOT).as_posix()}")
```"""


# --- Speed --------------------------------------------------------------------------------------------------------


def speed(measured: Results) -> str:
    """What `make bench` measured for the published report."""
    page, numbers = (_link(path, "docs/performance.md") for path in (BENCHMARKS.with_suffix(".html"), BENCHMARKS))
    return f"""\
{speed_table(measured)}

Unlabelled images per second of pretraining; seconds of pretraining until a linear probe with
{measured["goal"]["n_labels"]:,} labels gets there; milliseconds (extra MiB) for NT-Xent and its gradient on N images.
{conditions(measured)} {goal_conditions(measured["goal"])}
All arms train the same layers; only ratios within one run mean anything. The report: [benchmarks]({page}); numbers:
[benchmarks.json]({numbers})."""


# --- Parameters ---------------------------------------------------------------------------------------------------


def parameters() -> str:
    """Every parameter, by component: fields, defaults and descriptions are those of the code."""
    parts = [
        "| parameter | default | what it does |\n|:--|:--|:--|\n"
        f"| `preset` | quick | the values that the others start from: {', '.join(PRESETS)} |"
    ]
    for component in ORDER:
        title, registry = component.capitalize(), CHOICES.get(component)
        if registry is None:
            parts.append(f"### {title}\n\n{_about(FIXED[component])}\n\n{_fields(FIXED[component], component)}")
            continue
        classes = {name: registry[name].Settings for name in registry if registry[name].__module__.startswith(PACKAGE)}
        base = {"encoder": EncoderSettings, "method": MethodSettings}[component]
        shared = ", ".join(f"`{name}`" for name in classes)
        parts.append(f"### {title}\n\nOne of {shared}.\n\n{_fields(base, component)}")
        for name, cls in classes.items():
            own = _fields(cls, component, set(base.model_fields)) if set(cls.model_fields) - set(base.model_fields) else ""
            parts.append(f"With `{component}={name}`" + (f":\n\n{own}" if own else " there is nothing else to set."))
    return "\n\n".join(parts)


def _about(cls: type[Component]) -> str:
    """The first paragraph of a component's docstring."""
    return " ".join((cls.__doc__ or "").partition("\n\n")[0].split())


def _fields(cls: type[Component], component: str, without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    rows = []
    for leaf, field in cls.leaves(component).items():
        if field not in without:
            info = cls.model_fields[field]
            allowed = [str(value) for value in get_args(info.annotation)] if get_origin(info.annotation) is Literal else []
            missing = [value for value in allowed if value not in str(info.description)]
            what = f"{info.description}: {', '.join(allowed)}" if missing else str(info.description)
            rows.append((f"`{leaf}`", _value(info.default), what.replace("|", "\\|")))
    return _table(("parameter", "default", "what it does"), rows)


def _value(value: Any) -> str:
    """A parameter's value as it is written after -p."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def presets() -> str:
    """What each preset changes."""
    known = {leaf: cls.model_fields[field].default for cls, leaf, field in _leaves()}
    names = dict.fromkeys(name for preset in PRESETS.values() for name in preset)
    rows = [
        (f"`{name}`", *(_value(preset.get(name, known.get(name))) for preset in PRESETS.values())) for name in names
    ]
    return _table(("parameter", *(f"`{name}`" for name in PRESETS)), rows)


def _leaves() -> list[tuple[type[Component], str, str]]:
    """Class, parameter and field of every parameter."""
    return [
        (cls, leaf, field)
        for component in ORDER
        for cls in ([FIXED[component]] if component in FIXED else [entry.Settings for entry in _chosen(component)])
        for leaf, field in cls.leaves(component).items()
    ]


def _chosen(component: str) -> list[Any]:
    return [CHOICES[component][name] for name in CHOICES[component]]


def policies() -> str:
    """Operations and named policies."""
    operations = [
        (f"`{op}`", ", ".join(f"{what} ({usual:g})" for what, (*_, usual) in numbers.items()))
        for op, numbers in OPERATIONS.items()
    ]
    named = [
        (f"`{name}`", SUITS.get(name, ""), f"`{spell_policy(name)}`" if policy else "") for name, policy in POLICIES.items()
    ]
    return f"""\
{_table(("policy", "for what", "what it stands for"), named)}

{_table(("operation", "its numbers (the usual ones)"), operations)}"""


# --- Files --------------------------------------------------------------------------------------------------------


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
        path.write_text(_replaced(path.read_text(), part, new))


def main() -> int:
    """Make README's picture, the committed index of the published reports, and all generated parts again."""
    photograph(PUBLISHED / RECIPES[0] / "02_linear_eval.html", PICTURE)
    with tempfile.TemporaryDirectory() as folder:  # an index without what else lies in reports/
        (Path(folder) / PUBLISHED.name).symlink_to(PUBLISHED)
        atomic_write(ROOT / "reports" / "index.html", write_index(Path(folder)).read_bytes())
    write_parts()
    return 0


if __name__ == "__main__":
    sys.exit(main())
