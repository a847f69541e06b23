"""What a run's features are worth: probes over label budgets, beside their controls; and statistics of the results."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Generator, Tensor, nn
from tqdm import tqdm

from .data import Images, load_images, split
from .diagnostics import diagnose
from .files import DamagedError, atomic_write, locked, read_json, say, write_json
from .pretrain import TRAINING_CODE, Run, code_hash, load_encoder
from .probes import embed, fit_probe, knn_predict, percent_right, weights_hash
from .settings import Settings
from .training import augmentations, initial_method, keep_freed_memory, lr_schedule, parameter_groups

# What is compared on the same labels: prefix of the metric -> name
ARMS = {
    "linear": "pretrained, frozen + linear",
    "supervised": "same CNN from scratch",
    "random_encoder": "random, frozen + linear",
    "raw_pixel": "raw pixels + linear",
}
HEADLINE_LABELS = 30_000


def most_confused(probabilities: Tensor, labels: Tensor, n_classes: int) -> tuple[list, np.ndarray]:
    """The mistakes, surest first, as (index, true, predicted, probability); and counts, true x predicted."""
    sure, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[sure[wrong].argsort(descending=True)]
    rows = [(int(i), int(labels[i]), int(predicted[i]), float(sure[i])) for i in order]
    counts = torch.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return rows, counts.view(n_classes, n_classes).numpy()


def train_from_scratch(settings: Settings, data: Tensor, labels: Tensor) -> nn.Sequential:
    """The same CNN with a linear layer, trained on labels alone, with the augmentations of the pretraining.

    data: uint8 N x C x H x W; labels: int64 N. At least `supervised_steps` steps and one pass, in batches of 128.
    """
    device = data.device
    encoder = initial_method(settings).encoder.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = nn.Sequential(encoder, nn.Linear(encoder.feature_dim, int(labels.max()) + 1).to(device)).train()
    batch = min(128, len(data))
    steps = max(settings.supervised_steps, math.ceil(len(data) / batch))
    schedule = lr_schedule(settings.but(epochs=steps, warmup_epochs=min(50, steps // 5), schedule="cosine", lr=2e-3), 1)
    augment, _ = augmentations(settings, encoder, data)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2), fused=True)
    shuffle, draws = Generator().manual_seed(settings.seed), Generator(device).manual_seed(settings.seed)
    order = torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(data), generator=shuffle).to(device)
        index, order = order[:batch], order[batch:]
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        views = augment(data[index], draws).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bfloat16"):
            logits = model(views)
        loss = F.cross_entropy(logits.float(), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


# --- The evaluation of a run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one run: metrics (percent where they are accuracies) and seconds it took.

    probabilities: of the headline probe, float32, one row per test image. headline: its number of labels.
    """

    metrics: dict[str, float]
    headline: int
    probabilities: Tensor
    seconds: float
    encoder_unchanged: bool


def headline_labels(budgets: tuple[int, ...]) -> int:
    """The budget that the report leads with: 30,000 labels (half of MNIST), else the largest one below, or all."""
    return max((n for n in budgets if n <= HEADLINE_LABELS), default=budgets[0])


def evaluate(run: Run, progress: bool = True) -> Evaluation:
    """Measure a run's frozen encoder and its controls on the test images; or load what was measured before."""
    settings = run.settings
    asked = {
        "budgets": settings.budgets,
        "supervised_steps": settings.supervised_steps,
        "encoder": weights_hash(load_encoder(run)),
        "code": code_hash((*TRAINING_CODE, "probes", "evaluate", "diagnostics")),
    }
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    with locked(run.folder, "evaluating it"):
        if (evaluation := _measured(run.folder, key)) is None:
            evaluation = _evaluate(run, progress)
            values = {name: value for name, value in vars(evaluation).items() if name != "probabilities"}
            content = save({"probabilities": evaluation.probabilities.contiguous()})
            atomic_write(run.folder / "predictions.safetensors", content)
            digest = hashlib.sha256(content).hexdigest()
            write_json(run.folder / "results.json", {"key": key, "predictions": digest, "evaluation": values})
    return evaluation


