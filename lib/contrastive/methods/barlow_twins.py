"""Barlow Twins (2103.03230)."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from ..encoders import Encoder, normalised_mlp
from ..losses import barlow_twins
from ..settings import METHODS, Float, Int, MethodSettings, Settings
from .base import Batch, Logged, Method, Output, Progress, each_size_at_once, mean_of, pairs


class BarlowTwinsSettings(MethodSettings):
    """Parameters of `BarlowTwins`. The paper's, for 1.3 million images, are 0.005, 8192 and 8192 (section 2.2)."""

    off_diagonal: Float = Field(0.005, ge=0, le=10, description="weight of the correlations of different dimensions")
    hidden_dim: Int = Field(1024, ge=2, le=16384, description="hidden units of the projector")
    projection_dim: Int = Field(1024, ge=2, le=8192, description="width of the projections")


@METHODS.register("barlow_twins")
class BarlowTwins(Method):
    """Each dimension of the projections is to be the same in both views, and to tell what no other one tells."""

    Parameters = BarlowTwinsSettings
    TITLE = "Barlow Twins"
    TEXT = r"""The encoder and a projector turn both views into projections with D dimensions. Over the batch, each
dimension of the one view is correlated with each dimension of the other view, which gives a matrix $C$. It is to be
the identity: the same dimension agrees in both views, different dimensions have nothing in common:

$$\ell = \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \neq i} C_{ij}^2$$

There are no negatives. A network that gives all images the same projection has no correlations at all, and a loss of
D."""
    LOG = {"correlation": Logged("correlation of a dimension with itself in the other view")}
    MULTI_CROP = True

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        own = self.own
        self.head = normalised_mlp(encoder.out_dim, own.hidden_dim, own.hidden_dim, own.projection_dim)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of two views of each image, and of each small view with both of these."""
        projections = each_size_at_once(lambda x: self.head(self.encoder(x)), batch.views)
        results = [barlow_twins(z1, z2, self.own.off_diagonal) for z1, z2 in pairs(projections)]
        losses, correlations = zip(*results, strict=True)
        return Output(mean_of(losses), {"correlation": correlations[0]})

    def loss_function(self) -> Callable[..., Any]:
        """Of one view and the other."""
        return barlow_twins

    def loss_range(self, n: int) -> tuple[float, float]:
        """When nothing is correlated; and when views agree and dimensions have nothing in common."""
        return float(self.own.projection_dim), 0.0
