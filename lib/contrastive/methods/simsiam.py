"""SimSiam (2011.10566)."""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field

from ..encoders import Encoder, normalised_mlp
from ..losses import cosine_regression
from ..settings import METHODS, Int, MethodSettings, Settings
from .base import (
    Batch,
    Logged,
    Method,
    Output,
    Progress,
    across,
    decay_groups,
    each_size_at_once,
    mean_of,
    spread,
)


class SimSiamSettings(MethodSettings):
    """Parameters of `SimSiam`. The paper's, for 1.3 million images, are 2048, 2048 and 512 (section 3)."""

    hidden_dim: Int = Field(512, ge=2, le=16384, description="hidden units of the projector")
    projection_dim: Int = Field(512, ge=2, le=8192, description="width of the projections")
    bottleneck_dim: Int = Field(128, ge=1, le=8192, description="hidden units of the predictor")


@METHODS.register("simsiam")
class SimSiam(Method):
    """A predictor makes of one view's projection the other's, which gets no gradient. No negatives, no target."""

    Parameters = SimSiamSettings
    TITLE = "SimSiam"
    TEXT = r"""One network, an encoder and a projector, turns both views into projections $z_1$ and $z_2$. A predictor
$q$ makes of each the other one, which is taken as given: no gradient flows into it. There are no negatives, no momentum
and no second network:

$$\ell = -\tfrac{1}{2} \cos(q(z_1), z_2) - \tfrac{1}{2} \cos(q(z_2), z_1)$$

That all images get the same projection would make the loss -1. Only the gradient that is stopped keeps training away
from it, and the checks below look for it. The predictor's learning rate stays constant."""
    LOG = {"projection_std": Logged("spread of the projections (one point: 0, even over the sphere: 1)")}
    MULTI_CROP = True

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        self.head = normalised_mlp(encoder.out_dim, own.hidden_dim, own.hidden_dim, own.projection_dim, last=True)
        self.predictor = normalised_mlp(own.projection_dim, own.bottleneck_dim, own.projection_dim)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The predictor's learning rate does not fall (section 4.2)."""
        others = [*self.encoder.parameters(), *self.head.parameters()]
        return decay_groups(others) + decay_groups(self.predictor.parameters(), schedule="fixed")

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of predicting each large view's projection from every other view."""
        projections = each_size_at_once(lambda x: self.head(self.encoder(x)), batch.views)
        predictions = [self.predictor(z) for z in projections]
        targets = [z.detach() for z in projections[:2]]
        # 2 - 2 cos, of which the half less 1 is -cos
        loss = mean_of(cosine_regression(own, target) for own, target in across(predictions, targets)) / 2 - 1
        return Output(loss, {"projection_std": spread(torch.cat(targets))})

    def loss_function(self) -> Callable[..., Any]:
        """Of one view and the other."""
        return cosine_regression
