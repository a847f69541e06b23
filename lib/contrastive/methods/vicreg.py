"""VICReg (2105.04906)."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from ..encoders import Encoder, normalised_mlp
from ..losses import vicreg
from ..losses.redundancy import VICREG_EPSILON
from ..settings import METHODS, Float, Int, MethodSettings, Settings
from .base import Batch, Logged, Method, Output, Progress, each_size_at_once, mean_of, pairs


class VICRegSettings(MethodSettings):
    """Parameters of `VICReg`. The paper's, for 1.3 million images, are 25, 25, 1, 8192 and 8192 (section 4.2)."""

    invariance: Float = Field(25.0, ge=0, le=1000, description="weight of the difference of the views")
    variance: Float = Field(25.0, ge=0, le=1000, description="weight of dimensions that vary too little")
    covariance: Float = Field(1.0, ge=0, le=1000, description="weight of the covariances of different dimensions")
    hidden_dim: Int = Field(1024, ge=2, le=16384, description="hidden units of the projector")
    projection_dim: Int = Field(1024, ge=2, le=8192, description="width of the projections")


@METHODS.register("vicreg")
class VICReg(Method):
    """Views agree, each dimension varies from image to image, and none repeats another."""

    Parameters = VICRegSettings
    TITLE = "VICReg"
    TEXT = r"""The encoder and a projector turn both views into projections $z$ with D dimensions. The loss has three
terms: views of an image agree (invariance); each dimension has a standard deviation $\sigma$ over the batch of at least
1 (variance); and different dimensions have no covariance:

$$\ell = \lambda \, \mathrm{mean} (z - z')^2 + \mu \sum_{z, z'} \frac{1}{D} \sum_j \max(0, 1 - \sigma_j)
+ \nu \sum_{z, z'} \frac{1}{D} \sum_{i \neq j} \mathrm{cov}_{ij}^2$$

There are no negatives. A network that gives all images the same projection has a loss of $1.98 \mu$, from the second
term."""
    LOG = {
        "std": Logged("standard deviation of a dimension (to be 1)"),
        "covariance": Logged("covariance term"),
    }
    MULTI_CROP = True

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        self.weights = own.invariance, own.variance, own.covariance
        self.head = normalised_mlp(encoder.out_dim, own.hidden_dim, own.hidden_dim, own.projection_dim)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of two views of each image, and of each small view with both of these."""
        projections = each_size_at_once(lambda x: self.head(self.encoder(x)), batch.views)
        losses, logs = zip(*(vicreg(z1, z2, *self.weights) for z1, z2 in pairs(projections)), strict=True)
        return Output(mean_of(losses), logs[0])

    def loss_function(self) -> Callable[..., Any]:
        """Of one view and the other."""
        return vicreg

    def loss_range(self, n: int) -> tuple[float, float] | None:
        """When all projections are alike; and when all three terms are 0, which without the second term is the same."""
        return (2 * self.weights[1] * (1 - VICREG_EPSILON**0.5), 0.0) if self.weights[1] else None
