"""What networks of other libraries have in common as encoders: they see squares of one size, in three channels."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import UserError
from .base import Encoder


class SquareEncoder(Encoder):
    """An encoder that brings normalised images, or views of any size, to squares of `size` pixels.

    By bicubic interpolation, smoothed first where that shrinks them. Grey images get three equal channels.
    """

    RESIZES: ClassVar[bool] = True

    def __init__(
        self, body: nn.Module, out_dim: int, mean: tuple[float, ...], std: tuple[float, ...], size: int
    ) -> None:
        super().__init__(body, out_dim, mean, std)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """The features of normalised images, N x 1|3 x H x W."""
        return self.body(resized(_in_colour(x), self.size)).float()

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 N x 1|3 x H x W -> the normalised float32 input of `forward`, N x 3 x H x W. Raises: UserError."""
        return super().prepare(_in_colour(images))


def resized(x: Tensor, size: int) -> Tensor:
    """Images, N x C x H x W, as squares of `size` pixels, channels last; smoothed first where that shrinks them."""
    if x.shape[-2:] != (size, size):
        shrinks = max(x.shape[-2:]) > size
        x = F.interpolate(x, size=(size, size), mode="bicubic", antialias=shrinks, align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


def _in_colour(images: Tensor) -> Tensor:
    """Grey images, N x 1 x H x W, with three equal channels; others, or what is no image, as they are."""
    grey = isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == 1
    return images.expand(-1, 3, -1, -1) if grey else images


@torch.no_grad()
def n_features(body: nn.Module, size: int, name: str, advice: str) -> int:
    """How many features an image has, by trying one in eval mode.

    Args:
        body: the network, without its classifier.
        size: pixels, height and width of the image.
        name: of the network, for people.
        advice: what they can do if it does not take that size.

    Raises:
        UserError: when it does not, or gives something else than features.
    """
    first = next((layer for layer in body.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is not None and first.kernel_size == first.stride and size % (patch := int(first.stride[0])):
        raise UserError(f"{name} cuts images into patches of {patch} pixels, and {size} is no multiple. {advice}")
    training = body.training
    try:
        found = body.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{name} does not take images of {size} pixels ({why}). {advice}") from None
    body.train(training)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise UserError(f"{name} gives no single row of features for an image. Choose another network.")
    if not found.is_meta and not found.isfinite().all():
        raise UserError(f"the weights of {name} give features that are not finite. Get the file anew.")
    return found.shape[1]
