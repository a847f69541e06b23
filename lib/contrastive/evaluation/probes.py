"""Frozen features, and the classifiers that are fitted to them: linear and kNN probes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import processor
from ..data import Images, split
from ..encoders import Encoder
from ..methods import Method
from ..processor import linear_scores
from ..settings import Settings
from .fitting import USUAL_L2 as USUAL_L2  # for who fits probes
from .fitting import Part, fit_parts, split_at
from .probe_features import unit_length

VALIDATION_DRAWS = 4


@torch.no_grad()
def embed(encoder: Encoder, images: Tensor, batch_size: int | None = None) -> Tensor:
    """Features of uint8 images: float32 N x out_dim, on the encoder's device, which is put in eval mode. batch_size: by
    default what keeps a GPU busy, or stays in a processor's cache."""
    encoder.eval()
    batch_size = batch_size or (1024 if processor.on_gpu(encoder.mean) else 128)
    features = torch.empty(len(images), encoder.out_dim, device=encoder.mean.device)
    for into, batch in zip(features.split(batch_size), images.split(batch_size), strict=True):
        into.copy_(encoder(encoder.prepare(batch)))
    return features


@dataclass(frozen=True)
class Probe:
    """A multinomial logistic regression on features of unit length. `l2` is the L2 penalty; `temperature` divides
    the scores of calibrated probabilities, and is 1 when there were no labels to choose it with."""

    weight: Tensor
    bias: Tensor
    l2: float
    temperature: float = 1.0

    def scores(self, features: Tensor) -> Tensor:
        """Logits, float32 N x classes."""
        return linear_scores(unit_length(features), self.weight, self.bias)

    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities as the regression gives them, float32 N x classes."""
        return self.scores(features).softmax(1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of right predictions, in percent."""
        return accuracy_percent(self.probabilities(features), labels)


def accuracy_percent(scores: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest score is at the label, in percent."""
    return 100.0 * (scores.argmax(1) == labels).sum().item() / len(labels)


def fit_probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], n_classes: int) -> Probe:
    """Fit the linear probe: its L2 penalty chosen by accuracy on `val`, then refitted on both parts together.

    How it is chosen is told at `fit_parts`, which fits many together.

    Args:
        train, val: (features float32 N x D, labels int64 N).
        n_classes: of the labels.
    """
    features, labels = (torch.cat(pair) for pair in zip(train, val, strict=True))
    (probe,) = fit_all(features, labels, [split_at(len(train[0]), len(features))], n_classes)
    return probe


def fit_all(features: Tensor, labels: Tensor, parts: Sequence[Part], n_classes: int) -> list[Probe]:
    """Fit a linear probe to each part of the images. The arguments are those of `fit_parts`, with one block."""
    found = fit_parts([features], labels, parts, n_classes, [[1.0]])
    return [Probe(own.weight, own.bias, own.l2, own.temperature) for own in found]


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


def validation_accuracy(
    settings: Settings, images: Images, encoder: Encoder, n_labels: int, method: Method | None = None
) -> float:
    """Accuracy in percent, on a run's validation images, of a linear probe: what choices are made by.

    The mean of VALIDATION_DRAWS disjoint draws of labels, or of as many as there are: which labels a probe happens to
    get moves it as much as the training's own chance does. A probe's penalty is chosen inside its labels, on a fifth of
    them, which are not validation images.

    Args:
        settings: of the run, resolved.
        images: of the run.
        encoder: to be judged.
        n_labels: of each probe.
        method: whose projections z are to be judged, rather than the features before them.
    """
    splits = split(images, settings.data.n_images or 0, settings.runtime.seed)
    device = settings.runtime.device
    encoder = encoder.to(device)
    method = method and method.to(device)

    def rows(index: Tensor) -> tuple[Tensor, Tensor]:
        h = embed(encoder, images.train[index])
        x = h if method is None else method.representations(h)["z"]
        return x, images.train_labels[index].to(device)

    n_draws = min(VALIDATION_DRAWS, max(len(splits.rest) // n_labels, 1))
    features, labels = rows(splits.rest[: n_draws * n_labels])
    validation = rows(splits.validation)
    n_val = max(n_labels // 5, 1)
    parts = [(own[n_val:], own[:n_val]) for own in torch.arange(len(features)).split(n_labels)]
    probes = fit_all(features, labels, parts, len(images.classes))
    return sum(probe.accuracy(*validation) for probe in probes) / len(probes)
