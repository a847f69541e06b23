"""One linear probe on two kinds of features: general ones and those of the pretrained encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..processor import linear_scores
from .fitting import Part, fit_parts, split_at
from .probes import Probe, accuracy_percent, fit_all

# The share of the general features, from the usual one on. On validation images of photographs with 20 to 1,600 labels
# it is within half a point of the best, and better than general features alone; on X-rays and digits, to which own
# features matter more, it is far better than 0.8. The others are for many labels of such images.
SHARES = (0.7, 0.5, 0.2)

Blocks = tuple[Tensor, Tensor]  # general and own features of the same images, float32 N x D1 and N x D2


def join(general: Tensor, own: Tensor, share: float) -> Tensor:
    """Two blocks of features as one, float32 N x (D1 + D2), in which the first has that share of the squared length.

    With share 1 a probe sees what it sees of general features alone, `unit_length` included, with 0 of its own alone.
    In between the squared length is in between, so that one penalty means the same throughout.
    """
    lengths = _lengths(general.shape[1], own.shape[1], share)
    blocks = zip((general, own), lengths, strict=True)
    return torch.cat([F.normalize(block, dim=1) * length for block, length in blocks], dim=1)


@dataclass(frozen=True)
class JointProbe:
    """A multinomial logistic regression on two joined blocks of features, as `Probe` is one on one block. `share` is
    that of the general features."""

    weight: Tensor
    bias: Tensor
    l2: float
    share: float
    temperature: float = 1.0

    def scores(self, general: Tensor, own: Tensor) -> Tensor:
        """Logits, float32 N x classes."""
        return linear_scores(join(general, own, self.share), self.weight, self.bias)

    def probabilities(self, general: Tensor, own: Tensor) -> Tensor:
        """Class probabilities as the regression gives them, float32 N x classes."""
        return self.scores(general, own).softmax(1)

    def accuracy(self, blocks: Blocks, labels: Tensor) -> float:
        """Share of right predictions, in percent."""
        return accuracy_percent(self.scores(*blocks), labels)


def fit_joint_probe(train: tuple[Blocks, Tensor], val: tuple[Blocks, Tensor], n_classes: int) -> JointProbe:
    """Fit a linear probe to both blocks: its share and L2 penalty chosen on `val`, then refitted on both parts.

    How they are chosen is told at `fit_parts`, which fits many together.

    Args:
        train, val: (blocks, labels int64 N).
        n_classes: of the labels.
    """
    blocks = [torch.cat(pair) for pair in zip(train[0], val[0], strict=True)]
    labels = torch.cat([train[1], val[1]])
    (probe,) = fit_probes(blocks, labels, [split_at(len(train[1]), len(labels))], n_classes)
    assert isinstance(probe, JointProbe)
    return probe


def fit_probes(
    blocks: Sequence[Tensor], labels: Tensor, parts: Sequence[Part], n_classes: int
) -> list[Probe | JointProbe]:
    """Fit a linear probe to each part of the images, on one block of features or two. All of them are fitted together.

    Args:
        blocks: features, float32 N x D; of two, the general ones first.
        labels: int64 N.
        parts: indices of the images to fit each probe on, at least one, and of those to choose its penalty with.
        n_classes: of the labels.
    """
    if len(blocks) == 1:
        return [*fit_all(blocks[0], labels, parts, n_classes)]
    width, own_width = (block.shape[1] for block in blocks)
    factors = []
    for share in SHARES:
        length, own_length = _lengths(width, own_width, share)
        factors.append((length / math.sqrt(width), own_length / math.sqrt(own_width)))
    found = fit_parts(blocks, labels, parts, n_classes, factors)
    return [JointProbe(own.weight, own.bias, own.l2, SHARES[own.scale], own.temperature) for own in found]


def _lengths(width: int, own_width: int, share: float) -> tuple[float, float]:
    """Of an image's general and own features, where the first have that share of the squared length."""
    squared = share * width + (1 - share) * own_width
    return math.sqrt(share * squared), math.sqrt((1 - share) * squared)
