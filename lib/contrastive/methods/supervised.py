"""Learning from labels: the encoder with a linear layer, from random weights or from pretrained ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment import View
from ..encoders import Encoder
from ..settings import METHODS, MethodSettings, Settings
from .base import Batch, Logged, Method, Output, Progress


class SupervisedSettings(MethodSettings):
    """Parameters of `Supervised`: none of its own."""


@METHODS.register("supervised")
class Supervised(Method):
    """All weights are trained on labels. From a pretrained encoder it is fine-tuning."""

    Parameters = SupervisedSettings
    TITLE = "Learning from labels"
    TEXT = r"""The encoder $f$ turns a view into features $h$, and a linear layer turns these into a score $s_c$ for
each class. The loss is the cross entropy of the image's own class $y$:

$$\ell = -\log \frac{\exp(s_y)}{\sum_c \exp(s_c)}$$

This method reads the labels of the images that it trains on. It is here to be compared with."""
    LOG = {"accuracy": Logged("right on training views", "% of views")}
    NEEDS_LABELS = True

    def __init__(self, encoder: Encoder, settings: Settings, n_classes: int = 0) -> None:
        super().__init__(encoder, settings, n_classes)
        self.classifier = nn.Linear(encoder.out_dim, n_classes)

    def views(self) -> list[View]:
        """One view by the first policy."""
        return [View(self.settings.views.augment, self.settings.views.view_size)]

    def forward(self, batch: Batch, progress: Progress) -> Output:
        """The cross entropy of the labels."""
        (views,), labels = batch.views, batch.labels
        assert labels is not None
        logits = self.classifier(self.encoder(views)).float()
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return Output(F.cross_entropy(logits, labels), {"accuracy": accuracy})

    def loss_range(self, n: int) -> tuple[float, float] | None:
        """When all classes are equally likely; and when all labels are right. Of one class there is nothing to tell."""
        return None if self.n_classes < 2 else (torch.tensor(float(self.n_classes)).log().item(), 0.0)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities, float32 N x classes, of uint8 images."""
        self.eval()
        scores = [self.classifier(self.encoder(self.encoder.prepare(part))) for part in images.split(128)]
        return torch.cat(scores).float().softmax(1)
