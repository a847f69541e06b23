"""Encoders (images -> features h) and projection heads (features -> z, where the loss is taken)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..augment.operations import normalize
from ..settings.model import Settings


class Encoder(nn.Module):
    """A network from normalised float images, N x C x H x W, to features, float32 N x feature_dim.

    It carries the normalisation that it was trained with, so that `prepare` turns uint8 images into its input. The
    features of a map are in the order height, width, channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, feature_dim: int, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.body, self.feature_dim = body, feature_dim
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """The features of normalised images."""
        return self.body(x).float()

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 N x C x H x W -> the normalised float32 input of `forward`, laid out channels last."""
        x = normalize(images.to(self.mean.device).float() / 255, self.mean, self.std)
        return x.contiguous(memory_format=torch.channels_last)


class PooledConv(nn.Conv2d):
    """A 3x3 convolution that 2x2 pooling follows: of an odd size, the last row or column, which pooling would drop,
    is not computed. On 7x7 maps that saves a quarter of the work."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """N x in x H x W -> N x out x H x W, or H - 1 and W - 1 where these are odd."""
        odd_height, odd_width = (size % 2 for size in x.shape[-2:])
        if not odd_height and not odd_width:
            return super().forward(x)
        return F.conv2d(F.pad(x, (1, 1 - odd_width, 1, 1 - odd_height)), self.weight)


class Flatten(nn.Module):
    """N x C x H x W -> N x H*W*C: in the order in which channels-last maps lie in memory, so nothing is copied."""

    def forward(self, x: Tensor) -> Tensor:
        """The flat maps."""
        return x.permute(0, 2, 3, 1).flatten(1)


def cnn(channels: int, size: tuple[int, int], width: int = 32, mean: bool = False) -> tuple[nn.Module, int]:
    """The simple CNN: three times 3x3 convolution, 2x2 max-pooling, BatchNorm, ReLU, with w, 2w and 4w channels.

    For 28x28 grey images and w = 32 it has 92,896 parameters and 1,152 features: the 3 x 3 x 128 map is kept, which is
    worth several points to a linear probe, or averaged if `mean` is true. Pooling comes before BatchNorm since it
    leaves that a quarter of the work; for positive scales the two commute.
    """
    layers: list[nn.Module] = []
    for out in (width, 2 * width, 4 * width):
        layers += [PooledConv(channels, out), nn.MaxPool2d(2), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
        channels = out
    if mean:
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), Flatten()), channels
    return nn.Sequential(*layers, Flatten()), channels * (size[0] // 8) * (size[1] // 8)


# name -> function of (channels, (height, width), width, mean) that gives the network and its number of features
ENCODERS: dict[str, Callable[..., tuple[nn.Module, int]]] = {"cnn": cnn}


def build_encoder(
    settings: Settings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> Encoder:
    """A new encoder with random weights for images of `shape` (channels, height, width)."""
    body, feature_dim = ENCODERS[settings.encoder](
        shape[0], (shape[1], shape[2]), settings.width, settings.features == "mean"
    )
    return Encoder(body, feature_dim, mean, std).to(memory_format=torch.channels_last)


def projection_head(kind: str, in_features: int, out_features: int) -> nn.Module:
    """`mlp`: Linear, ReLU, Linear (2002.05709, section 2.1) with `2 * out_features` hidden units; `linear`; `none`."""
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(in_features, out_features)
    hidden = 2 * out_features
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features))
