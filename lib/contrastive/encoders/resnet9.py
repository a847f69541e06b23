"""ResNet-9, a network of few and wide layers: for colour images on a processor."""

from pydantic import Field
from torch import Tensor, nn

from ..processor import PooledConv
from ..settings import ENCODERS, EncoderSettings, Int
from .base import Encoder


class ResNet9Settings(EncoderSettings):
    """Parameters of `ResNet9`."""

    base_channels: Int = Field(64, ge=1, le=1024, description="channels of the first layer; the next have 2x and 4x")


class Residual(nn.Module):
    """x + f(x), with f two 3x3 convolutions, each with BatchNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(channels, channels), *_convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """N x channels x H x W -> the same."""
        return x + self.body(x)


def _convolution(channels: int, out: int, pooled: bool = False) -> list[nn.Module]:
    if pooled:
        first: list[nn.Module] = [PooledConv(channels, out), nn.MaxPool2d(2)]
    else:
        first = [nn.Conv2d(channels, out, 3, padding=1, bias=False)]
    return [*first, nn.BatchNorm2d(out), nn.ReLU(inplace=True)]


@ENCODERS.register("resnet9")
class ResNet9(Encoder):
    """Seven 3x3 convolutions, two pairs of them residual, averaged over places.

    A smaller relative of the ResNet-9 of speed competitions on CIFAR-10 (D. Page, "How to train your ResNet", 2018,
    part 4): here the first layer is pooled, too, and its widths are c, 2c and 4c. With c = 64 it has 1.8 million
    parameters and 256 features; of a 32x32 image it takes a seventh of the operations of ResNet-18.
    """

    Parameters = ResNet9Settings
    SMALLEST = 8

    def __init__(
        self, settings: ResNet9Settings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        c = settings.base_channels
        layers = [
            *_convolution(shape[0], c, pooled=True),
            *_convolution(c, 2 * c, pooled=True),
            Residual(2 * c),
            *_convolution(2 * c, 4 * c, pooled=True),
            Residual(4 * c),
        ]
        super().__init__(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * c, mean, std)
