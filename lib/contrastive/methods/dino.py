"""DINO (2104.14294)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..encoders import Encoder
from ..losses import prototype_cross_entropy, share_in_use, sharpened
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
    follow,
    frozen_copy,
    mean_of,
    momentum_by_epochs,
    prototype_groups,
    rising_momentum,
    scaled_gradient,
    thawed,
)

WARM_UP = 0.1  # of the training, in which the teacher's temperature rises: 30 of 300 epochs in the paper


class DINOSettings(MethodSettings):
    """Parameters of `DINO`. The paper's, for 1.3 million images and batches of 1024, are 0.1, 0.04 to 0.07, 0.996, 0.9,
    65536, 2048 and 256 (section 3.1 and appendix C); the last layer is frozen for one epoch."""

    student_temperature: Float = Field(0.1, gt=0, le=100, description="by which the student's scores are divided")
    teacher_temperature: Float = Field(0.04, gt=0, le=100, description="the teacher's at the start")
    teacher_temperature_end: Float = Field(
        0.07, gt=0, le=100, description="the teacher's after a tenth of the training"
    )
    momentum: Float | None = Field(
        None, ge=0, le=1, description="of the teacher at the start; it rises to 1 (default: by steps of an epoch)"
    )
    centre_momentum: Float = Field(0.9, ge=0, le=1, description="of the mean of the teacher's scores")
    n_prototypes: Int | None = Field(None, ge=2, le=65536, description="prototypes (default: by the number of images)")
    freeze_epochs: Float = Field(1, ge=0, le=1000, description="epochs in which the prototypes stay as they were drawn")
    hidden_dim: Int = Field(512, ge=2, le=16384, description="hidden units of the head")
    projection_dim: Int = Field(128, ge=2, le=8192, description="width of what is compared with the prototypes")


@METHODS.register("dino")
class DINO(Method):
    """A student predicts to which prototypes a teacher, its own slow average, assigns other, larger views."""

    Parameters = DINOSettings
    TITLE = "DINO"
    TEXT = r"""A student and a teacher have the same form: an encoder, a head, and K prototypes, with which projections
are compared. The teacher gets no gradient and follows the student slowly: $\xi \leftarrow m \xi + (1-m) \theta$, with a
momentum $m$ that rises to 1. It sees large views only. From every other view the student has to predict the teacher's
assignment, a softmax $P_t$ of its scores less their running mean, the centre, at a low temperature $\tau_t$:

$$\ell = -\sum_k P_t(x)_k \log P_s(x')_k$$

There are no negatives. Two things keep training from giving all images the same: without the centre one prototype would
take all of them, without the low temperature all would be assigned evenly. A student that predicts nothing has a loss
of $\ln K$."""
    LOG = {
        "in_use": Logged("prototypes that the teacher uses", "% of prototypes", least=IN_USE),
        "certainty": Logged("how sure the teacher is (evenly assigned: 0, to one prototype: 1)"),
    }
    MULTI_CROP = True
    LOCAL_VIEWS = 6
    centre: Tensor

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        n, width, hidden = self.own.n_prototypes, self.own.projection_dim, self.own.hidden_dim
        self.head = nn.Sequential(
            *(nn.Linear(encoder.out_dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()),
            nn.Linear(hidden, width),
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(n, width))
        self.teacher_encoder, self.teacher_head = frozen_copy(self.encoder), frozen_copy(self.head)
        self.teacher_prototypes = nn.Parameter(self.prototypes.detach().clone(), requires_grad=False)
        self.register_buffer("centre", torch.zeros(1, n))

    @classmethod
    def fitted(cls, settings: Settings) -> dict[str, Any]:
        """The momentum; and a prototype for each 20 images, as in the paper (65,536 for 1.3 million)."""
        return momentum_by_epochs(settings) | {"n_prototypes": max((settings.data.n_images or 0) // 20, 2)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Prototypes without weight decay."""
        return prototype_groups(self, self.prototypes)

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The loss of predicting the teacher's assignment of each large view from every other view."""
        trained = thawed(self.own.freeze_epochs, self.settings, progress)
        prototypes = F.normalize(scaled_gradient(self.prototypes, trained), dim=1)
        scores = each_size_at_once(lambda x: cosines(self.head(self.encoder(x)), prototypes), batch.views)
        self.teacher_scores = torch.cat(self.teach(batch.views[:2]))
        targets = sharpened(self.teacher_scores, self.centre, self.teacher_temperature(progress))
        own = across(scores, targets.chunk(2))
        loss = mean_of(prototype_cross_entropy(target, s, self.own.student_temperature) for s, target in own)
        entropy = torch.special.entr(targets).sum(1).mean() / math.log(targets.shape[1])
        return Output(loss, {"in_use": share_in_use(targets), "certainty": 1 - entropy})

    def loss_function(self) -> Callable[..., Any]:
        """Of a teacher's assignment and a student's scores."""
        return prototype_cross_entropy

    def teacher_temperature(self, progress: Progress) -> Tensor:
        """The teacher's temperature, which rises at first, a scalar."""
        start, end = self.own.teacher_temperature, self.own.teacher_temperature_end
        return start + (end - start) * torch.as_tensor(progress.share / WARM_UP).clamp(max=1)

    @torch.no_grad()
    def teach(self, views: Sequence[Tensor]) -> list[Tensor]:
        """The teacher's scores, without gradient."""
        prototypes = F.normalize(self.teacher_prototypes, dim=1)
        return each_size_at_once(lambda x: cosines(self.teacher_head(self.teacher_encoder(x)), prototypes), views)

    @torch.no_grad()
    def after_step(self, progress: Progress) -> None:
        """Have the teacher follow, and the centre."""
        momentum = rising_momentum(self.own.momentum, progress)
        follow(self.teacher_encoder, self.encoder, momentum)
        follow(self.teacher_head, self.head, momentum)
        self.teacher_prototypes.lerp_(self.prototypes, 1 - momentum)
        self.centre.lerp_(self.teacher_scores.mean(0, keepdim=True), 1 - self.own.centre_momentum)

    def loss_range(self, n: int) -> tuple[float, float]:
        """When the student predicts nothing; and when it predicts all."""
        return math.log(len(self.prototypes)), 0.0
