"""Evaluations that are made up: which images each way got right, and what a report finds in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from contrastive import Settings, resolve
from contrastive.encoders import zoos
from contrastive.encoders.general import GeneralEncoder
from contrastive.evaluation import Evaluation, Findings, Key
from contrastive.evaluation.judging import Judging, how_judged
from contrastive.evaluation.metrics import COMPARED, Row

from .few_images import images_of, without_test

Right = Mapping[str, Mapping[int, object]]  # arm -> number of labels -> draws x images, or images: 1 where it is right


def scores_of(right: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Class probabilities that are right where asked: 0.9 for the label, or for the class after it."""
    scores = np.full((len(labels), n_classes), 0.1 / (n_classes - 1))
    scores[np.arange(len(labels)), np.where(right, labels, (labels + 1) % n_classes)] = 0.9
    return scores


def some_right(n: int, share: float, seed: int = 0) -> np.ndarray:
    """Of n images that share right, drawn by the seed; of one seed, a larger share holds the smaller."""
    right = np.zeros(n, int)
    right[np.random.default_rng(seed).permutation(n)[: round(share * n)]] = 1
    return right


def evaluation(
    right: Right,
    labels: np.ndarray,
    headline: int,
    seed: int = 0,
    costs: Mapping[str, float] | None = None,
) -> Evaluation:
    """An evaluation in which images were right as given."""
    classes = int(labels.max()) + 1
    rows, values, shown = [], {}, torch.empty(0)
    for arm, budgets in right.items():
        for n, given in budgets.items():
            for draw, own in enumerate(np.atleast_2d(np.asarray(given))):
                scores = scores_of(own, labels, classes)
                if (arm, n, draw) == ("linear", headline, 0):
                    shown = torch.from_numpy(scores).float()
                for metric, values_of in COMPARED.items():
                    key, row = str(Key(metric, arm, n)), values_of(scores, labels)
                    values.setdefault(key, []).append(torch.from_numpy(row).float())
                    rows.append(Row(arm, metric, n, "", seed, draw, 100 * float(row.mean())))
    guess = np.zeros((len(labels), classes))
    guess[:, np.bincount(labels).argmax()] = 1
    rows += [
        Row("majority_class", metric, None, "", seed, 0, 100 * float(of(guess, labels).mean()))
        for metric, of in COMPARED.items()
    ]
    stacked = {name: torch.stack(own) for name, own in values.items()}
    return Evaluation(rows, headline, shown, stacked, dict(costs or {}), 1.0, True)


def judged(labels: Sequence[int] | np.ndarray, folds: int = 5, groups: Sequence[int] | None = None) -> Judging:
    """How these images were judged: cross-validated, or, with no folds, by a test split."""
    labels = torch.as_tensor(np.asarray(labels))
    n_classes = int(labels.max()) + 1
    images = without_test(len(labels), n_classes=n_classes) if folds else images_of(60, n_classes=n_classes)
    if folds:
        images = dataclasses.replace(images, train_labels=labels)
    settings, images = resolve(Settings(preset="smoke", general="none"), images)
    own = how_judged(images, settings)
    numbers = torch.as_tensor([] if groups is None else groups, dtype=torch.int64)
    if folds:
        return dataclasses.replace(own, groups=numbers, n_folds=folds)
    noise = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (len(labels), 1, 28, 28), np.uint8))
    return dataclasses.replace(own, pixels=noise, labels=labels, groups=numbers)


def findings(
    right: Right,
    labels: np.ndarray,
    headline: int,
    few: int | None = None,
    folds: int = 5,
    groups: Sequence[int] | None = None,
    n_seeds: int = 1,
    costs: Mapping[str, float] | None = None,
    pretraining_seconds: float = 0.0,
) -> Findings:
    """What is found, where images were right as given, with each of so many seeds."""
    found = [evaluation(right, labels, headline, seed, costs) for seed in range(n_seeds)]
    return Findings(found, judged(labels, folds, groups), few or headline, pretraining_seconds)


def tiny_general(side: int = 16) -> GeneralEncoder:
    """A network in place of one that others trained, which takes no time: patches of an image, mixed at random."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, 4), torch.nn.ReLU(), torch.nn.Flatten())
    network = zoos.Network(body, 16 * (side // 4) ** 2, (0.5,) * 3, (0.5,) * 3)
    return GeneralEncoder("tiny", network, 16 * (side // 4) ** 2, side).eval().requires_grad_(False)
