"""Features made ready for regressions: of unit length, less their mean, and of few images no more than these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..settings import RunError

AT_ONCE = 4096  # images
NOTHING = 1e-7  # of the largest mean square, below which an axis only holds rounding


def unit_length(features: Tensor) -> Tensor:
    """Each image's features, scaled to a root mean square of 1.

    Contrastive losses compare directions, so lengths say little of the class. In trials on validation images of MNIST
    this did better than standardising each feature with the labelled images' statistics, which are poor when these are
    few. It uses no statistics of any split.
    """
    return F.normalize(features, dim=1) * features.shape[1] ** 0.5


def prepare(blocks: Sequence[Tensor], index: Tensor) -> Tensor:
    """Blocks of features side by side, each of unit length, and a last column of ones.

    Args:
        blocks: float32, images x their width.
        index: int64 N, which images.

    Returns:
        float32 N x (D + 1).
    Raises:
        RunError: when features are no finite numbers.
    """
    x = torch.ones(len(index), sum(block.shape[1] for block in blocks) + 1, device=index.device)
    for into, block in zip(x[:, :-1].split([block.shape[1] for block in blocks], 1), blocks, strict=True):
        for rows, own in zip(into.split(AT_ONCE), index.split(AT_ONCE), strict=True):
            rows.copy_(unit_length(block[own]))
    if bad := len(x) - int(x.sum(1).isfinite().sum()):
        raise RunError(
            f"the features of {bad:,} of {len(x):,} images are no finite numbers, so no classifier can be fitted to "
            "them. Where your own pretraining gives them, train again with a smaller learning rate (lr)."
        )
    return x


def centre(x: Tensor, here: Tensor) -> Tensor:
    """Take the mean of each set of images off its features, in place: a regression on them is solved sooner, and has
    the same optimum, as biases are not penalised. By its own mean, or other sets' images would change the result.

    Args:
        x: float32 B x N x (D + 1); the last column is kept as it is.
        here: bool B x N, False in rows that only fill up, which become zero.

    Returns: what was taken off, float32 B x D.
    """
    x *= here[..., None]
    mean = x[..., :-1].sum(1) / here.sum(1, keepdim=True)
    x[..., :-1] -= mean[:, None]
    x *= here[..., None]
    return mean


def span(x: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As few features as there are images, that say the same of them.

    The weights of a regression lie in the span of its images, so their coordinates there are all that counts.

    Args:
        x: float32 B x N x (D + 1); the last column is kept as it is.
        n: int64 B, how many of the N rows are images: the others are zero.

    Returns:
        Coordinates along principal axes, float32 B x N x (N + 1); the mean squares of these columns; and the axes,
        B x N x D, with which weights of coordinates become weights of features.
    """
    own = x[..., :-1]
    square, directions = torch.linalg.eigh((own @ own.mT).double())
    length = torch.where(square > NOTHING * square[:, -1:], square, 0).sqrt()
    inverse = torch.where(length > 0, 1 / length, 0)
    axes = (directions * inverse[:, None]).float().mT @ own
    coordinates = torch.cat([(directions * length[:, None]).float(), x[..., -1:]], 2)
    return coordinates, F.pad((length.square() / n[:, None]).float(), (0, 1), value=1.0), axes
