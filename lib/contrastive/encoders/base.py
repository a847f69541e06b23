"""What an encoder is."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..augment.operations import normalize
from ..settings import ENCODERS, EncoderSettings, UserError


class Encoder(nn.Module):
    """A network from normalised float images, N x C x H x W, to features, float32 N x out_dim.

    It carries the normalisation that it was trained with, so that `prepare` turns uint8 images into its input. A
    subclass registers its name with `ENCODERS.register`, names the class of its parameters `Parameters`, and is made by
    `(settings, shape, mean, std)`, with `shape` the channels, height and width of the images.

    Args:
        body: the network itself.
        out_dim: number of features of an image.
        mean, std: of each channel, of images in [0, 1].
    """

    Parameters: ClassVar[type[EncoderSettings]] = EncoderSettings
    SMALLEST: ClassVar[int] = 8  # pixels on the shorter side of an image

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, out_dim: int, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.body, self.out_dim = body, out_dim
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """The features of normalised images."""
        return self.body(x).float()

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 N x C x H x W -> the normalised float32 input of `forward`, laid out channels last."""
        x = normalize(images.to(self.mean.device).float() / 255, self.mean, self.std)
        return x.contiguous(memory_format=torch.channels_last)

    def first_filters(self) -> Tensor | None:
        """The kernels that see the image itself, out x in x h x w; None where there are none."""
        first = next((layer for layer in self.body.modules() if isinstance(layer, nn.Conv2d)), None)
        return None if first is None else first.weight.detach()


def build_encoder(
    settings: EncoderSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> Encoder:
    """A new encoder with random weights for images of `shape` (channels, height, width)."""
    encoder: Encoder = ENCODERS[settings.name](settings, shape, mean, std)
    return encoder.to(memory_format=torch.channels_last)


def check_view(settings: EncoderSettings, shape: tuple[int, ...], side: int | None, what: str) -> None:
    """Raises: UserError when an encoder for images of that shape cannot take views that are `side` pixels high. what:
    says whose views these are."""
    smallest, (channels, height, width) = ENCODERS[settings.name].SMALLEST, shape
    if side is None or side == height:
        return

    def features(side: int) -> int:
        view = channels, side, round(side * width / height)
        with torch.device("meta"):  # without the memory that the network would take
            return build_encoder(settings, view, (0.0,) * channels, (1.0,) * channels).out_dim

    if side * min(1.0, width / height) < smallest:
        raise UserError(f"{what}={side}: encoder {settings.name} needs at least {smallest} pixels.")
    if features(side) != features(height):
        fit = [s for s in range(max(smallest, height // 2), 2 * height) if features(s) == features(height)]
        raise UserError(
            f"{what}={side}: the images have {height}x{width} pixels, and encoder {settings.name} has to give as many "
            f"features for views. Use {fit[0]} to {fit[-1]}, or average over places (pool=avg), where it can."
        )
