"""BYOL (2006.07733)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ..encoders import Encoder, normalised_mlp
from ..losses import cosine_regression
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
    spread,
)


class BYOLSettings(MethodSettings):
    """Parameters of `BYOL`. The paper's, for 1.3 million images, are 0.996, 4096 and 256 (section 3.3)."""

    VERSION = 2
    momentum: Float | None = Field(
        None, ge=0, le=1, description="of the target at the start; it rises to 1 (default: by steps of an epoch)"
    )
    hidden_dim: Int = Field(512, ge=2, le=16384, description="hidden units of the projector and of the predictor")
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of the projections")


@METHODS.register("byol")
class BYOL(Method):
    """An online network predicts what a target network, its own slow average, makes of the other view. No negatives."""

    Parameters = BYOLSettings
    TITLE = "BYOL"
    TEXT = r"""There are two networks. The online one has an encoder, a projector $g$ and a predictor $q$; the target
one has an encoder and a projector, gets no gradient, and follows the online one slowly: after each step its weights are
$\xi \leftarrow m \xi + (1-m) \theta$, with a momentum $m$ that rises to 1. For two views, the online network predicts
from the first what the target makes of the second, and the other way round:

$$\ell = \left\| \overline{q(z)} - \overline{z'} \right\|^2 = 2 - 2 \cos(q(z), z')$$

There are no negatives. That all images get the same projection would make the loss 0; the predictor and the target that
gets no gradient keep training away from it, and the checks below look for it."""
    MULTI_CROP = True
    LOG = {"target_std": Logged("spread of the target's projections (one point: 0, even over the sphere: 1)")}

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        self.head = normalised_mlp(encoder.out_dim, own.hidden_dim, own.projection_dim)
        self.predictor = normalised_mlp(own.projection_dim, own.hidden_dim, own.projection_dim)
        self.target_encoder, self.target_head = frozen_copy(self.encoder), frozen_copy(self.head)

    @classmethod
    def fitted(cls, settings: Settings) -> dict[str, Any]:
        """The momentum."""
        return momentum_by_epochs(settings)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of predicting each large view's target from every other view, of both large views together."""
        predictions = each_size_at_once(lambda x: self.predictor(self.head(self.encoder(x))), batch.views)
        targets = self.targets(batch.views[:2])
        loss = 2 * mean_of(cosine_regression(own, target) for own, target in across(predictions, targets))
        return Output(loss, {"target_std": spread(torch.cat(targets))})

    def loss_function(self) -> Callable[..., Any]:
        """Of one view and the other."""
        return cosine_regression

    @torch.no_grad()
    def targets(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The target network's projections, without gradient."""
        return each_size_at_once(lambda x: self.target_head(self.target_encoder(x)), views)

    def after_step(self, progress: Progress) -> None:
        """Have the target follow."""
        momentum = rising_momentum(self.own.momentum, progress)
        follow(self.target_encoder, self.encoder, momentum)
        follow(self.target_head, self.head, momentum)
