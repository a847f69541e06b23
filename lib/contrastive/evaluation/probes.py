"""Frozen features, and the classifiers that are fitted to them: linear and kNN probes."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import Images, split
from ..encoders import Encoder
from ..methods import Method
from ..processor import linear_scores
from ..settings import Settings
from .calibration import fit_temperature

L2_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)  # L2 penalties on the mean loss, tried from the strongest
USUAL_L2 = 1e-2
CHOOSE_WITH = 10_000  # labels
VALIDATION_DRAWS = 4


@torch.no_grad()
def embed(encoder: Encoder, images: Tensor, batch_size: int = 512) -> Tensor:
    """Features of uint8 images: float32 N x out_dim, on the encoder's device, which is put in eval mode."""
    encoder.eval()
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


def unit_length(features: Tensor) -> Tensor:
    """Each image's features, scaled to a root mean square of 1.

    Contrastive losses compare directions, so lengths say little of the class. In trials on validation images of MNIST
    this did better than standardising each feature with the labelled images' statistics, which are poor when these are
    few. It uses no statistics of any split.
    """
    return F.normalize(features, dim=1) * features.shape[1] ** 0.5


def accuracy_percent(scores: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest score is at the label, in percent."""
    return 100.0 * (scores.argmax(1) == labels).sum().item() / len(labels)


def fit_probe(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], n_classes: int) -> Probe:
    """Fit the linear probe: its L2 penalty chosen by accuracy on `val`, then refitted on both parts together.

    Without any images to choose with, the penalty is USUAL_L2. It is chosen with at most CHOOSE_WITH images of `train`,
    and scaled to the number refitted on, as a prior on the weights would be.

    Args:
        train, val: (features float32 N x D, labels int64 N).
        n_classes: of the labels.
    """
    features, labels = train
    x, x_val = unit_length(features), unit_length(val[0])
    weight, bias = torch.zeros(n_classes, x.shape[1], device=x.device), torch.zeros(n_classes, device=x.device)
    if len(x_val) == 0:
        return Probe(*logistic_regression(x, labels, USUAL_L2, weight, bias), USUAL_L2)
    n = min(len(x), CHOOSE_WITH)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for l2 in L2_PENALTIES:  # each starts from the last: a path from simple to complex
        weight, bias = logistic_regression(x[:n], labels[:n], l2, weight, bias, max_iter=50)
        right = accuracy_percent(F.linear(x_val, weight, bias), val[1])
        if best is None or right > best[0]:  # of equals the strongest
            best = right, l2, weight, bias
    assert best is not None
    _, l2, weight, bias = best
    temperature = fit_temperature(F.linear(x_val, weight, bias).cpu().double().numpy(), val[1].cpu().numpy())
    x = torch.cat([x, x_val])
    l2 *= n / len(x)
    weight, bias = logistic_regression(x, torch.cat([labels, val[1]]), l2, weight, bias)
    return Probe(weight, bias, l2, temperature)


def logistic_regression(
    x: Tensor, labels: Tensor, l2: float, weight: Tensor, bias: Tensor, max_iter: int = 100
) -> tuple[Tensor, Tensor]:
    """Minimise mean cross entropy + l2/2 * |weight|^2 by L-BFGS, from these weights (classes x D) and biases."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=max_iter, tolerance_grad=1e-5, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear_scores(x, weight, bias), labels) + l2 / 2 * weight.square().sum()
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
    n_val, found = max(n_labels // 5, 1), []
    for h, y in zip(features.split(n_labels), labels.split(n_labels), strict=True):
        probe = fit_probe((h[n_val:], y[n_val:]), (h[:n_val], y[:n_val]), len(images.classes))
        found.append(probe.accuracy(*validation))
    return sum(found) / len(found)
