"""Checks that data are what they seem, and that a run has learned something and did not collapse."""

from typing import Any

import torch
from torch import Tensor

from ..data import Images, across_splits
from ..methods import Method
from ..training import Run, load_method
from ..training.loop import Epoch
from .diagnostics import effective_rank, feature_std

# What a trained network has and a collapsed one has not. Runs on digits and MNIST that collapsed (learning rates of 1
# and 10, on MNIST also 0.1) had projections with a spread of at most 0.10 and an effective rank below 2, and a loss
# that went at most 8 % of its way. Untrained networks have a spread of 0.2 to 0.5 and go 2 to 6 % of the way. After
# some epochs at sensible rates, at any temperature, the spread is above 0.6, the rank above 20, the way above 25 %.
MIN_SPREAD, MIN_RANK, MIN_DROP = 0.25, 5.0, 0.1
# Share of test images that may be copies of training images: half a point of accuracy at most. Photographs are taken
# several times: of the thousand test images of a part of CIFAR-10, two are near copies of its training images.
COPIES, EXACT_COPIES = 0.005, 0.001
FEWEST = 8  # images of which a collapse can be told
TIMES_CHANCE = 10  # views of one image resemble each other before any training: a little above chance means nothing


def loss_drop(last: Epoch) -> float | None:
    """How far the loss went from chance (0) to about the lowest that there is (1); None where these are not defined."""
    if "chance_loss" not in last:
        return None
    return (last["chance_loss"] - last["loss"]) / (last["chance_loss"] - last["lowest_loss"])


def check(name: str, passed: bool, seen: Any, expected: str) -> dict[str, Any]:
    """One check for `record(checks=[...])`: what was seen, in words or as a number, against what was expected."""
    return {"name": name, "passed": bool(passed), "seen": seen, "expected": expected}


@torch.no_grad()
def health(run: Run, images: Tensor) -> list[dict[str, Any]]:
    """Checks, for `record`, of a run, on uint8 images that it did not see."""
    method, of_seed = load_method(run), f" (seed {run.settings.runtime.seed})"
    checks = history_checks(method, run.history[-1], run.settings.optimiser.batch_size)
    checks += collapse_checks(method, images)
    return [{**item, "name": item["name"] + of_seed} for item in checks]


def history_checks(method: Method, last: Epoch, batch_size: int) -> list[dict[str, Any]]:
    """That the loss left chance, and that what is logged did, where the method tells what chance would give."""
    checks = []
    if (drop := loss_drop(last)) is not None:
        seen = f"loss {last['loss']:.3f}, {100 * drop:.0f} % of the way"
        expected = (
            f"more than {100 * MIN_DROP:.0f} % of the way from {last['chance_loss']:.3f}, where nothing is "
            f"told apart, to {last['lowest_loss']:.3f}"
        )
        checks.append(check("the loss left chance", drop > MIN_DROP, seen, expected))
    for name, logged in method.LOG.items():
        if logged.chance is not None and logged.is_share:
            chance = logged.chance(batch_size)
            least = min(TIMES_CHANCE * chance, (1 + chance) / 2)  # of few views, ten times chance is more than all
            seen, expected = (f"{100 * x:.1f}" for x in (last[name], least))
            said = f"more than {expected} %; chance is {100 * chance:.1f} %"
            checks.append(check(logged.label, last[name] > least, f"{seen} {logged.unit}", said))
        if logged.least is not None:
            passed, expected = last[name] > logged.least, f"more than {logged.show(logged.least)}"
            checks.append(check(logged.label, passed, logged.show(last[name]), expected))
    return checks


def collapse_checks(method: Method, images: Tensor) -> list[dict[str, Any]]:
    """That features and projections are neither at one point nor in a few dimensions; nothing of too few images."""
    checks: list[dict[str, Any]] = []
    if len(images) < FEWEST:
        return checks
    names = {"h": "features", "z": "projections"}
    for name, x in method.representations(method.encoder(method.encoder.prepare(images))).items():
        # After ReLU, features lie in one corner of the sphere, where they spread less.
        spread, least = feature_std(x), 0.4 * MIN_SPREAD if name == "h" else MIN_SPREAD
        rank, least_rank = effective_rank(x), min(MIN_RANK, x.shape[1] / 2)
        seen = f"spread {spread:.2f}, effective rank {rank:.0f}"
        expected = f"spread above {least:g} (one point: 0, even over the sphere: 1), rank above {least_rank:g}"
        title = f"no collapse of the {names.get(name, name)}"
        checks.append(check(title, spread > least and rank > least_rank, seen, expected))
    return checks


def data_checks(images: Images) -> list[dict[str, Any]]:
    """That no test image is a copy of a training image, and that no group has both, for `record`. Nothing where there
    is no test split: then images that were held out are only looked at."""
    if images.cross_validated or not len(images.test):
        return []
    n_test = len(images.test)
    near, exact = (across_splits(images, only_exact)[1] for only_exact in (False, True))
    most, most_exact = (max(1, int(share * n_test)) for share in (COPIES, EXACT_COPIES))
    passed = len(near) <= most and len(exact) <= most_exact
    expected = f"at most {most} of {n_test:,}, {most_exact} exact; -p drop_copies=true leaves such training images out"
    name, seen = "few test images are copies of training images", f"{len(near)}, {len(exact)} of them exact"
    checks = [check(name, passed, seen, expected)]
    if len(images.groups):
        n = images.straddling
        checks.append(check("no group has both training and test images", n == 0, f"{n:,} have both", "none"))
    return checks
