"""What a representation looks like without any labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..methods.simclr import SimCLR
from ..training.runs import Run, load_method
from ..settings.model import Settings
from ..training.loop import augmentations

# What a trained network has and a collapsed one has not. Runs on digits and MNIST that collapsed (learning rates of 1
# and 10, on MNIST also 0.1) had projections with a spread of at most 0.10 and an effective rank below 2, and a loss
# that went at most 8 % of its way. Untrained networks have a spread of 0.2 to 0.5 and go 2 to 6 % of the way. After
# some epochs at sensible rates, at any temperature, the spread is above 0.6, the rank above 20, the way above 25 %.
LEAST_SPREAD, LEAST_RANK, LEAST_WAY = 0.25, 5.0, 0.1
TIMES_CHANCE = 10  # views of one image resemble each other before any training: a little above chance means nothing


def alignment(a: Tensor, b: Tensor) -> float:
    """Mean squared distance of the normalised features, N x D each, of positive pairs (2005.10242, section 4.1)."""
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean().item()


def uniformity(x: Tensor, t: float = 2.0) -> float:
    """Log of the mean Gaussian potential of all pairs of normalised features, N x D (2005.10242, section 4.1.2).
    0 when all are alike; lower when they spread over the sphere."""
    return torch.pdist(F.normalize(x.cpu(), dim=1)).square().mul(-t).exp().mean().log().item()


def effective_rank(x: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values of N x D features (RankMe, 2210.02885)."""
    singular = torch.linalg.svdvals(x.cpu().double())
    share = singular / singular.sum().clamp(min=1e-12)
    return torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()).item()


def feature_std(x: Tensor) -> float:
    """Mean over dimensions of the standard deviation of normalised features, times the square root of their number.
    Near 0 when the representation has collapsed to a point (2011.10566, section 4.1)."""
    return (F.normalize(x, dim=1).std(0).mean() * x.shape[1] ** 0.5).item()


def map_2d(features: Tensor, seed: int) -> np.ndarray:
    """A t-SNE map of N x D features, float32 N x 2, from their 50 largest principal components."""
    from sklearn.decomposition import PCA  # takes seconds to import, so only where it is needed
    from sklearn.manifold import TSNE

    x = features.double().cpu().numpy()
    x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
    return TSNE(perplexity=min(30, (len(x) - 1) / 3), init="pca", random_state=seed).fit_transform(x)


@torch.no_grad()
def diagnose(method: SimCLR, images: Tensor, settings: Settings) -> dict[str, float]:
    """All of the above for the features h of uint8 images and, their names ending in _z, for the projections z.

    Positive pairs are two random views of each image.
    """
    encoder = method.eval().encoder
    draws = Generator(images.device).manual_seed(settings.seed)
    a, b = (encoder(augment(images, draws)) for augment in augmentations(settings, encoder, images))
    h = encoder(encoder.prepare(images))
    measured: dict[str, float] = {}
    for suffix, head in {"": nn.Identity(), "_z": method.head}.items():
        x = head(h)
        measured |= {
            f"alignment{suffix}": alignment(head(a), head(b)),
            f"uniformity{suffix}": uniformity(x),
            f"effective_rank{suffix}": effective_rank(x),
            f"feature_std{suffix}": feature_std(x),
        }
    return measured


@torch.no_grad()
def health(run: Run, images: Tensor) -> list[dict[str, Any]]:
    """Checks, for `record`, that a run has learned something and did not collapse, on uint8 images it did not see."""
    method, last = load_method(run), run.history[-1]
    features = method.encoder(method.encoder.prepare(images))
    chance = 1 / (2 * run.settings.batch_size - 1)
    least_top1 = min(TIMES_CHANCE * chance, (1 + chance) / 2)  # of few views, ten times chance is more than all
    checks: list[tuple[str, bool, str, str]] = [
        (
            "the loss left chance",
            run.way > LEAST_WAY,
            f"loss {last['loss']:.3f}, {100 * run.way:.0f} % of the way",
            f"more than {100 * LEAST_WAY:.0f} % of the way from {last['chance_loss']:.3f}, where a "
            f"collapsed network is, to {last['lowest_loss']:.3f}",
        ),
        (
            "partners are found",
            last["top1"] > least_top1,
            f"{100 * last['top1']:.1f} % of the anchors",
            f"more than {100 * least_top1:.1f} %; chance is {100 * chance:.1f} %",
        ),
    ]
    for name, x in {"features": features, "projections": method.head(features)}.items():
        # After ReLU, features lie in one corner of the sphere, where they spread less.
        spread, least = feature_std(x), LEAST_SPREAD if name == "projections" else 0.4 * LEAST_SPREAD
        rank, least_rank = effective_rank(x), min(LEAST_RANK, x.shape[1] / 2)
        checks.append(
            (
                f"no collapse of the {name}",
                spread > least and rank > least_rank,
                f"spread {spread:.2f}, effective rank {rank:.0f}",
                f"spread above {least:g} (one point: 0, even over the sphere: 1), rank above {least_rank:g}",
            )
        )
    if run.settings.loss.endswith("semi_hard"):
        del checks[0]  # what collapsed has no semi-hard negatives, so its loss is low
    of_seed = f" (seed {run.settings.seed})"
    return [dict(name=n + of_seed, passed=bool(p), seen=s, expected=e) for n, p, s, e in checks]
