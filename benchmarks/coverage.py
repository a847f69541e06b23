"""`python -m benchmarks.coverage`: how often the 95 % intervals hold what they should, on MNIST.

Some labels are drawn, again and again, from training images. A linear probe on a published encoder's frozen features is
judged with these labels alone, and its interval is compared with the accuracy on the 10,000 test images, and on 10,000
other training images: MNIST's test images are a little easier, which no interval from training images can know. So are
intervals that take images for independent and folds for one fit: mean ± 1.96 binomial standard errors.

The same is done with data made of groups: of each image there are five copies, moved, turned and with noise, which have
one label. They stay together in folds and splits. The images compared with are altered so as well, once each.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from contrastive import load_encoder, load_images
from contrastive.data import Images
from contrastive.encoders import Encoder
from contrastive.evaluation.probes import Probe, embed, fit_probe, unit_length
from contrastive.evaluation.statistics import Design, interval
from contrastive.settings import UserError
from contrastive.storage.files import atomic_write

ENCODERS = Path(__file__).parent.parent / "reports" / "published" / "mnist-digits" / "encoders"
N_LABELS = (60, 200, 1000)
SPLIT_FROM = 1000  # labels: a fifth of as many are a test split
FOLDS, REPEATS = 5, 5
COPIES = 5
POOL = 10_000  # training images that are drawn from
LEAST_TO_CHOOSE = 50  # images: of fewer none is spared to choose a penalty with
HEADS = [
    "labels", "images", "judged by", "draws", "others", "estimate", "folds", "all labels", "covers folds", "covers all",
    "width", "naive, covers folds", "naive, covers all", "naive, width",
]  # fmt: skip
ENDS = ("low", "high", "naive_low", "naive_high")


@dataclass(frozen=True)
class Pool:
    """What is drawn from. features: float32 groups x copies x D, of unit length. labels: int64 groups. others: features
    N x D and labels N of the images that are compared with, by what these are called."""

    features: Tensor
    labels: Tensor
    others: dict[str, tuple[Tensor, Tensor]]

    def rows(self, groups: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features and labels of all images of groups."""
        return self.features[groups].flatten(0, 1), self.labels[groups].repeat_interleave(self.features.shape[1])


@dataclass(frozen=True)
class Judged:
    """One draw. mean, low, high: of the interval, in shares; naive_low, naive_high: of the other one. same, full: the
    accuracy on other images, by what these are called, of the probes that were judged, and of one fitted to all labels.
    """

    mean: float
    low: float
    high: float
    naive_low: float
    naive_high: float
    same: dict[str, float]
    full: dict[str, float]


def altered(images: Tensor, generator: Generator) -> Tensor:
    """Each image turned by up to 8 degrees, moved by up to 1.5 pixels, and with some noise; uint8 N x C x H x W."""
    n, side = len(images), images.shape[-1]
    angle, x, y = (2 * torch.rand(3, n, generator=generator) - 1) * torch.tensor([[math.radians(8)], [1.5], [1.5]])
    first = torch.stack([angle.cos(), -angle.sin(), 2 * x / side], 1)
    second = torch.stack([angle.sin(), angle.cos(), 2 * y / side], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images.float(), grid, align_corners=False)
    return (moved + 8 * torch.randn(moved.shape, generator=generator)).clamp(0, 255).round().to(torch.uint8)


def make_pool(images: Images, encoder: Encoder, copies: int) -> Pool:
    """Features of the images that are drawn from, as they are or as altered copies, and of those compared with."""
    generator = Generator().manual_seed(0)
    order = torch.randperm(len(images.train), generator=generator)
    chosen, rest = order[:POOL], order[POOL : 2 * POOL]
    train = images.train[chosen].repeat_interleave(copies, 0)
    others = {"test": (images.test, images.test_labels), "training": (images.train[rest], images.train_labels[rest])}
    if copies > 1:
        train = altered(train, generator)
        others = {name: (altered(x, generator), y) for name, (x, y) in others.items()}
    features = unit_length(embed(encoder, train)).view(len(chosen), copies, -1)
    embedded = {name: (unit_length(embed(encoder, x)), y) for name, (x, y) in others.items()}
    return Pool(features, images.train_labels[chosen], embedded)


