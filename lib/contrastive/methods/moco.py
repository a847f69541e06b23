"""MoCo v2 (2003.04297, 1911.05722)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from ..encoders import HEADS, Encoder, projection_head
from ..losses import info_nce
from ..settings import METHODS, Float, Int, MethodSettings, Settings, one_of
from .base import Batch, Logged, Method, Output, Progress, follow, frozen_copy


class MoCoSettings(MethodSettings):
    """Parameters of `MoCo`. The paper's, for 1.3 million images, are 0.2, 0.999 and 65536 (2003.04297, table 1)."""

    temperature: Float = Field(0.2, gt=0, le=100, description="of InfoNCE, which divides cosines")
    momentum: Float = Field(0.99, ge=0, le=1, description="of the key network, which follows the query network")
    queue_size: Int = Field(2048, ge=2, le=2**20, description="keys that are kept as negatives")
    head: str = Field("mlp", description=f"the projection head, used in pretraining only: {', '.join(HEADS)}")
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of what the head puts out")

    @field_validator("head")
    @classmethod
    def _known_head(cls, value: str) -> str:
        return one_of(value, HEADS, "head")


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
    LOG = {"top1": Logged("own keys found", "% of queries")}
    queue: Tensor
    place: Tensor

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own: MoCoSettings = settings.method  # type: ignore[assignment]
        self.temperature, self.momentum, self.queue_size = own.temperature, own.momentum, own.queue_size
        self.head = projection_head(own.head, encoder.out_dim, own.projection_dim)
        self.key_encoder, self.key_head = frozen_copy(self.encoder), frozen_copy(self.head)
        width = encoder.out_dim if own.head == "none" else own.projection_dim
        self.register_buffer("queue", F.normalize(torch.randn(own.queue_size, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))  # of the oldest key

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of the first views as queries, the second ones as keys."""
        first, second = batch.views
        query = self.head(self.encoder(first))
        self.keys = self.make_keys(second)
        loss, top1 = info_nce(query, self.keys, self.queue, self.temperature)
        return Output(loss, {"top1": top1})

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
        follow(self.key_encoder, self.encoder, self.momentum)
        follow(self.key_head, self.head, self.momentum)
        keys = self.keys[-self.queue_size :]
        places = (self.place + torch.arange(len(keys), device=keys.device)) % self.queue_size
        self.queue.index_copy_(0, places, keys)
        self.place.copy_((self.place + len(keys)) % self.queue_size)

    def loss_range(self, n: int) -> tuple[float, float]:
        """When all keys are alike; and when the own key coincides and all others are orthogonal."""
        levels = torch.tensor([0.0, -1.0], dtype=torch.float64) / self.temperature
        chance, lowest = (self.queue_size * levels.exp()).log1p().tolist()
        return chance, lowest
