"""MoCo v3 (2104.02057)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ..encoders import Encoder, normalised_mlp
from ..losses import batch_info_nce
from ..settings import METHODS, Float, Int, MethodSettings, Settings
from .base import (
    Batch,
    Logged,
    Method,
    Output,
    Progress,
    across,
    each_size_at_once,
    follow,
    frozen_copy,
    mean_of,
    momentum_by_epochs,
    rising_momentum,
)


class MoCoV3Settings(MethodSettings):
    """Parameters of `MoCoV3`. The paper's, for 1.3 million images and batches of 4096, are 0.2 (section 5.1: of a ViT;
    1.0 of a ResNet-50), 0.99, 4096 and 256 (section 4)."""

    temperature: Float = Field(0.2, gt=0, le=100, description="of InfoNCE, which divides cosines")
    momentum: Float | None = Field(
        None, ge=0, le=1, description="of the key network at the start; it rises to 1 (default: by steps of an epoch)"
    )
    hidden_dim: Int = Field(512, ge=2, le=16384, description="hidden units of the projector and of the predictor")
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of the projections")
    freeze_patches: bool = Field(True, description="whether a Vision Transformer's patch projection stays random")


@METHODS.register("mocov3")
class MoCoV3(Method):
    """Queries, made with a predictor, have to find their own keys in the batch, both views in either role."""

    Parameters = MoCoV3Settings
    TITLE = "MoCo v3"
    TEXT = r"""One network turns a view into a query $q$: an encoder, a projector and a predictor. Another one, without
the predictor, turns the other view into a key $k$. It gets no gradient and follows the first slowly:
$\xi \leftarrow m \xi + (1-m) \theta$, with a momentum $m$ that rises to 1. The negatives are the keys of the other
images of the batch, so there is no queue. The loss, InfoNCE, is the cross entropy of picking the own key by the cosines
divided by the temperature $\tau$, once with each view as the query:

$$\ell_i = -2\tau \log \frac{\exp(\cos(q_i, k_i)/\tau)}{\sum_{j=1}^N \exp(\cos(q_i, k_j)/\tau)}$$

A key is found when it is nearer than all others of the batch. A network that tells nothing apart has a loss of
$4\tau \ln N$, of both roles together. In a Vision Transformer the projection of patches is not trained, which makes
training steadier."""
    LOG = {"top1": Logged("own keys found", "% of queries", lambda n: 1 / n)}
    MULTI_CROP = True

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        patches = getattr(encoder, "patches", None)
        if patches is not None and own.freeze_patches:
            patches.requires_grad_(False)
        widths = (own.hidden_dim, own.hidden_dim, own.projection_dim)
        self.head = normalised_mlp(encoder.out_dim, *widths, last=True)
        self.predictor = normalised_mlp(own.projection_dim, own.hidden_dim, own.projection_dim, last=True)
        self.key_encoder, self.key_head = frozen_copy(self.encoder), frozen_copy(self.head)

    @classmethod
    def fitted(cls, settings: Settings) -> dict[str, Any]:
        """The momentum."""
        return momentum_by_epochs(settings)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of every view as query, with the keys of the large views other than it."""
        queries = each_size_at_once(lambda x: self.predictor(self.head(self.encoder(x))), batch.views)
        keys = self.make_keys(batch.views[:2])
        results = [batch_info_nce(query, key, self.own.temperature) for query, key in across(queries, keys)]
        losses, found = zip(*results, strict=True)
        return Output(4 * self.own.temperature * mean_of(losses), {"top1": mean_of(found[:2])})

    def loss_function(self) -> Callable[..., Any]:
        """Of one view and the other."""
        return batch_info_nce

    @torch.no_grad()
    def make_keys(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The key network's projections, without gradient."""
        return each_size_at_once(lambda x: self.key_head(self.key_encoder(x)), views)

    def after_step(self, progress: Progress) -> None:
        """Have the key network follow."""
        momentum = rising_momentum(self.own.momentum, progress)
        follow(self.key_encoder, self.encoder, momentum)
        follow(self.key_head, self.head, momentum)

    def loss_range(self, n: int) -> tuple[float, float]:
        """When all keys are alike; and when the own key coincides and all others are orthogonal."""
        temperature = self.own.temperature
        return 4 * temperature * math.log(n), 4 * temperature * math.log1p((n - 1) * math.exp(-1 / temperature))
