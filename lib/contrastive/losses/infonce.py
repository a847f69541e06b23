"""InfoNCE against a queue of keys, the loss of MoCo v2, or against a batch of keys, that of MoCo v3."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE (equation 1 of 1911.05722): the cross entropy of picking a query's own key among those of a queue.

    Args:
        query: N x D, not yet normalised.
        key: N x D, of the same images in the same order, not yet normalised; it gets no gradient.
        queue: K x D, keys of other images, of unit length.
        temperature: by which cosines are divided.

    Returns:
        The mean loss over the N queries, a float32 scalar, ln(K + 1) when all keys are alike; and the share of queries
        whose own key is nearer than all others, without gradient.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = F.normalize(query.float(), dim=1), F.normalize(key.detach().float(), dim=1)
        own, others = (query * key).sum(1, keepdim=True), query @ queue.float().T
        logits = torch.cat([own, others], dim=1) / temperature
        # Nearer by more than rounding errors, which are all that tells collapsed keys apart
        nearest = (own > others.amax(1, keepdim=True) + 1e-6).float().mean().detach()
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)), nearest


def batch_info_nce(query: Tensor, key: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE among the keys of a batch (equation 1 of 2104.02057), without the factor of twice the temperature.

    Args:
        query: N x D, not yet normalised.
        key: N x D, of other views of the same images in the same order, not yet normalised; it gets no gradient.
        temperature: by which cosines are divided.

    Returns:
        The mean loss over the N queries, a float32 scalar, ln N when all keys are alike; and the share of queries whose
        own key is nearer than all others, without gradient.
    """
    with torch.autocast(query.device.type, enabled=False):
        query, key = F.normalize(query.float(), dim=1), F.normalize(key.detach().float(), dim=1)
        cosines = query @ key.T
        own = torch.arange(len(query), device=query.device)
        others = cosines.detach().clone().fill_diagonal_(-torch.inf).amax(1)
        nearest = (cosines.detach().diagonal() > others + 1e-6).float().mean()
        return F.cross_entropy(cosines / temperature, own), nearest
