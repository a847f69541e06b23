"""SupCon, supervised contrastive learning (2004.11362)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field

from ..encoders import Encoder, projection_head
from ..losses import sup_con
from ..settings import METHODS, Float, Int, MethodSettings, Settings
from .base import Batch, Head, Logged, Method, Output, Progress, each_size_at_once


class SupConSettings(MethodSettings):
    """Parameters of `SupCon`. The paper's temperature is 0.1 (section 4.4), its projections have 128 dimensions
    (section 3.1)."""

    temperature: Float = Field(0.1, gt=0, le=100, description="by which cosines are divided")
    head: Head = "mlp"
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of what the head puts out")


@METHODS.register("supcon")
class SupCon(Method):
    """SimCLR with labels: all views of images of the same class are to be near each other."""

    Parameters = SupConSettings
    TITLE = "SupCon"
    TEXT = r"""The encoder and a projection head turn views into projections $z$, as in SimCLR. But the positives
$P(i)$ of a view are all other views of images of its class, and the loss is the mean over these:

$$\ell_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)} \log \frac{\exp(\cos(z_i, z_p)/\tau)}{\sum_{k \neq i}
\exp(\cos(z_i, z_k)/\tau)}$$

This method reads the labels of all images that it trains on. It shows what labels would allow, and is here to be
compared with. A network that tells nothing apart has a loss of the logarithm of how many other views there are."""
    LOG = {"top1": Logged("nearest view is of the same class", "% of anchors")}
    NEEDS_LABELS = True
    MULTI_CROP = True

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        self.head = projection_head(self.own.head, encoder.out_dim, self.own.projection_dim)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of all views together."""
        assert batch.labels is not None
        projections = each_size_at_once(lambda x: self.head(self.encoder(x)), batch.views)
        labels = batch.labels.repeat(len(projections))
        loss, top1 = sup_con(torch.cat(projections), labels, self.own.temperature)
        return Output(loss, {"top1": top1})

    def loss_function(self) -> Callable[..., Any]:
        """Of all views together."""
        return sup_con

    def loss_range(self, n: int) -> tuple[float, float] | None:
        """When all views are alike; and when those of a class coincide and all others are orthogonal, of classes of the
        same size. Of one class there is nothing to tell apart."""
        if self.n_classes < 2:
            return None
        views = n * (2 + (self.settings.views.local_views or 0))
        of_class = max(views / self.n_classes, 2) - 1
        others = max(views - 1 - of_class, 0)
        return math.log(views - 1), math.log(of_class + others * math.exp(-1 / self.own.temperature))
