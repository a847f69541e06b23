"""What an encoder is."""

from collections.abc import Sequence
from os import PathLike
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..augment.operations import normalize
from ..data.preparation import Preparation
from ..settings import ENCODERS, EncoderSettings, UserError
from .transform import array_batches, features_of, file_entries, file_names, picture_batches

Name = str | PathLike[str]  # of a file


class Encoder(nn.Module):
    """A network from normalised float images, N x C x H x W, to features, float32 N x out_dim.

    It carries the normalisation that it was trained with, so that `prepare` turns uint8 images into its input, and
    what was done to pictures before that, so that `transform` gives the features of files. A subclass registers its
    name with `ENCODERS.register`, names the class of its parameters `Parameters`, and is made by
    `(settings, shape, mean, std)`, with `shape` the channels, height and width of the images.

    Args:
        body: the network itself.
        out_dim: number of features of an image.
        mean, std: of each channel, of images in [0, 1].

    Attributes:
        preparation: what makes a picture an image of the size that it was made for; `build_encoder` sets it.
        run_identity: what decided its weights, of the run that trained it; empty if none did.
    """

    Parameters: ClassVar[type[EncoderSettings]] = EncoderSettings
    SMALLEST: ClassVar[int] = 8  # pixels on the shorter side of an image

    mean: Tensor
    std: Tensor
    preparation: Preparation | None = None
    run_identity: str = ""

    def __init__(self, body: nn.Module, out_dim: int, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.body, self.out_dim = body, out_dim
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """The features of normalised images."""
        return self.body(x).float()

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 N x C x H x W, of any size that the network takes -> the normalised float32 input of `forward`, laid
        out channels last. Raises: UserError for other types and numbers of channels."""
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
            seen = f"{images.dtype}, {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise UserError(f"prepare takes a tensor uint8 N x C x H x W with values from 0 to 255; this is {seen}.")
        if images.shape[1] != len(self.mean):
            raise UserError(f"these images have {images.shape[1]} channels: the encoder takes {len(self.mean)}.")
        x = normalize(images.to(self.mean.device).float() / 255, self.mean, self.std)
        return x.contiguous(memory_format=torch.channels_last)

    def transform(self, images: np.ndarray | Tensor | Name | Sequence[Name]) -> np.ndarray:
        """The features of one's own images, in eval mode and in batches.

        Args:
            images: uint8 of the encoder's size, N x C x H x W, N x H x W x C or, for grey ones, N x H x W; or one file
                or several, by name, of pictures of any size, which are prepared as those it was trained on were.

        Returns:
            float32 N x out_dim.

        Raises:
            UserError: when there are no images, or they are of another type, size or number of channels; when files
                cannot be used, naming them.
        """
        if self.preparation is None:
            raise UserError("this encoder does not know its images' size: use one by load_encoder or build_encoder.")
        if (names := file_names(images)) is None:
            return features_of(self, array_batches(images, self.preparation))  # type: ignore[arg-type]
        return features_of(self, picture_batches(file_entries(names, self.preparation), self.preparation))

    def first_filters(self) -> Tensor | None:
        """The kernels that see the image itself, out x in x h x w; None where there are none."""
        first = next((layer for layer in self.body.modules() if isinstance(layer, nn.Conv2d)), None)
        return None if first is None else first.weight.detach()


def build_encoder(
    settings: EncoderSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
) -> Encoder:
    """A new encoder with random weights for images of `shape` (channels, height, width)."""
    encoder: Encoder = ENCODERS[settings.name](settings, shape, mean, std)
    channels, height, width = shape
    encoder.preparation = Preparation(height, width, channels)
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
