"""What a representation looks like without any labels."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..augment import View, ViewMaker
from ..methods import Method


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
    """A t-SNE map of N x D features, float32 N x 2, from their 50 largest principal components; all at one point where
    features do not differ."""
    from sklearn.decomposition import PCA  # takes seconds to import, so only where it is needed
    from sklearn.manifold import TSNE

    x = features.double().cpu().numpy()
    if len(x) < 3 or np.ptp(x, axis=0).max() == 0:  # t-SNE would divide by their spread, and crash
        return np.zeros((len(x), 2), np.float32)
    x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
    # Half of the usual iterations: of 2,000 digits neighbours stay as near (trustworthiness 0.991 with either).
    steps = {"perplexity": min(30, (len(x) - 1) / 3), "max_iter": 500}
    return TSNE(init="pca", random_state=seed, **steps).fit_transform(x)


@torch.no_grad()
def paired_share(method: Method, images: Tensor) -> float:
    """How many views of uint8 images, in percent, have the other view of the same image for their nearest neighbour by
    cosine of features h, among two views of each. Needs no label.

    The views are the same for every method with the same views and seed, so that a trained one can be compared with an
    untrained one.
    """
    a, b = _two_views(method, images)
    h = F.normalize(torch.cat([method.representations(method.encoder(view))["h"] for view in (a, b)]), dim=1)
    similarity = (h @ h.T).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * len(images), device=h.device).roll(len(images))
    return 100 * (similarity.argmax(1) == partner).float().mean().item()


def _two_views(method: Method, images: Tensor) -> list[Tensor]:
    encoder = method.eval().encoder
    first, *others = [View(view.policy, view.size) for view in method.views() for _ in range(view.count)]
    make_views = ViewMaker([first, (others or [first])[0]], images.shape[1:], encoder.mean, encoder.std)
    return make_views(images, Generator(images.device).manual_seed(method.settings.runtime.seed))


@torch.no_grad()
def diagnose(method: Method, images: Tensor) -> dict[str, float]:
    """All of the above for the features h of uint8 images and, their names ending in _z, for the projections z.

    Positive pairs are two random views of each image.
    """
    encoder = method.eval().encoder
    a, b = (method.representations(encoder(view)) for view in _two_views(method, images))
    measured: dict[str, float] = {}
    for name, x in method.representations(encoder(encoder.prepare(images))).items():
        suffix = "" if name == "h" else f"_{name}"
        measured |= {
            f"alignment{suffix}": alignment(a[name], b[name]),
            f"uniformity{suffix}": uniformity(x),
            f"effective_rank{suffix}": effective_rank(x),
            f"feature_std{suffix}": feature_std(x),
        }
    return measured
