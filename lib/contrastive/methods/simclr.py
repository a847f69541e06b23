"""SimCLR (2002.05709)."""

from collections.abc import Callable
from typing import Any

from pydantic import Field, field_validator
from torch import Tensor

from ..encoders import Encoder, projection_head
from ..losses import LOSSES, chance_loss, lowest_loss, whole_matrix
from ..settings import METHODS, Float, Int, MethodSettings, Settings, one_of
from .base import Batch, Head, Logged, Method, Output, Progress, each_size_at_once, mean_of, pairs


class SimCLRSettings(MethodSettings):
    """Parameters of `SimCLR`."""

    loss: str = Field("nt_xent", description=f"what makes views of one image agree: {', '.join(LOSSES)}")
    l2_normalize: bool = Field(True, description="whether the loss compares directions only, by cosine")
    temperature: Float = Field(1.0, gt=0, le=100, description="of NT-Xent and NT-Logistic; a triplet loss's margin")
    head: Head = "mlp"
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of what the head puts out")

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str) -> str:
        return one_of(value, tuple(LOSSES), "loss")


@METHODS.register("simclr")
class SimCLR(Method):
    """An encoder and a projection head, trained so that two views of an image agree, and differ from all others."""

    Parameters = SimCLRSettings
    TITLE = "SimCLR"
    TEXT = r"""The encoder $f$ turns a view into features $h$; the projection head $g$ turns these into $z$, and the
loss is taken there. After training the head is thrown away. With N images in a batch there are 2N views. For each
of them, $i$, the loss, NT-Xent, is the cross entropy of picking its positive $j$, the other view of the same image,
among the $2N-1$ others, by the cosine of their projections divided by the temperature $\tau$:

$$\ell_i = -\log \frac{\exp(\cos(z_i, z_j)/\tau)}{\sum_{k \neq i} \exp(\cos(z_i, z_k)/\tau)}$$

A positive is found when it is nearer than all other views. A network that tells nothing apart has a loss of
$\ln(2N-1)$. (With another `loss`, or without `l2_normalize`, it is another formula and another level: see
`contrastive.losses`.)"""
    MULTI_CROP = True
    LOG = {"top1": Logged("positives found", "% of anchors", lambda n: 1 / (2 * n - 1))}

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        self.head = projection_head(self.own.head, encoder.out_dim, self.own.projection_dim)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of two views of each image, and of each small view with both of these."""
        projections = each_size_at_once(lambda x: self.head(self.encoder(x)), batch.views)
        losses, found = zip(*(self.loss(z1, z2) for z1, z2 in pairs(projections)), strict=True)
        return Output(mean_of(losses), {"top1": found[0]})

    def loss(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
        """The loss that was chosen, and how often the positive is the nearest view."""
        return LOSSES[self.own.loss](z1, z2, self.own.temperature, self.own.l2_normalize)

    def loss_function(self) -> Callable[..., Any]:
        """NT-Xent of the whole matrix, which the fast one equals; or the other loss that was chosen."""
        chosen = LOSSES[self.own.loss]
        return whole_matrix if self.own.loss == "nt_xent" else getattr(chosen, "func", chosen)

    def loss_range(self, n: int) -> tuple[float, float] | None:
        """That of the loss. What collapsed has no semi-hard negatives, so there it says nothing."""
        if self.own.loss.endswith("semi_hard"):
            return None
        return tuple(level(n, self.own.temperature, self.own.loss) for level in (chance_loss, lowest_loss))  # type: ignore

    def advice(self) -> str:
        """A higher temperature, if it is very low."""
        if self.own.temperature >= 0.02:
            return ""
        return f"a temperature above {self.own.temperature:g}, which multiplies gradients by its inverse"
