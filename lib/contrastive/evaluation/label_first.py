"""Which images to label first, and which next: a choice that differs as much as the images do.

What serves best depends on how many labels there are (2202.02794, theory in section 2, trials in section 4): with very
few, typical images do, since a classifier that knows little does not know what it does not know; with more, images that
it is unsure of do. So where there are none, `choose_to_label` takes the most typical image of each group. Where there
are some, `choose_next` does so among the images that a probe is least sure of. Uncertain images alone are often alike;
groups of them differ (1901.05954).
"""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .probes import fit_probe

MOST = 20_000  # images to choose from: more of them make the groups slow to find and hardly better
FEW = 5  # labels of each class, on average: of fewer, a probe knows little of what it does not know
LEAST_TO_CHOOSE = 50  # labels, of which a fifth then chooses the probe's penalty


@dataclass(frozen=True)
class Choice:
    """An image to be labelled. index: of it. like: how many images are nearer to it than to the others chosen."""

    index: int
    like: int


def choose_to_label(features: Tensor, n: int, seed: int) -> list[Choice]:
    """The most typical image of each of n groups that k-means finds, the largest group first.

    Typical images of groups serve few labels better than random ones or outliers do (2202.02794, section 3), and each
    shorter list is a sensible choice, too. The features are compared by direction, as contrastive losses do.

    Args:
        features: float32 N x D, of the images that have no label.
        n: how many to choose; all, if there are fewer. Of images that are alike, one is enough.
        seed: of k-means, and of the sample of MOST images where there are more.

    Returns:
        The choices; `like` counts images of the sample.
    """
    places = sample(torch.arange(len(features)), seed)
    return typical(features, places, n, seed)


def choose_next(features: Tensor, labels: Tensor, n_classes: int, n: int, seed: int) -> list[Choice]:
    """The most typical image of each of n groups among those that a probe is least sure of, the largest group first.

    The probe is fitted to the labels that there are. It is the less sure of an image the nearer the probabilities of
    its two likeliest classes are (margin sampling). The least sure quarter of the images is looked at, or with fewer
    than FEW labels of each class the least sure half. In trials on MNIST and on PneumoniaMNIST, with 20 to 200 labels
    to begin with, 50 more that were chosen so served better than random ones, and better than typical images of all.

    Args:
        features: float32 N x D, of all images.
        labels: int64 N, -1 where there is none. With labels of fewer than two classes, there is nothing to be unsure
            between, and the choice is the one of `choose_to_label`.
        n_classes: of the labels.
        n: how many to choose; all that have no label, if there are fewer.
        seed: of k-means, of the sample of MOST images where more have no label, and of what the probe's penalty is
            chosen with.

    Returns:
        The choices, of images that have no label. `index` counts all images, `like` unsure ones.
    """
    labels = labels.cpu()
    known, places = (labels >= 0).nonzero().flatten(), sample((labels < 0).nonzero().flatten(), seed)
    if len(labels[known].unique()) >= 2 and len(places) > n:
        known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(seed))]
        n_choose = len(known) // 5 if len(known) >= LEAST_TO_CHOOSE else 0
        choose, fit = (
            (features[part.to(features.device)].float(), labels[part].to(features.device))
            for part in (known[:n_choose], known[n_choose:])
        )
        probe = fit_probe(fit, choose, n_classes)
        likeliest = probe.probabilities(features[places.to(features.device)].float()).cpu().topk(2, dim=1).values
        unsure = (likeliest[:, 0] - likeliest[:, 1]).sort(stable=True).indices
        share = 2 if len(known) < FEW * n_classes else 4
        places = places[unsure[: max(n, len(places) // share)]].sort().values
    return typical(features, places, n, seed)


def sample(places: Tensor, seed: int) -> Tensor:
    """At most MOST of some int64 places, in their order."""
    generator = torch.Generator().manual_seed(seed)
    return places[torch.randperm(len(places), generator=generator)[:MOST].sort().values]


def typical(features: Tensor, places: Tensor, n: int, seed: int) -> list[Choice]:
    """The most typical of the images at some places, one of each of n groups, the largest group first."""
    from sklearn.cluster import KMeans  # takes seconds to import, so only where it is needed

    x = F.normalize(features[places.to(features.device)].cpu().double(), dim=1)
    if len(x) <= n:
        return [Choice(int(i), 1) for i in places]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer different images than groups: then there are fewer groups
        groups = torch.from_numpy(KMeans(n, n_init=1, random_state=seed).fit_predict(x.numpy())).long()
    found = []
    for group in groups.unique():
        own = (groups == group).nonzero().flatten()
        nearest = (x[own] - x[own].mean(0)).square().sum(1).argmin()
        found.append(Choice(int(places[own[nearest]]), len(own)))
    return sorted(found, key=lambda choice: (-choice.like, choice.index))
