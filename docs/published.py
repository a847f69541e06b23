"""What README and docs/ say of the published reports. Every number is read from a results.json or benchmarks.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.tables import conditions, goal_conditions, speed_table

from contrastive.evaluation import ARMS, SCRATCH, better_from_scratch
from contrastive.report.tables import against, savings_sentence, versus
from contrastive.storage.files import read_json

from .markdown import ROOT, link, table, wrapped

# Reports of the tables. The first is that of README, the second the recipe as the paper has it, the third the default
RECIPES = ("mnist-digits", "mnist-simclr", "mnist-quick")
ABLATIONS = "mnist-ablations"
PUBLISHED = ROOT / "reports" / "published" / RECIPES[0]
PICTURE = PUBLISHED / "first_screen.png"
BENCHMARKS = PUBLISHED.with_name("benchmarks.json")
ALT = "A report's first screen: question, answer, key numbers, test error by labels, data, settings, checks, command"
SHOWN = (100, 600, 5000, 30_000)  # numbers of labels
README_ARMS = {
    "linear": "pretrained, frozen, linear classifier",
    "supervised": "from scratch, augmented",
    "supervised_plain": "from scratch, not augmented",
    "random_encoder": "random, frozen, linear classifier",
}
README, RESULTS, PERFORMANCE = "README.md", "docs/results.md", "docs/performance.md"

Results = Mapping[str, Any]


def published() -> dict[str, Results]:
    """The results of the published reports of the tables, by their folders' names."""
    return {name: read_json(PUBLISHED.with_name(name) / "results.json") for name in RECIPES}


# --- README -------------------------------------------------------------------------------------------------------


def answer(results: Results) -> str:
    """The picture, and the answer of the first report in a sentence."""
    few = savings_sentence(results["metrics"], results["savings"], min(SHOWN))
    images = f"{results['settings']['n_images']:,} images of {results['dataset']['name'].upper()}"
    sentence = wrapped(f"Pretrained on {images} without labels: {few[0].lower()}{few[1:]}")
    return f"![{ALT}]({link(PICTURE, README)})\n\n{sentence}"


def limits(reports: Mapping[str, Results]) -> str:
    """Where pretraining did not pay, as far as the published reports show it."""
    first, as_written, short = (reports[name] for name in RECIPES)
    few, many, everything = min(SHOWN), SHOWN[2], first["dataset"]["train"]
    suits, does_not, scratch = (
        f"{results['metrics'][f'{arm}_accuracy@{few}']['mean']:.2f} %"
        for results, arm in ((first, "linear"), (as_written, "linear"), (first, "supervised"))
    )
    whom = "the same network trained from scratch"
    points = (
        f"**You have many labels.** With all {everything:,} of {first['dataset']['name'].upper()}, the linear probe is "
        f"{versus(_above_scratch(first, everything), whom)}.",
        f"""**The augmentations do not suit your images.** With those of the SimCLR paper, which mirror digits, {few}
        labels give {does_not} instead of {suits}; from scratch, with augmentations that suit them, {scratch}.""",
        f"**You trained too briefly.** After the default {short['settings']['epochs']} epochs, with {many:,} labels, "
        f"the probe is {versus(_above_scratch(short, many), whom)}.",
    )
    return "\n".join(wrapped(point, "- ") for point in points)


def _above_scratch(results: Results, n: int) -> Mapping[str, float]:
    """The linear probe less the better network from scratch, with n labels."""
    return against(results["comparisons"], n, better_from_scratch(results["metrics"], n))


def short_table(results: Results) -> str:
    """Four arms by four numbers of labels."""
    settings, metrics = results["settings"], results["metrics"]
    rows = [(name, *_cells(metrics, arm)) for arm, name in README_ARMS.items()]
    head = ("test accuracy (%) with", *(f"{n:,} labels" for n in SHOWN))
    conditions = (
        f"{results['dataset']['name'].upper()}, {settings['n_images']:,} images without labels, {settings['epochs']} "
        f"epochs; mean and standard deviation of {settings['n_seeds']} seeds."
    )
    return f"{table(head, rows, numbers=True)}\n\n{conditions}"


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
    pages = ", ".join(f"[{page.stem}]({link(page, RESULTS)})" for page in sorted(PUBLISHED.glob("*.html")))
    data, n_images = results["dataset"], results["settings"]["n_images"]
    explained = f"""Linear probes on frozen encoders that were pretrained on {n_images:,} images of
    {data["name"].upper()} without labels; all {data["test"]:,} test images; mean and standard deviation over the seeds,
    each of which also draws other images and other labels. "Random initialisation" has two readings, and both are here:
    a frozen random encoder under the same linear classifier, and the same network trained from scratch. A difference is
    paired, by seed, test image and draw of labels. Where an arm was trained on the first draw only, the difference is
    of this draw, and need not be that of the two means. Below the recipes: the other arms of the first report."""
    parts = (
        recipes_table({recipe_name(own): own for own in reports.values()}),
        wrapped(explained),
        wrapped(savings_sentence(results["metrics"], results["savings"], min(SHOWN))),
        wrapped(projections(results)),
        "How each was made:",
        "\n".join(wrapped(_made(folder, own), "- ") for folder, own in reports.items()),
        f"Pages of the first report: {pages}; its numbers: "
        f"[results.json]({link(PUBLISHED / 'results.json', RESULTS)}).",
    )
    return "\n\n".join(parts)


