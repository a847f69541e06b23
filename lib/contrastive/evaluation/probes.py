"""Frozen features, and the classifiers that are fitted to them: linear and kNN probes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .calibration import fit_temperature
from ..data.images import load_images, split
from ..encoders.cnn import Encoder
from ..settings.model import Settings

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # L2 penalties on the mean loss, tried from the strongest
USUAL_STRENGTH = 1e-2
CHOOSE_WITH = 10_000
VALIDATION_DRAWS = 4


@torch.no_grad()
def embed(encoder: Encoder, images: Tensor, batch_size: int = 512) -> Tensor:
    """Features of uint8 images: float32 N x feature_dim, on the encoder's device, which is put in eval mode."""
    encoder.eval()
    features = torch.empty(len(images), encoder.feature_dim, device=encoder.mean.device)
    for into, batch in zip(features.split(batch_size), images.split(batch_size), strict=True):
        into.copy_(encoder(encoder.prepare(batch)))
    return features


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Probe:
    """A multinomial logistic regression on features of unit length. `strength` is the L2 penalty; `temperature` divides
    the scores of calibrated probabilities, and is 1 when there were no labels to choose it with."""

    weight: Tensor
    bias: Tensor
    strength: float
    temperature: float = 1.0

    def scores(self, features: Tensor) -> Tensor:
        """Logits, float32 N x classes."""
        return linear_scores(unit_length(features), self.weight, self.bias)

    def probabilities(self, features: Tensor) -> Tensor:
        """Class probabilities as the regression gives them, float32 N x classes."""
        return self.scores(features).softmax(1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of right predictions, in percent."""
        return percent_right(self.probabilities(features), labels)


def unit_length(features: Tensor) -> Tensor:
    """Each image's features, scaled to a root mean square of 1.

    Contrastive losses compare directions, so lengths say little of the class. In trials on validation images of MNIST
    this did better than standardising each feature with the labelled images' statistics, which are poor when these are
    few. It uses no statistics of any split.
    """
    return F.normalize(features, dim=1) * features.shape[1] ** 0.5


def percent_right(scores: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest score is at the label, in percent."""
    return 100.0 * (scores.argmax(1) == labels).sum().item() / len(labels)


def fit_probe(fit: tuple[Tensor, Tensor], choose: tuple[Tensor, Tensor], n_classes: int) -> Probe:
    """Fit the linear probe: strength chosen by accuracy on `choose`, then refitted on both parts together. Without any
    images to choose with, the strength is USUAL_STRENGTH.

    fit, choose: (features float32 N x D, labels int64 N).
    The strength is chosen with at most CHOOSE_WITH images of `fit`, and scaled to the number refitted on, as a prior
    on the weights would be.
    """
    features, labels = fit
    x, x_choose = unit_length(features), unit_length(choose[0])
    if len(x_choose) == 0:
        start = torch.zeros(n_classes, x.shape[1], device=x.device), torch.zeros(n_classes, device=x.device)
        weight, bias = logistic_regression(x, labels, USUAL_STRENGTH, *start)
        return Probe(weight, bias, USUAL_STRENGTH)
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
    temperature = fit_temperature(F.linear(x_choose, weight, bias).cpu().double().numpy(), choose[1].cpu().numpy())
    x = torch.cat([x, x_choose])
    strength *= n / len(x)
    weight, bias = logistic_regression(x, torch.cat([labels, choose[1]]), strength, weight, bias)
    return Probe(weight, bias, strength, temperature)


def linear_scores(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight.T + bias for float32 N x D features and classes x D weights.

    That product is most of what a probe costs. With so few classes oneDNN computes it faster as a 1x1 convolution of an
    image of 64 pixels a row than PyTorch does as it is written; on few images neither takes long.
    """
    by_convolution = x.device.type == "cpu" and torch.backends.mkldnn.is_available() and len(x) >= 1024
    rows = len(x) // 64 * 64 if by_convolution else 0
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


def validation_accuracy(settings: Settings, encoder: Encoder, n_labels: int, head: nn.Module | None = None) -> float:
    """Percent right on a run's validation images of a linear probe with `n_labels` labels: what choices are made by.

    The mean of VALIDATION_DRAWS disjoint draws of labels, or of as many as there are: which labels a probe happens to
    get moves it as much as the training's own chance does. head: a projection head, to judge its projections rather
    than the features before it. A probe's strength is chosen inside its labels, on a fifth of them, which are not
    validation images.
    """
    images = load_images(settings)
    splits = split(images, settings.n_images or 0, settings.seed)
    encoder = encoder.to(settings.device)
    head = head.to(settings.device) if head is not None else nn.Identity()

    def rows(index: Tensor) -> tuple[Tensor, Tensor]:
        return head(embed(encoder, images.train[index])), images.train_labels[index].to(settings.device)

    n_draws = min(VALIDATION_DRAWS, max(len(splits.rest) // n_labels, 1))
    features, labels = rows(splits.rest[: n_draws * n_labels])
    validation = rows(splits.validation)
    n_choose, found = max(n_labels // 5, 1), []
    for h, y in zip(features.split(n_labels), labels.split(n_labels), strict=True):
        probe = fit_probe((h[n_choose:], y[n_choose:]), (h[:n_choose], y[:n_choose]), len(images.classes))
        found.append(probe.accuracy(*validation))
    return sum(found) / len(found)
