"""The loss of methods without negatives: one view's projection predicts the other's."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """The squared distance of two directions, 2 - 2 cos (equation 2 of 2006.07733).

    Args:
        prediction: N x D, not yet normalised.
        target: N x D, in the same order; it gets no gradient.

    Returns:
        The mean over the N rows, a float32 scalar from 0 (the same directions) to 4.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        return 2 - 2 * F.cosine_similarity(prediction.float(), target.detach().float(), dim=1).mean()