def stratified(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fold for each label, of each class as equally many as can be."""
    fold = np.empty(len(labels), np.int64)
    fold[np.lexsort((rng.random(len(labels)), labels))] = np.arange(len(labels)) % FOLDS
    return rng.permutation(FOLDS)[fold]


def fitted(pool: Pool, groups: np.ndarray, rng: np.random.Generator) -> Probe:
    """A probe fitted to groups, its penalty chosen with a fifth of them unless they are few."""
    choose = stratified(pool.labels[groups].numpy(), rng) == 0
    if len(groups) * pool.features.shape[1] < LEAST_TO_CHOOSE:
        choose[:] = False
    return fit_probe(pool.rows(groups[~choose]), pool.rows(groups[choose]), 10)


def accuracies(features: Tensor, labels: Tensor, probes: list[Probe]) -> np.ndarray:
    """Shares of images, with features of unit length, that each probe is right on."""
    weight, bias = torch.cat([probe.weight for probe in probes]), torch.cat([probe.bias for probe in probes])
    scores = F.linear(features, weight, bias).view(len(features), len(probes), -1)
    return (scores.argmax(2) == labels[:, None]).double().mean(0).numpy()


def judge(pool: Pool, n: int, seed: int) -> Judged:
    """Draw n labels, in whole groups, and judge the probe with them."""
    rng = np.random.default_rng([n, seed])
    copies, split = pool.features.shape[1], n >= SPLIT_FROM
    groups = rng.choice(len(pool.labels), n // copies, replace=False)
    folds = [stratified(pool.labels[groups].numpy(), rng) for _ in range(1 if split else REPEATS)]
    probes, tries = [], np.zeros((len(folds), len(groups), copies))
    for repeat, fold in enumerate(folds):
        for k in range(1 if split else FOLDS):
            probes.append(fitted(pool, groups[fold != k], rng))
            features, labels = pool.rows(groups[fold == k])
            right = probes[-1].scores(features).argmax(1) == labels
            tries[repeat, fold == k] = right.view(-1, copies).numpy()
    judged = folds[0] == 0 if split else np.ones(len(groups), bool)
    names = np.repeat(np.arange(len(groups))[judged], copies) if copies > 1 else np.zeros(0, np.int64)
    values = tries[:, judged].reshape(1, len(folds), -1)
    found = interval(values, Design(names, 0 if split else FOLDS))
    error = math.sqrt(found.mean * (1 - found.mean) / values.shape[2])
    probes.append(fitted(pool, groups, rng))
    true = {name: accuracies(x, y, probes) for name, (x, y) in pool.others.items()}
    same, full = ({name: float(x[part].mean()) for name, x in true.items()} for part in (slice(-1), -1))
    naive = found.mean - 1.96 * error, found.mean + 1.96 * error
    return Judged(found.mean, found.low, found.high, *naive, same, full)


def summarised(n: int, copies: int, judged: list[Judged], others: str) -> dict[str, float | str]:
    """A row of the table: percent and points."""
    of = {name: np.array([getattr(one, name) for one in judged]) for name in ("mean", *ENDS)}
    same, full = (np.array([getattr(one, name)[others] for one in judged]) for name in ("same", "full"))
    row: dict[str, float | str] = {
        "labels": n, "images": "groups of 5" if copies > 1 else "single",
        "judged by": "test split" if n >= SPLIT_FROM else f"{FOLDS} folds x {REPEATS}",
        "draws": len(judged), "others": others,
        "estimate": 100 * of["mean"].mean(), "folds": 100 * same.mean(), "all labels": 100 * full.mean(),
    }  # fmt: skip
    for kind, start in (("", ""), ("naive, ", "naive_")):
        low, high = of[f"{start}low"], of[f"{start}high"]
        row[f"{kind}covers folds"] = 100 * float(np.mean((low <= same) & (same <= high)))
        row[f"{kind}covers all"] = 100 * float(np.mean((low <= full) & (full <= high)))
        row[f"{kind}width"] = 100 * float(np.mean(high - low))
    return row


def as_line(cells: list[str]) -> str:
    """Cells of a table, in columns."""
    return "".join(cell.rjust(max(len(head), 11) + 2) for cell, head in zip(cells, HEADS, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Measure and print. Returns the exit code: 0, or 2 when the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--draws", type=int, default=50, help="of the labels, for each row")
    parser.add_argument("--out", type=Path, help="file for the numbers as JSON")
    args = parser.parse_args(argv)
    if args.draws < 1:
        parser.error("--draws has to be at least 1")
    try:
        images = load_images("mnist")
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    encoder, start = load_encoder(min(ENCODERS.iterdir())), time.perf_counter()
    rows, each = [], []
    print(as_line(HEADS), flush=True)
    for copies in (1, COPIES):
        pool = make_pool(images, encoder, copies)
        for n in N_LABELS:
            judged = [judge(pool, n, seed) for seed in range(args.draws)]
            for others in pool.others:
                row = summarised(n, copies, judged, others)
                shown = [row[head] for head in HEADS]
                print(as_line([f"{x:.1f}" if isinstance(x, float) else str(x) for x in shown]), flush=True)
                rows.append(row)
            each.append({"labels": n, "copies": copies, "judged": [asdict(one) for one in judged]})
    print(f"{time.perf_counter() - start:.0f} s; percent and points")
    if args.out:
        atomic_write(args.out, (json.dumps({"rows": rows, "each": each}, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
