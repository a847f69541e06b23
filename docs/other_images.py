"""What README and docs/results.md say of the published reports on other images than MNIST's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contrastive.evaluation import ARMS, SCRATCH, better_from_scratch
from contrastive.report.tables import NAMES, with_interval
from contrastive.storage.files import read_json

from .markdown import ROOT, link, table, wrapped

PHOTOGRAPHS, XRAYS = "cifar10-5000", "pneumoniamnist"
TITLES = {PHOTOGRAPHS: "Photographs: 5,000 images of CIFAR-10", XRAYS: "Chest X-rays: PneumoniaMNIST"}
FEW = 100  # labels
FEWEST = 5  # numbers of labels that a table has at most
RESULTS = "docs/results.md"

Results = Mapping[str, Any]


def _results(name: str) -> Results:
    return read_json(ROOT / "reports" / "published" / name / "results.json")


def photographs() -> str:
    """For README: what each way gets out of few labels of photographs."""
    results = _results(PHOTOGRAPHS)
    metric, n = results["headline_metric"], max(n for n in _numbers(results, SCRATCH[0]) if n <= FEW)
    ways = ("general", "linear", better_from_scratch(results["metrics"], n, metric))
    general, own, scratch = (f"{results['intervals'][f'{arm}_{metric}@{n}']['mean']:.0f} %" for arm in ways)
    return wrapped(
        f"**Your images are photographs.** With {n} labels of CIFAR-10, "
        f"[ImageNet features](docs/method.md#imagenet-features) get {general}, own pretraining {own}, labels alone "
        f"{scratch}.",
        "- ",
    )


def other_images() -> str:
    """For docs/results.md: each report's answer, its numbers by arm and number of labels, and how it was made."""
    return "\n\n".join(_section(name) for name in TITLES)


def _section(name: str) -> str:
    results, page = _results(name), ROOT / "reports" / "published" / name / "02_linear_eval.html"
    answer = " ".join(results["answers"]["02_linear_eval"]["answer"].split())
    metrics = dict.fromkeys((results["headline_metric"], "macro_auc"))
    data, settings = results["dataset"], results["settings"]
    made = wrapped(
        f"{data['pretrain']:,} images to pretrain on, {settings['epochs']} epochs; {data['judged']:,} test images; "
        f"mean and 95 % interval of {settings['n_seeds']} seeds. The report: "
        f"[02_linear_eval]({link(page, RESULTS)}), by `{results['provenance']['command']}`."
    )
    tables = [_table(results, metric) for metric in metrics]
    return "\n\n".join((f"### {TITLES[name]}", wrapped(answer), *tables, made))


def _table(results: Results, metric: str) -> str:
    """Arms by numbers of labels: those that networks from scratch had too, and all."""
    numbers = _numbers(results, SCRATCH[0])[-FEWEST:]
    rows = []
    for arm in ARMS.values():
        own = [results["intervals"].get(f"{arm.id}_{metric}@{n}") for n in numbers]
        if any(own):
            rows.append((arm.name, *(with_interval(value) if value else "–" for value in own)))
    return table((f"{NAMES[metric]} (%) with", *(f"{n:,} labels" for n in numbers)), rows, numbers=True)


def _numbers(results: Results, arm: str) -> list[int]:
    """The numbers of labels that an arm was measured with."""
    start = f"{arm}_accuracy@"
    return sorted(int(name.removeprefix(start)) for name in results["intervals"] if name.startswith(start))
