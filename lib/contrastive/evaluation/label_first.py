"""Which images to label first, where nothing or little has a label: a choice that differs as much as the images do."""

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MOST = 20_000  # images to choose from: more of them make the groups slow to find and hardly better


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
    from sklearn.cluster import KMeans  # takes seconds to import, so only where it is needed

    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(features), generator=generator)[:MOST].sort().values
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
