"""One linear probe on two kinds of features: general ones and those of the pretrained encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..processor import linear_scores
from .calibration import fit_temperature
from .probes import CHOOSE_WITH, L2_PENALTIES, USUAL_L2, Probe, accuracy_percent, fit_probe, logistic_regression

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
    length = share * general.shape[1] + (1 - share) * own.shape[1]
    blocks = ((general, share), (own, 1 - share))
    return torch.cat([F.normalize(block, dim=1) * math.sqrt(part * length) for block, part in blocks], dim=1)


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

    Without any images to choose with, the share is the usual one, and the penalty USUAL_L2. Each share is tried with
    its best penalty, and of those that are as good as the best within a standard error, the first of SHARES is taken
    (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): with few labels choosing freely costs
    more than it gains.

    Args:
        train, val: (blocks, labels int64 N).
        n_classes: of the labels.
    """
    (blocks, labels), (val_blocks, val_labels) = train, val
    n_val = len(val_labels)
    if n_val == 0:
        return JointProbe(*_regress(join(*blocks, SHARES[0]), labels, USUAL_L2, n_classes), USUAL_L2, SHARES[0])
    n = min(len(labels), CHOOSE_WITH)
    found = []
    for share in SHARES:
        x, x_val = join(blocks[0][:n], blocks[1][:n], share), join(*val_blocks, share)
        found.append((share, *_choose_penalty(x, labels[:n], x_val, val_labels, n_classes)))
    most = max(right for _, _, right, _ in found)
    error = math.sqrt(most * (n_val - most) / n_val)  # of a count
    share, l2, _, scores = next(choice for choice in found if choice[2] >= most - error)
    temperature = fit_temperature(scores.cpu().double().numpy(), val_labels.cpu().numpy())
    x = torch.cat([join(*blocks, share), join(*val_blocks, share)])
    l2 *= n / len(x)  # as a prior on the weights would be
    return JointProbe(*_regress(x, torch.cat([labels, val_labels]), l2, n_classes), l2, share, temperature)


def fit_probes(
    train: Sequence[Tensor], labels: Tensor, val: Sequence[Tensor], val_labels: Tensor, n_classes: int
) -> Probe | JointProbe:
    """The linear probe on one block of features, or on two joined ones: general first, then own.

    Args:
        train, val: each block's features, float32 N x D.
        labels, val_labels: int64 N.
        n_classes: of the labels.
    """
    if len(train) == 1:
        return fit_probe((train[0], labels), (val[0], val_labels), n_classes)
    (general, own), (general_val, own_val) = train, val
    return fit_joint_probe(((general, own), labels), ((general_val, own_val), val_labels), n_classes)


def _choose_penalty(
    x: Tensor, labels: Tensor, x_val: Tensor, val_labels: Tensor, n_classes: int
) -> tuple[float, int, Tensor]:
    """The L2 penalty with which most of `x_val` are right, how many, and the logits; of equals the strongest."""
    best: tuple[float, int, Tensor] | None = None
    weight, bias = _zeros(x, n_classes)
    for l2 in L2_PENALTIES:  # each starts from the last: a path from simple to complex
        weight, bias = logistic_regression(x, labels, l2, weight, bias, max_iter=50)
        scores = F.linear(x_val, weight, bias)
        right = int((scores.argmax(1) == val_labels).sum())
        if best is None or right > best[1]:
            best = l2, right, scores
    assert best is not None
    return best


def _regress(x: Tensor, labels: Tensor, l2: float, n_classes: int) -> tuple[Tensor, Tensor]:
    return logistic_regression(x, labels, l2, *_zeros(x, n_classes))


def _zeros(x: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(n_classes, x.shape[1], device=x.device), torch.zeros(n_classes, device=x.device)
