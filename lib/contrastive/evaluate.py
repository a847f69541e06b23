"""What frozen features are worth: linear and kNN probes over label budgets, beside their controls."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Generator, Tensor, nn
from tqdm import tqdm

from .augment import Augment
from .data import Images, load_images, split
from .diagnostics import diagnose
from .encoders import Encoder
from .pretrain import TRAINING_CODE, Run, atomic_write, code_hash, load_encoder
from .settings import Settings
from .training import initial_method, keep_freed_memory, lr_schedule, parameter_groups

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # L2 penalties on the mean loss, tried from the strongest
CHOOSE_WITH = 10_000
# What is compared on the same labels: prefix of the metric -> name
ARMS = {
    "linear": "pretrained, frozen + linear",
    "supervised": "same CNN from scratch",
    "random_encoder": "random, frozen + linear",
    "raw_pixel": "raw pixels + linear",
}
HEADLINE_LABELS = 30_000


# --- Features and probes ------------------------------------------------------------------------------------------


@torch.no_grad()
def embed(encoder: Encoder, images: Tensor, batch_size: int = 512) -> Tensor:
    """Features of uint8 images: float32 N x feature_dim, on the encoder's device, which is put in eval mode."""
    encoder.eval()
    return torch.cat([encoder(encoder.prepare(batch)) for batch in images.split(batch_size)])


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Probe:
    """A multinomial logistic regression on standardised features. `strength` is the L2 penalty."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    strength: float

    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities, float32 N x classes."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias).softmax(1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of right predictions, in percent."""
        return percent_right(self.probabilities(features), labels)


def percent_right(scores: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest score is at the label, in percent."""
    return 100.0 * (scores.argmax(1) == labels).sum().item() / len(labels)


def fit_probe(fit: tuple[Tensor, Tensor], choose: tuple[Tensor, Tensor], n_classes: int) -> Probe:
    """Fit the linear probe: strength chosen by accuracy on `choose`, then refitted on both parts together.

    fit, choose: (features float32 N x D, labels int64 N). Features are standardised with the statistics of `fit`.
    The strength is chosen with at most CHOOSE_WITH images of `fit`, and scaled to the number refitted on, as a prior
    on the weights would be.
    """
    features, labels = fit
    mean, scale = features.mean(0), features.std(0, correction=0)
    # A feature without spread in `fit` says nothing: its scale of 1 leaves it near 0.
    scale = torch.where(scale < 1e-6, 1.0, scale)
    x, x_choose = (features - mean) / scale, (choose[0] - mean) / scale
    n = min(len(x), CHOOSE_WITH)
    weight, bias = torch.zeros(n_classes, x.shape[1], device=x.device), torch.zeros(n_classes, device=x.device)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for strength in STRENGTHS:  # each starts from the last: a path from simple to complex
        weight, bias = logistic_regression(x[:n], labels[:n], strength, weight, bias, max_iter=50)
        right = percent_right(F.linear(x_choose, weight, bias), choose[1])
        if best is None or right > best[0]:  # of equals the strongest
            best = right, strength, weight, bias
    assert best is not None
    _, strength, weight, bias = best
    x = torch.cat([x, x_choose])
    strength *= n / len(x)
    weight, bias = logistic_regression(x, torch.cat([labels, choose[1]]), strength, weight, bias)
    return Probe(weight, bias, mean, scale, strength)


def linear_scores(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight.T + bias for float32 N x D features and classes x D weights.

    That product is most of what a probe costs. With so few classes PyTorch computes it on a CPU twice as fast as a 1x1
    convolution, with 64 images to a row of pixels; what does not fill a row is done as it is written.
    """
    rows = len(x) // 64 * 64 if x.device.type == "cpu" and len(x) >= 1024 else 0
    if rows == 0:
        return F.linear(x, weight, bias)
    pixels = x[:rows].view(1, -1, 64, x.shape[1]).permute(0, 3, 1, 2)
    scores = F.conv2d(pixels, weight[:, :, None, None], bias)[0].flatten(1).T
    return torch.cat([scores, F.linear(x[rows:], weight, bias)])


def logistic_regression(
    x: Tensor, labels: Tensor, strength: float, weight: Tensor, bias: Tensor, max_iter: int = 100
) -> tuple[Tensor, Tensor]:
    """Minimise mean cross entropy + strength/2 * |weight|^2 by L-BFGS, from these weights (classes x D) and biases."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=max_iter, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear_scores(x, weight, bias), labels) + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, n_classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Class scores, float32 N x classes, of a kNN classifier: the k nearest by cosine vote with exp(cosine/T)
    (section 3.4 of 1805.01978). k is at most the size of the bank."""
    bank, k = F.normalize(bank, dim=1), min(k, len(bank))
    scores = []
    for chunk in F.normalize(queries, dim=1).split(500):
        similarity, index = (chunk @ bank.T).topk(k, dim=1)
        votes = torch.zeros(len(chunk), n_classes, device=bank.device)
        scores.append(votes.scatter_add_(1, bank_labels[index], (similarity / temperature).exp()))
    return torch.cat(scores)


def nearest_neighbours(features: Tensor, queries: list[int], k: int) -> list[list[int]]:
    """For each query (a row of N x D features) its own index and those of the k others nearest by cosine."""
    h = F.normalize(features, dim=1)
    similarity = h[queries] @ h.T
    similarity[torch.arange(len(queries)), queries] = -torch.inf
    nearest = similarity.topk(k, dim=1).indices.tolist()
    return [[query, *row] for query, row in zip(queries, nearest, strict=True)]


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
    augment = Augment(settings.augment, encoder.mean, encoder.std)
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
        "code": code_hash((*TRAINING_CODE, "evaluate", "diagnostics")),
    }
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    result, predictions = run.folder / "results.json", run.folder / "predictions.safetensors"
    if result.is_file() and predictions.is_file():
        saved = json.loads(result.read_text())
        if saved.pop("key") == key:
            return Evaluation(probabilities=load_file(predictions)["probabilities"], **saved)
    evaluation = _evaluate(run, progress)
    values = {name: value for name, value in vars(evaluation).items() if name != "probabilities"}
    atomic_write(predictions, save({"probabilities": evaluation.probabilities.contiguous()}))
    atomic_write(result, json.dumps({"key": key, **values}, indent=1).encode())
    return evaluation


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