def _measured(folder: Path, key: str) -> Evaluation | None:
    """The evaluation in a run's folder, if it is the one of that key, and whole."""
    try:
        saved = read_json(folder / "results.json")
        if saved["key"] != key:
            return None
        content = (folder / "predictions.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != saved["predictions"]:
            raise DamagedError(f"{folder / 'predictions.safetensors'} is damaged: its checksum is wrong.")
        return Evaluation(probabilities=load(content)["probabilities"], **saved["evaluation"])
    except FileNotFoundError:
        return None
    except DamagedError as damage:
        say(f"{damage} The run is evaluated again.")
        return None
    except (SafetensorError, KeyError, TypeError):  # of another version
        return None


def _evaluate(run: Run, progress: bool) -> Evaluation:
    started = time.perf_counter()
    keep_freed_memory()
    settings, images = run.settings, load_images(run.settings)
    assert settings.budgets is not None
    assert settings.n_images is not None
    splits = split(images, settings.n_images, settings.seed)
    device = torch.device(settings.device)
    encoder = load_encoder(run).to(device)
    before = weights_hash(encoder)
    n_classes, headline = len(images.classes), headline_labels(settings.budgets)
    train_labels, test_labels = images.train_labels.to(device), images.test_labels.to(device)
    metrics: dict[str, float] = {}
    probabilities = torch.empty(0)

    def bar(what: str, items: Iterable) -> Iterable:
        return tqdm(items, desc=what, disable=not progress, mininterval=1, file=sys.stdout)

    random_encoder = initial_method(settings).encoder.to(device)
    for name, features_of in {
        "linear": lambda x: embed(encoder, x),
        "random_encoder": lambda x: embed(random_encoder, x),
        "raw_pixel": lambda x: x.to(device).flatten(1).float() / 255,
    }.items():
        train, test = features_of(images.train), features_of(images.test)
        for n in bar(f"probe on {name.replace('_', ' ')}", settings.budgets):
            fit, choose = (part.to(device) for part in splits.budget(n))
            probe = fit_probe((train[fit], train_labels[fit]), (train[choose], train_labels[choose]), n_classes)
            scores = probe.probabilities(test)
            metrics[f"{name}_accuracy@{n}"] = percent_right(scores, test_labels)
            if name == "linear" and n == headline:
                probabilities = scores.cpu()
        if name == "linear":
            bank = torch.cat(splits.budget(headline)).to(device)
            scores = knn_predict(train[bank], train_labels[bank], test, n_classes)
            metrics["knn_accuracy"] = percent_right(scores, test_labels)
            metrics |= diagnose(encoder, images.test[:2000].to(device), settings)
        del train, test  # before the next arm needs as much
    unchanged = weights_hash(encoder) == before

    data = images.train.to(device)
    for n in bar("CNN from scratch", settings.budgets):
        index = torch.cat(splits.budget(n)).to(device)
        model = train_from_scratch(settings, data[index], train_labels[index])
        metrics[f"supervised_accuracy@{n}"] = percent_right(_predict(model, images), test_labels)
    metrics["majority_class_accuracy"] = (
        100.0 * (test_labels == train_labels.cpu().mode().values.to(device)).sum().item() / len(test_labels)
    )
    return Evaluation(metrics, headline, probabilities, time.perf_counter() - started, unchanged)


@torch.no_grad()
def _predict(model: nn.Sequential, images: Images) -> Tensor:
    model.eval()
    encoder: Any = model[0]
    head = model[1]
    return torch.cat([head(encoder(encoder.prepare(batch))) for batch in images.test.split(512)])


def validation_accuracy(run: Run, n_labels: int) -> float:
    """Percent right on the validation images of a linear probe with `n_labels` labels: what choices are made by.

    The probe's own strength is chosen inside the labels, on a fifth of them, which are not validation images.
    """
    settings, images = run.settings, load_images(run.settings)
    splits = split(images, settings.n_images or 0, settings.seed)
    encoder = load_encoder(run).to(settings.device)
    index = splits.rest[:n_labels]
    n_choose = max(len(index) // 5, 1)
    features, labels = embed(encoder, images.train[index]), images.train_labels[index].to(settings.device)
    probe = fit_probe(
        (features[n_choose:], labels[n_choose:]), (features[:n_choose], labels[:n_choose]), len(images.classes)
    )
    validation = embed(encoder, images.train[splits.validation])
    return probe.accuracy(validation, images.train_labels[splits.validation].to(settings.device))


def aggregate(evaluations: list[Evaluation]) -> dict[str, dict[str, Any]]:
    """Each metric over seeds: mean, standard deviation (of a sample; 0 for one seed), n_seeds, values."""
    return {name: summary([e.metrics[name] for e in evaluations]) for name in evaluations[0].metrics}


def summary(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (0 for one), their number, and the values themselves."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "n_seeds": len(values), "values": list(values)}


def standard_error(percent: float, n: int) -> float:
    """Standard error, in points, of an accuracy measured on n images (binomial)."""
    share = min(max(percent / 100, 1 / n), 1 - 1 / n)
    return 100 * math.sqrt(share * (1 - share) / n)


def uncertainty(metric: Mapping[str, Any], n_test: int) -> tuple[float, str]:
    """How far an accuracy's mean can be trusted, in points, and what that is in words: the standard deviation over
    seeds or, with one seed, the 95 % interval that comes from the number of test images alone."""
    if metric["n_seeds"] > 1:
        return metric["std"], f"one standard deviation over {metric['n_seeds']} seeds"
    return 1.96 * standard_error(metric["mean"], n_test), f"95 % interval from {n_test:,} test images, one seed"


def labels_needed(curve: dict[int, float], accuracy: float) -> float | None:
    """Number of labels at which a label-budget curve reaches `accuracy`, interpolated on a logarithmic axis of labels.

    curve: labels -> accuracy. None when it does not get there; its first point when it is there already.
    """
    points = sorted(curve.items())
    if points[0][1] >= accuracy:
        return float(points[0][0])
    for (n0, a0), (n1, a1) in pairwise(points):
        if a0 < accuracy <= a1:
            return math.exp(math.log(n0) + (accuracy - a0) / (a1 - a0) * (math.log(n1) - math.log(n0)))
    return None
