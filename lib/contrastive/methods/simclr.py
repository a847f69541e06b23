"""Methods of pretraining: two views of a batch in, a loss and what to log out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..encoders.cnn import Encoder, projection_head
from ..losses.ntxent import LOSSES
from ..settings.model import Settings


class SimCLR(nn.Module):
    """SimCLR (2002.05709): an encoder and a projection head, trained so that two views of an image agree."""

    def __init__(self, encoder: Encoder, settings: Settings):
        super().__init__()
        self.encoder, self.temperature = encoder, settings.temperature
        self.loss, self.l2_normalize = LOSSES[settings.loss], settings.l2_normalize
        self.head = projection_head(settings.head, encoder.feature_dim, settings.projection_dim)

    def forward(self, views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """views: 2N x C x H x W, the first views of N images, then their second ones, in one batch so that BatchNorm
        sees both. Returns the loss and, for the log, the share of anchors whose positive is their nearest view.
        """
        z1, z2 = self.head(self.encoder(views)).chunk(2)
        loss, top1 = self.loss(z1, z2, self.temperature, self.l2_normalize)
        return loss, {"top1": top1}


METHODS: dict[str, type[SimCLR]] = {"simclr": SimCLR}


def build_method(encoder: Encoder, settings: Settings) -> SimCLR:
    """The method that the settings name, around `encoder`."""
    return METHODS[settings.method](encoder, settings).to(memory_format=torch.channels_last)
