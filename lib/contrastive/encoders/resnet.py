"""ResNet-18 (1512.03385), as torchvision has it."""

from typing import Literal

from pydantic import Field
from torch import nn

from ..settings import ENCODERS, EncoderSettings
from .base import Encoder

SMALL = 64  # pixels, below which a stem that shrinks the image four times would lose much of it


class ResNetSettings(EncoderSettings):
    """Parameters of `ResNet18`."""

    stem: Literal["auto", "small", "imagenet"] = Field(
        "auto", description="first layer: small is 3x3 without pooling, imagenet 7x7 with it; auto by image size"
    )


@ENCODERS.register("resnet18")
class ResNet18(Encoder):
    """torchvision's ResNet-18 with random weights and without its last layer: 512 features, averaged over places.

    Images below 64 pixels get a 3x3 stem of stride 1 without pooling, as in SimCLR's experiments on CIFAR-10
    (2002.05709, appendix B.9); larger ones the 7x7 stem of ImageNet.
    """

    Parameters = ResNetSettings
    SMALLEST = 8

    def __init__(
        self, settings: ResNetSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        from torchvision.models import resnet18  # takes seconds to import, so only where it is needed

        body = resnet18(weights=None)
        if settings.stem == "small" or (settings.stem == "auto" and min(shape[1:]) < SMALL):
            body.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
            body.maxpool = nn.Identity()
        elif shape[0] != 3:
            body.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
        body.fc = nn.Identity()
        super().__init__(body, 512, mean, std)
