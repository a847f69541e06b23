"""ResNet-18, -34 and -50 (1512.03385), as torchvision has them."""

from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..settings import ENCODERS, EncoderSettings, UserError
from . import zoos
from .base import IMAGENET, Encoder

# Pixels on the shorter side from which a stem is used: so the last map of 32 to 255 pixels has a side of 4 to 8 places
POOLED, LARGE = 64, 113
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as torchvision has them


class ResNetSettings(EncoderSettings):
    """Parameters of `ResNet`."""

    VERSION = 2
    stem: Literal["auto", "small", "pooled", "imagenet"] = Field(
        "auto",
        description="first layer: small is 3x3, pooled 3x3 with pooling, imagenet 7x7 of stride 2 with pooling; "
        "auto by image size",
    )


class ResNet(Encoder):
    """One of torchvision's ResNets with random weights and without its last layer, averaged over places.

    The stem follows the shorter side of the images. Below 64 pixels it is a 3x3 convolution of stride 1 without
    pooling, as in SimCLR's experiments on CIFAR-10 (2002.05709, appendix B.9); up to 112 pixels the same with max
    pooling; for larger ones that of ImageNet, 7x7 of stride 2 with max pooling. As by torchvision's default, residual
    branches do not start at zero.
    """

    Parameters = ResNetSettings
    SMALLEST = 8
    CLASSIFIER = ("fc.",)
    NETWORK: ClassVar[str]  # what torchvision calls it

    def __init__(
        self, settings: ResNetSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        from torchvision import models  # takes seconds to import, so only where it is needed

        channels, stem = shape[0], stem_of(settings, shape)
        body = getattr(models, self.NETWORK)(weights=None)
        if stem != "imagenet":
            body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        elif channels != 3:
            body.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        if stem == "small":
            body.maxpool = nn.Identity()
        out_dim, body.fc = body.fc.in_features, nn.Identity()
        super().__init__(body, out_dim, mean, std)

    @classmethod
    def check(cls, settings: EncoderSettings, shape: tuple[int, ...], view: tuple[int, ...] | None = None) -> None:
        """As `Encoder.check`; also, ImageNet's weights are for colours, and for its stem."""
        super().check(settings, shape, view)
        if settings.initial_weights == IMAGENET and (shape[0] != 3 or stem_of(settings, shape) != "imagenet"):
            raise UserError(
                f"encoder {settings.name} has ImageNet's weights for its large stem and for colours. Set stem=imagenet "
                f"for colour images, or take encoder=torchvision:{settings.name}."
            )

    @classmethod
    def imagenet_file(cls, settings: EncoderSettings) -> Path:
        """What torchvision downloaded before."""
        return zoos.find_torchvision(cls.NETWORK)

    def adopt_network(self, settings: EncoderSettings, state: dict[str, Tensor], path: Path) -> None:
        """As `Encoder.adopt_network`; those of colour images with ImageNet's normalisation, as torchvision has it."""
        super().adopt_network(settings, state, path)
        if len(self.mean) == len(IMAGENET_MEAN):
            self.mean.copy_(torch.tensor(IMAGENET_MEAN))
            self.std.copy_(torch.tensor(IMAGENET_STD))


def stem_of(settings: EncoderSettings, shape: tuple[int, ...]) -> str:
    """The stem for images of that shape."""
    assert isinstance(settings, ResNetSettings)
    side = min(shape[1:])
    automatic = "small" if side < POOLED else "pooled" if side < LARGE else "imagenet"
    return automatic if settings.stem == "auto" else settings.stem


@ENCODERS.register("resnet18")
class ResNet18(ResNet):
    """ResNet-18: 512 features."""

    NETWORK = "resnet18"


@ENCODERS.register("resnet34")
class ResNet34(ResNet):
    """ResNet-34: 512 features."""

    NETWORK = "resnet34"


@ENCODERS.register("resnet50")
class ResNet50(ResNet):
    """ResNet-50: 2,048 features."""

    NETWORK = "resnet50"
