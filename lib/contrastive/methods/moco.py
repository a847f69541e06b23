"""MoCo v2 (2003.04297, 1911.05722)."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ..encoders import Encoder, projection_head
from ..losses import info_nce
from ..settings import METHODS, Float, Int, MethodSettings, Settings, UserError
from .base import (
    Batch,
    Head,
    Logged,
    Method,
    Output,
    Progress,
    each_size_at_once,
    follow,
    frozen_copy,
    mean_of,
)


class MoCoSettings(MethodSettings):
    """Parameters of `MoCo`. The paper's, for 1.3 million images, are 0.2, 0.999 and 65536 (2003.04297, table 1)."""

    VERSION = 2
    temperature: Float = Field(0.2, gt=0, le=100, description="of InfoNCE, which divides cosines")
    momentum: Float = Field(0.99, ge=0, le=1, description="of the key network, which follows the query network")
    queue_size: Int | None = Field(
        None, ge=2, le=2**20, description="keys kept as negatives, a multiple of batch_size (default: by the images)"
    )
    head: Head = "mlp"
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of what the head puts out")


@METHODS.register("mocov2")
class MoCo(Method):
    """A query has to find its own key, made by a slowly following network, among a queue of keys of earlier batches."""

    Parameters = MoCoSettings
    TITLE = "MoCo v2"
    TEXT = r"""One view of an image is turned into a query $q$, the other into a key $k$, by a network of the same
kind that gets no gradient and follows the query network slowly, with momentum $m$:
$\xi \leftarrow m \xi + (1-m) \theta$. The negatives are not the other images of the batch but a queue of the keys
$k_1 \dots k_K$ of earlier batches, so their number does not depend on the batch. The loss,
InfoNCE, is the cross entropy of picking the own key by the cosines divided by the temperature $\tau$:

$$\ell = -\log \frac{\exp(\cos(q, k)/\tau)}{\exp(\cos(q, k)/\tau) + \sum_{i=1}^K \exp(\cos(q, k_i)/\tau)}$$

A key is found when it is nearer than all of the queue. A network that tells nothing apart has a loss of
$\ln(K+1)$. After each step the batch's keys take the place of the oldest ones."""
    MULTI_CROP = True
    LOG = {"top1": Logged("own keys found", "% of queries")}
    queue: Tensor
    place: Tensor

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        self.head = projection_head(own.head, encoder.out_dim, own.projection_dim)
        self.key_encoder, self.key_head = frozen_copy(self.encoder), frozen_copy(self.head)
        width = encoder.out_dim if own.head == "none" else own.projection_dim
        self.register_buffer("queue", F.normalize(torch.randn(own.queue_size, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))  # of the oldest key

    @classmethod
    def fitted(cls, settings: Settings) -> dict[str, Any]:
        """A queue of two fifths of the images, in whole batches."""
        batch = settings.optimiser.batch_size
        return {"queue_size": max((settings.data.n_images or 0) * 2 // 5 // batch, 1) * batch}

    @classmethod
    def check(cls, settings: Settings) -> None:
        """That a queue is made of whole batches."""
        size, batch = settings.method.queue_size, settings.optimiser.batch_size  # type: ignore[attr-defined]
        if size and size % batch:
            fitting = max(round(size / batch), 1) * batch
            raise UserError(
                f"parameter queue_size={size}: a batch has {batch} keys, which take the place of as many old ones, so "
                f"it has to be a multiple of that. Ask for {fitting}, or change batch_size."
            )

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of the first views as queries, and of the small ones; the second views make the keys."""
        first, second, *small = batch.views
        queries = each_size_at_once(lambda x: self.head(self.encoder(x)), [first, *small])
        self.keys = self.make_keys(second)
        losses, found = zip(*(info_nce(q, self.keys, self.queue, self.own.temperature) for q in queries), strict=True)
        return Output(mean_of(losses), {"top1": found[0]})

    def loss_function(self) -> Callable[..., Any]:
        """Of one view and the other."""
        return info_nce

    @torch.no_grad()
    def make_keys(self, views: Tensor) -> Tensor:
        """The key network's projections, of unit length, without gradient."""
        return F.normalize(self.key_head(self.key_encoder(views)).float(), dim=1)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Have the key network follow, and put the step's keys in the place of the oldest ones."""
        follow(self.key_encoder, self.encoder, self.own.momentum)
        follow(self.key_head, self.head, self.own.momentum)
        places = (self.place + torch.arange(len(self.keys), device=self.keys.device)) % len(self.queue)
        self.queue.index_copy_(0, places, self.keys)
        self.place.copy_((self.place + len(self.keys)) % len(self.queue))

    def loss_range(self, n: int) -> tuple[float, float]:
        """When all keys are alike; and when the own key coincides and all others are orthogonal."""
        others = len(self.queue)
        return math.log1p(others), math.log1p(others * math.exp(-1 / self.own.temperature))
