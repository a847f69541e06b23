"""The simple CNN."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from ..processor import PooledConv
from ..settings import ENCODERS, EncoderSettings, Int
from .base import Encoder


class CNNSettings(EncoderSettings):
    """Parameters of `CNN`."""

    base_channels: Int = Field(32, ge=1, le=1024, description="channels of the first layer; the next have 2x and 4x")
    pool: Literal["none", "avg"] = Field("none", description="the last map, whole or averaged over places")


class Flatten(nn.Module):
    """N x C x H x W -> N x H*W*C: in the order in which channels-last maps lie in memory, so nothing is copied."""

    def forward(self, x: Tensor) -> Tensor:
        """The flat maps."""
        return x.permute(0, 2, 3, 1).flatten(1)


@ENCODERS.register("cnn")
class CNN(Encoder):
    """Three times 3x3 convolution, 2x2 max-pooling, BatchNorm, ReLU, with c, 2c and 4c channels.

    For 28x28 grey images and c = 32 it has 92,896 parameters and 1,152 features: the 3 x 3 x 128 map is kept, in the
    order height, width, channel, which is worth several points to a linear probe; or averaged. Pooling comes before
    BatchNorm since it leaves that a quarter of the work; for positive scales the two commute.
    """

    Parameters = CNNSettings
    SMALLEST = 16

    def __init__(
        self, settings: CNNSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        channels, height, width = shape
        layers: list[nn.Module] = []
        for out in (settings.base_channels, 2 * settings.base_channels, 4 * settings.base_channels):
            layers += [PooledConv(channels, out), nn.MaxPool2d(2), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        pooled = settings.pool == "avg"
        layers += [nn.AdaptiveAvgPool2d(1), Flatten()] if pooled else [Flatten()]
        super().__init__(
            nn.Sequential(*layers), channels if pooled else channels * (height // 8) * (width // 8), mean, std
        )
