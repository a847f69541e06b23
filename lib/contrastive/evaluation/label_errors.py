"""Labels that are likely to be wrong: those that classifiers which have not seen them confidently disagree with."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .probes import fit_all

MOST = 10_000  # labels that are looked at: more of them take minutes


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely to be wrong.

    Args:
        index: of the image.
        given: the class that it is labelled as.
        predicted: the class that it is taken for by a classifier that has not seen it.
        confidence: calibrated probability of the class predicted, from 0 to 1.
        given_confidence: of the class given.
        log_odds: by which suspects are ranked, the largest first: see `label_errors`.
    """

    index: int
    given: int
    predicted: int
    confidence: float
    given_confidence: float
    log_odds: float


def label_errors(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    groups: Tensor | None = None,
    seed: int = 0,
    folds: int = 5,
) -> list[Suspect]:
    """Images whose given class a cross-validated classifier confidently disagrees with, the surest first.

    Each image is judged by a linear probe that was fitted without its fold. Classes differ in how sure a probe is of
    them, so each has a bar: the mean probability that images labelled as it have of it (confident learning, 1911.00068,
    section 3.1). Suspects are ranked by log(p / bar) of the class predicted less that of the class given: the margin of
    that paper (its section 3.2) on the scale of log odds, since probabilities near 1 differ too little to rank by.
    Other than in the paper, the class predicted need not be over its bar, only more probable than the class given. In
    trials with 1,000 labels of MNIST the bars left out 13 of 80 labels that were made wrong, and this ranking one.

    Args:
        features: float32 N x D.
        labels: int64 N, -1 where there is none. Of more than MOST, a random sample of MOST is looked at.
        n_classes: of the labels.
        groups: int64 N, such as patients: images of one are held out together.
        seed: of the folds, and of the sample.
        folds: at most so many, at least 2; fewer where no class has as many images, or groups.

    Returns:
        The suspects; none where nothing could be judged. An image is not judged if no other one of its class is left to
        learn from.
    """
    places = judged_places(labels, seed)
    x, y = features[places.to(features.device)].float(), labels.cpu()[places]
    of = None if groups is None else groups.cpu()[places].numpy()
    log_p = torch.full((len(places), n_classes), torch.nan, dtype=torch.float64)
    divided = [[torch.from_numpy(index) for index in fold] for fold in divide(y.numpy(), of, folds, seed)]
    probes = fit_all(x, y, [(fit, choose) for fit, choose, _ in divided], n_classes)
    for (fit, choose, held), probe in zip(divided, probes, strict=True):
        found = (probe.scores(x[held]).double() / probe.temperature).log_softmax(1).cpu()
        learnt = torch.zeros(n_classes, dtype=torch.bool)
        learnt[y[torch.cat([fit, choose])]] = True
        found[:, ~learnt] = -torch.inf  # it cannot know them
        log_p[held] = found
    rank, predicted = disagreement(log_p, y)
    order = rank.sort(descending=True, stable=True).indices[: int(rank.isfinite().sum())]
    p = log_p.exp()
    return [
        Suspect(int(places[i]), int(y[i]), c := int(predicted[i]), float(p[i, c]), float(p[i, y[i]]), float(rank[i]))
        for i in order.tolist()
    ]


def judged_places(labels: Tensor, seed: int) -> Tensor:
    """Rising int64 indices of the labels that are looked at: all that there are, or a random MOST of them."""
    known = (labels.cpu() >= 0).nonzero().flatten()
    if len(known) <= MOST:
        return known
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))
    return known[order[:MOST].sort().values]


def disagreement(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How much probabilities disagree with labels, and the class that they are for.

    Args:
        log_p: float64 N x classes, log probabilities; NaN in rows of images that were not judged.
        labels: int64 N.

    Returns:
        Log odds, float64 N, minus infinity where there is no suspicion; the likeliest other classes, int64 N.
    """
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    judged = own.isfinite()
    bar = torch.full((log_p.shape[1],), torch.inf, dtype=torch.float64)
    for c in labels[judged].unique():
        bar[c] = own[judged & (labels == c)].exp().mean().log()
    over = (log_p - bar).scatter(1, labels[:, None], -torch.inf).nan_to_num(-torch.inf)
    predicted = over.argmax(1)
    likelier = log_p.gather(1, predicted[:, None]).squeeze(1) > own
    log_odds = over.gather(1, predicted[:, None]).squeeze(1) - (own - bar[labels])
    return torch.where(judged & likelier, log_odds, -torch.inf), predicted


def divide(
    labels: np.ndarray, groups: Sequence[int] | np.ndarray | None, folds: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Indices to fit a classifier on, to choose its penalty with, and to judge with it, which are held out once each.

    Folds are alike in their classes, and groups whole. The next fold is the one to choose with. Of two folds, or of
    labels too few, none is spared for that.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    of = np.arange(len(labels)) if groups is None else np.asarray(groups)
    most = max((len(np.unique(of[labels == c])) for c in np.unique(labels)), default=0)
    n = min(folds, most)
    if n < 2 or len(np.unique(labels)) < 2:
        return
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer images than folds: some folds are without them
        parts = [held for _, held in kind(n, shuffle=True, random_state=seed).split(labels, labels, of)]
    everything = np.arange(len(labels))
    for i, held in enumerate(parts):
        choose = parts[(i + 1) % n] if n > 2 and len(labels) >= 50 else everything[:0]
        fit = np.setdiff1d(everything, np.concatenate([held, choose]))
        if len(held) and len(fit):
            yield fit, choose, held
