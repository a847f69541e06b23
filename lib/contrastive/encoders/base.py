"""What an encoder is."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..augment.operations import normalize
from ..data.preparation import Preparation
from ..settings import ENCODERS, EncoderSettings, UserError
from .transform import array_batches, features_of, file_entries, file_names, picture_batches
from .weight_files import fit_weights, read_weights

RANDOM, IMAGENET = "random", "imagenet"  # values of initial_weights that are no files
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
    CLASSIFIER: ClassVar[tuple[str, ...]] = ()  # how names of layers start that files of weights have beside those here
    RESIZES: ClassVar[bool] = False  # whether views of any size have as many features, since it brings them to one size

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

    @classmethod
    def check(cls, settings: EncoderSettings, shape: tuple[int, ...], view: tuple[int, ...] | None = None) -> None:
        """Look at whether such an encoder can take images, or views of them.

        Args:
            settings: its own.
            shape: of the images that it is made for: channels, height, width.
            view: of views of them, if these are what is asked about.

        Raises:
            UserError: when it cannot. Of views, the text goes on after "view_size=8: ".
        """
        side, least = min((view or shape)[1:]), cls.SMALLEST
        if side >= least:
            return
        if view:
            raise UserError(f"encoder {settings.name} needs at least {least} pixels.")
        raise UserError(
            f"the images have {shape[1]}x{shape[2]} pixels: encoder {settings.name} needs at least {least}x{least}. "
            f"Larger ones are made of them by image_size={least}."
        )

    @classmethod
    def imagenet_file(cls, settings: EncoderSettings) -> Path:
        """The file of weights that were trained on ImageNet. Raises: UserError when there are none."""
        raise UserError(
            f"parameter initial_weights={IMAGENET}: there are none for encoder {settings.name}. Choose resnet18, "
            "resnet34, resnet50, efficientnet_lite0, torchvision:NAME or timm:NAME, or give a file."
        )

    @classmethod
    def fitted(cls, settings: EncoderSettings, path: Path) -> dict[str, Any]:
        """Values of its own parameters that are None, by name, where the first weights are those of a file."""
        return {}

    def adopt(self, settings: EncoderSettings, path: Path) -> None:
        """Take over the weights of a file: of a run's encoder, with its normalisation, or of the same network by
        another program. Raises: UserError when they do not fit, which names the first that does not."""
        state = read_weights(path)
        if {"mean", "std"} <= state.keys():
            fit_weights(self, state, (), settings.name, path)
        else:
            self.adopt_network(settings, state, path)

    def adopt_network(self, settings: EncoderSettings, state: dict[str, Tensor], path: Path) -> None:
        """Take over the tensors of a network by another program, and, where it is known, the normalisation that they
        were trained with. Raises: UserError."""
        fit_weights(self.body, state, self.CLASSIFIER, settings.name, path)

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
    cls, (channels, height, width) = ENCODERS[settings.name], shape
    if side is None or side == height:
        return

    def view(side: int) -> tuple[int, ...]:
        return channels, side, round(side * width / height)

    def features(side: int) -> int:
        with torch.device("meta"):  # without the memory that the network would take
            return build_encoder(settings, view(side), (0.0,) * channels, (1.0,) * channels).out_dim

    try:
        cls.check(settings, shape, view(side))
    except UserError as error:
        raise UserError(f"{what}={side}: {error}") from None
    if not cls.RESIZES and features(side) != features(height):
        fit = [s for s in range(max(cls.SMALLEST, height // 2), 2 * height) if features(s) == features(height)]
        raise UserError(
            f"{what}={side}: the images have {height}x{width} pixels, and encoder {settings.name} has to give as many "
            f"features for views. Use {fit[0]} to {fit[-1]}, or average over places (pool=avg), where it can."
        )
