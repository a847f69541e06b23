"""SwAV (2006.09882)."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from ..encoders import Encoder, normalised_mlp
from ..losses import prototype_cross_entropy, share_in_use, sinkhorn
from ..settings import METHODS, Float, Int, MethodSettings, Settings
from .base import (
    IN_USE,
    Batch,
    Logged,
    Method,
    Output,
    Progress,
    across,
    cosines,
    each_size_at_once,
    mean_of,
    prototype_groups,
    scaled_gradient,
    thawed,
)


class SwAVSettings(MethodSettings):
    """Parameters of `SwAV`. The paper's, for 1.3 million images and batches of 4096, are 0.1, 0.05, 3000, 2048 and 128
    (section 4 and appendix A); prototypes are frozen for one epoch."""

    temperature: Float = Field(0.1, gt=0, le=100, description="by which scores are divided")
    epsilon: Float = Field(0.05, gt=0, le=10, description="how soft the balanced assignments are")
    n_prototypes: Int | None = Field(None, ge=2, le=65536, description="prototypes (default: by the batch)")
    freeze_epochs: Float = Field(1, ge=0, le=1000, description="epochs in which the prototypes stay as they were drawn")
    hidden_dim: Int = Field(512, ge=2, le=16384, description="hidden units of the projector")
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of the projections")


@METHODS.register("swav")
class SwAV(Method):
    """Views of an image are assigned to the same of some prototypes, which are learned, and all of which are used."""

    Parameters = SwAVSettings
    TITLE = "SwAV"
    TEXT = r"""The encoder and a projector turn views into projections $z$, which are compared with K prototypes $c_k$
that are learned, too: the scores are cosines. The scores of a batch are turned into assignments $q$ under the
constraint that all prototypes are used alike (by the Sinkhorn-Knopp algorithm). From one view's scores, divided by the
temperature $\tau$, the other view's assignment has to be predicted:

$$\ell = -\sum_k q'_k \log \frac{\exp(\cos(z, c_k)/\tau)}{\sum_j \exp(\cos(z, c_j)/\tau)}$$

Images are not compared with each other. Small views predict the assignments of the two large ones. A network that tells
nothing apart has a loss of $\ln K$."""
    LOG = {"in_use": Logged("prototypes in use", "% of prototypes", least=IN_USE)}
    MULTI_CROP = True
    LOCAL_VIEWS = 6  # table 3 and appendix A.3: two large views and six small ones

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        self.head = normalised_mlp(encoder.out_dim, own.hidden_dim, own.projection_dim)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(own.n_prototypes, own.projection_dim), dim=1))

    @classmethod
    def fitted(cls, settings: Settings) -> dict[str, Any]:
        """As many prototypes as a batch can use alike: three for four images, as in the paper (3000 for 4096)."""
        return {"n_prototypes": max(settings.optimiser.batch_size * 3 // 4, 2)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Prototypes without weight decay."""
        return prototype_groups(self, self.prototypes)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of predicting the assignments of each large view from every other view."""
        prototypes = scaled_gradient(self.prototypes, thawed(self.own.freeze_epochs, self.settings, progress))
        scores = each_size_at_once(lambda x: cosines(self.head(self.encoder(x)), prototypes), batch.views)
        targets = [sinkhorn(own, self.own.epsilon) for own in scores[:2]]
        loss = mean_of(prototype_cross_entropy(q, s, self.own.temperature) for s, q in across(scores, targets))
        return Output(loss, {"in_use": share_in_use((torch.cat(scores[:2]) / self.own.temperature).softmax(1))})

    def loss_function(self) -> Callable[..., Any]:
        """How assignments are made."""
        return sinkhorn

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Give the prototypes unit length again. While they are frozen they stay as they are, to the last bit."""
        trained = thawed(self.own.freeze_epochs, self.settings, progress)
        self.prototypes.copy_(torch.where(trained, F.normalize(self.prototypes, dim=1), self.prototypes))

    def loss_range(self, n: int) -> tuple[float, float]:
        """When scores tell nothing; and when they tell all."""
        return math.log(len(self.prototypes)), 0.0