def recipes_table(reports: Mapping[str, Results], budgets: Sequence[int] = SHOWN) -> str:
    """Several reports' linear probes beside each other, each with its networks from scratch, and the differences from
    the better one and from the random encoder; then the other arms of the first report.

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
        better = "better than the better of these" if len(scratch) > 1 else "better"
        above = _above(results, budgets, partial(better_from_scratch, metrics), several)
        rows.append((f"– pretraining is {better} by", *above, ""))
        above = _above(results, budgets, lambda _: "random_encoder", several)
        if set(above) != {"–"}:
            rows.append(("– pretraining is better than the frozen random encoder by", *above, ""))
        if results is not first and several:
            other = [_above_other(metrics, first["metrics"], n) for n in budgets]
            rows.append(("– … than the network from scratch under the first recipe's augmentations by", *other, ""))
    metrics = first["metrics"]
    for arm in ARMS:
        if arm not in ("linear", *SCRATCH) and any(f"{arm}_accuracy@{n}" in metrics for n in budgets):
            rows.append((ARMS[arm].name, *_cells(metrics, arm, budgets), ""))
    return table(head, rows, numbers=True)


def _cells(metrics: Results, arm: str, budgets: Sequence[int] = SHOWN) -> list[str]:
    names = [f"{arm}_accuracy@{n}" for n in budgets]
    return [_cell(metrics[name]) if name in metrics else "–" for name in names]


def _cell(metric: Results) -> str:
    """An accuracy without its unit, with the standard deviation over seeds if there are several."""
    spread = f" ± {metric['std']:.2f}" if metric["n_seeds"] > 1 else ""
    return f"{metric['mean']:.2f}{spread}"


def _above(results: Results, budgets: Sequence[int], arm_of: Callable[[int], str], with_p: bool) -> list[str]:
    """The linear probe less the arm that `arm_of` gives for a number of labels. A p-value of one seed, which is of its
    test images alone, is left out."""
    cells = []
    for n in budgets:
        d = results["comparisons"].get(f"linear_accuracy@{n} - {arm_of(n)}_accuracy@{n}")
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
        f"[{recipe_name(results)}]({link(PUBLISHED.with_name(folder) / '02_linear_eval.html', RESULTS)}): "
        f"`{made['command']}`; {seconds['pretrain'] / 60 / n:.1f} minutes of pretraining{' a seed' if n > 1 else ''}, "
        f"{made['threads']} thread{'s' if made['threads'] > 1 else ''}, {made['precision']}; from scratch "
        f"{settings['supervised_steps']:,} steps"
    )


def ablations() -> str:
    """What the published ablations found, with a link."""
    folder = PUBLISHED.with_name(ABLATIONS)
    results = read_json(folder / "results.json")
    return wrapped(
        f"{results['answers']['03_ablations']['answer']} Each finding, with its interval: "
        f"[03_ablations]({link(folder / '03_ablations.html', RESULTS)}), by `{results['provenance']['command']}`."
    )


def encoders() -> str:
    """The published encoders and how to load one."""
    folders = sorted(path.parent for path in PUBLISHED.glob("encoders/*/encoder.safetensors"))
    names = "\n".join(f"- [{path.name}]({link(path, RESULTS)})" for path in folders)
    return f"""\
{names}

```python
from contrastive import load_encoder

encoder = load_encoder("{folders[0].relative_to(ROOT).as_posix()}")
```"""


# --- Speed --------------------------------------------------------------------------------------------------------


def speed(measured: Results) -> str:
    """What `make bench` measured for the published report."""
    page, numbers = (link(path, PERFORMANCE) for path in (BENCHMARKS.with_suffix(".html"), BENCHMARKS))
    explained = f"""Unlabelled images per second of pretraining; seconds of pretraining until a linear probe with
    {measured["goal"]["n_labels"]:,} labels gets there; views per second of augmentation in colour by one thread (extra
    memory, as a multiple of the views'); milliseconds (extra MiB) for NT-Xent and its gradient on N images. ResNet-18:
    images of 32 pixels in colour, made up, in batches of {measured["resnet18"]["batch_size"]}.
    {conditions(measured)} {goal_conditions(measured["goal"])} All arms train the same layers; only ratios within one
    run mean anything. The report: [benchmarks]({page}); numbers: [benchmarks.json]({numbers})."""
    methods = ", ".join(f"{name} {rate['median']:,.0f}" for name, rate in measured["methods"].items())
    whole = "; ".join(
        f"`{name}` {took['seconds']:.0f} s, {took['MiB']:,.0f} MiB" for name, took in measured["report"].items()
    )
    more = f"Images/s here by method: {methods}. A whole report, from the command to its pages: {whole}."
    return f"{speed_table(measured)}\n\n{wrapped(explained)}\n\n{wrapped(more)}"
