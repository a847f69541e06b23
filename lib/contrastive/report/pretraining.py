"""What 01_pretrain says of a training, for every method alike."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..data import Images, counted
from ..encoders import IMAGENET, RANDOM
from ..evaluation.diagnostics import paired_share
from ..evaluation.statistics import standard_error, summary
from ..methods import Logged, Method
from ..settings import Settings
from ..training import Run, load_method, untrained_method

Conclusion = tuple[str, list[tuple[str, str, str]], str]  # answer, key numbers, what the spreads are


def logged(method: Method) -> tuple[str, Logged] | None:
    """What the method logs beside the loss, first of all; None if it logs nothing."""
    return next(iter(method.LOG.items()), None)


def first_weights(settings: Settings) -> str:
    """The weights that pretraining went on from, in words; empty if they were random."""
    own = settings.encoder
    if own.initial_weights == RANDOM:
        return ""
    return "weights that others trained" if own.initial_weights == IMAGENET else f"those of {own.initial_weights}"


def first_weights_sentence(settings: Settings) -> str:
    """Which weights pretraining went on from, and what that means for a reader; empty if they were random."""
    if not (whose := first_weights(settings)):
        return ""
    return (
        f"Pretraining does not start from random weights. It goes on from {whose} (checksum "
        f"{(settings.encoder.initial_sha256 or '')[:8]}). So where the trained encoder does better than one with "
        "random weights, these images are not the only reason; 02_linear_eval also measures the encoder as it was "
        "before."
    )


def training_sentence(method: Method, run: Run) -> str:
    """How the loss fell, and what else was logged, in Markdown."""
    first, last, size = run.history[0], run.history[-1], run.settings.optimiser.batch_size
    said = f"The loss went from {first['loss']:.2f} in the first epoch to **{last['loss']:.2f}**"
    said += f"; chance is {last['chance_loss']:.2f}." if "chance_loss" in last else "."
    for key, what in method.LOG.items():
        said += f" In the last epoch, {what.label}: **{what.show(last[key])}**"
        said += f" (by chance: {what.show(what.chance(size))})." if what.chance else "."
    return said


def neighbours_sentence(shares: Mapping[str, float] | None) -> str:
    """How often neighbours share the image's class, by encoder, in Markdown."""
    if not shares:
        return "No image has a label that could tell whether neighbours are of one class."
    parts = ", ".join(f"{name} **{share:.1f} %**" for name, share in shares.items())
    return f"Over all of them, as many of the seven nearest share the image's class: {parts}."


def same_class_share(labels: Tensor, rows: Sequence[Sequence[int]]) -> float:
    """How many of each image's neighbours share its class, in percent; the first of a row is the image itself."""
    classes = labels[torch.tensor(rows)]
    return 100 * (classes[:, 1:] == classes[:, :1]).float().mean().item()


def paired_shares(runs: Sequence[Run], images: Tensor) -> dict[str, list[float]]:
    """How many of two views of each of these uint8 images are nearest to their partner, in percent, for each run: by
    its encoder with random first weights, and pretrained."""
    return {
        "random encoder": [paired_share(untrained_method(run), images) for run in runs],
        "pretrained encoder": [paired_share(load_method(run), images) for run in runs],
    }


def metrics(paired: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """What can be measured without labels, for `record`."""
    names = {"pretrained encoder": "paired_share", "random encoder": "random_encoder_paired_share"}
    return {names[whose]: summary(list(values)) for whose, values in paired.items()}


def conclusion(
    method: Method,
    runs: Sequence[Run],
    images: Images,
    shares: Mapping[str, float] | None,
    paired: Mapping[str, Sequence[float]],
    n_test: int,
) -> Conclusion:
    """The answer of 01_pretrain.

    Args:
        method: of the runs.
        runs: one for each seed.
        images: that they were trained on.
        shares: of a test image's neighbours that are of its class, in percent, by the random and by the pretrained
            encoder; None where there are no labels.
        paired: what `paired_shares` gave.
        n_test: how many test images that was measured on.
    """
    settings, several = runs[0].settings, len(runs) > 1
    before, after = (shares or {name: fmean(values) for name, values in paired.items()}).values()
    said = f"{method.TITLE or settings.method.name} trained on {settings.data.n_images:,} images of {images.name} for "
    start = f", going on from {whose}" if (whose := first_weights(settings)) else ""
    said += f"{counted(settings.optimiser.epochs, 'epoch')}{start}. "
    if shares:
        what, spread = "neighbours of the same class", "of neighbours"
        said += (
            f"Of a test image's seven nearest neighbours, {after:.1f} % now share its class; with random weights "
            f"{before:.1f} % did. "
        )
        said += "It read the labels of these images." if method.NEEDS_LABELS else "No label was used."
    else:
        what, spread = "held-out views that find their partner", "of views"
        said += (
            f"Of two views of each of {n_test:,} images that it never saw, {after:.1f} % are nearest to their partner; "
            f"with random weights {before:.1f} % were. No image has a label that can be used, so what a classifier "
            "would get from these features is not known: label the images that are listed below, and this report can "
            "tell."
        )
    spread += f", 95 % interval from {n_test:,} test images, one seed"
    spread += "; of training, over seeds" if several else ""
    numbers = []
    if (first := logged(method)) is not None:
        key, logs = first
        scale, unit = (100, " %") if logs.is_share else (1, "")
        over_seeds = summary([scale * run.history[-1][key] for run in runs])
        label = f"{logs.label}, in the last epoch" + (f" ({logs.unit})" if logs.unit else "")
        spread_of_it = f"± {over_seeds['std']:.1f}" if several else ""
        numbers.append((f"{over_seeds['mean']:.{1 if scale == 100 else 2}f}{unit}", spread_of_it, label))
    for share, whose in ((after, "pretrained"), (before, "random")):
        interval = f"± {1.96 * standard_error(share, n_test):.1f}"
        numbers.append((f"{share:.1f} %", interval, f"{what}, {whose} encoder"))
    seconds, rate = sum(run.seconds for run in runs) / len(runs), runs[0].images_per_second
    what_time = f"of training{' a seed' if several else ''}, at {rate:,.0f} images/s"
    return said, [*numbers, (f"{seconds:,.0f} s", "", what_time)], spread
