"""General features: those of a network that others trained, on ImageNet or the like, and that is kept as it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import UserError
from ..storage.tensors import hash_tensors
from . import zoos
from .base import Encoder
from .weight_files import check_file

USUAL = zoos.LITE0
LIBRARIES = ("torchvision", "timm")


class GeneralEncoder(Encoder):
    """A network that others trained, without its classifier: images of any size -> features, float32 N x out_dim.

    `forward` enlarges normalised images (or shrinks them, smoothed first) to squares of `size` pixels by bicubic
    interpolation, since such networks see little in small ones. Grey images get three equal channels. It is made by
    `general_encoder`, not by the settings of a run.

    Args:
        name: as `general_encoder` takes it.
        network: what it is made of.
        out_dim: number of features of an image.
        size: pixels, height and width of what the network itself gets.
        precision: float32, or bfloat16 where the hardware multiplies it; in which features are computed.
    """

    def __init__(self, name: str, network: zoos.Network, out_dim: int, size: int, precision: str = "float32") -> None:
        super().__init__(network.body, out_dim, network.mean, network.std)
        self.name, self.size, self.precision = name, size, precision

    def train(self, mode: bool = True) -> GeneralEncoder:
        """Stay in eval mode, also where all weights are trained: of batches of a few labels' images BatchNorm's own
        statistics are poor. With them, fine-tuning on 100 labels got 43 % of validation photographs right rather than
        58 %."""
        super().train(False)
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the features of an image, as JSON can hold it."""
        weights = hash_tensors(self.state_dict())
        return {"network": self.name, "weights": weights, "size": self.size, "precision": self.precision}

    def forward(self, x: Tensor) -> Tensor:
        """The features of normalised images, N x 3 x H x W."""
        return self.body(resized(x, self.size)).float()

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 N x 1|3 x H x W -> the normalised float32 input of `forward`, N x 3 x H x W. Raises: UserError."""
        if isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] == 1:
            images = images.expand(-1, len(self.mean), -1, -1)
        return super().prepare(images)


def resized(x: Tensor, size: int) -> Tensor:
    """Images, N x C x H x W, as squares of `size` pixels, channels last; smoothed first where that shrinks them."""
    if x.shape[-2:] != (size, size):
        shrinks = max(x.shape[-2:]) > size
        x = F.interpolate(x, size=(size, size), mode="bicubic", antialias=shrinks, align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Source:
    """Where a network comes from. library: empty for the usual one. name: within that library. file: of its weights."""

    library: str
    name: str
    file: Path


def locate(name: str, weights: str = "") -> Source:
    """Check a network's name, the packages that it needs, and that its weights are on this disk.

    Args:
        name: `efficientnet_lite0`, `torchvision:NAME` or `timm:NAME`.
        weights: a file .pth, .pt or .safetensors. By default what the network's package brings, or what its library
            downloaded before.

    Raises:
        UserError: one line that says what to do.
    """
    library, colon, inner = name.partition(":")
    given = Path(os.path.expanduser(weights)) if weights else None
    if given is not None:
        check_file(given)
    if name == USUAL:
        zoos.need(zoos.LITE0_CODE, USUAL, "imagenet")
        return Source("", name, given or zoos.find_lite0())
    if not colon or library not in LIBRARIES:
        options = [USUAL, *(f"torchvision:{known}" for known in zoos.torchvision_names())]
        raise zoos.unknown(name, options, f"Choose {USUAL}, torchvision:NAME or timm:NAME.")
    return Source(library, inner, (zoos.find_torchvision if library == "torchvision" else zoos.find_timm)(inner, given))


def why_no_general(name: str = USUAL, weights: str = "") -> str:
    """Why a network cannot be used here, and how to get it, in one line; empty if it can. Reads no weights."""
    try:
        locate(name, weights)
    except UserError as error:
        return str(error)
    return ""


def general_encoder(
    name: str = USUAL, weights: str = "", size: int | None = None, precision: str = "float32"
) -> GeneralEncoder:
    """A network that others trained, frozen and in eval mode, on the CPU. Nothing is downloaded.

    Args:
        name, weights: as for `locate`.
        size: pixels, to which images are enlarged; by default 112 for `efficientnet_lite0`, for others what they were
            trained with.
        precision: of computing features, float32 or bfloat16.

    Raises:
        UserError: when the name is unknown, a package or the weights are missing, or these do not fit.
    """
    source = locate(name, weights)
    if source.library == "torchvision":
        network = zoos.build_torchvision(source.name, source.file, size)
    elif source.library == "timm":
        network = zoos.build_timm(source.name, source.file, size)
    else:
        network = zoos.build_lite0(source.file, size)
    size = size or network.size
    body = network.body.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return GeneralEncoder(name, network, _n_features(body, size, name), size, precision).eval()


@torch.no_grad()
def _n_features(body: nn.Module, size: int, name: str) -> int:
    """How many features an image has, by trying one. Raises: UserError when the network does not take that size."""
    try:
        found = body(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{name} does not take images of {size} pixels ({why}). Leave the size out.") from None
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise UserError(f"{name} gives no single row of features for an image. Choose another network.")
    if not found.isfinite().all():
        raise UserError(f"the weights of {name} give features that are not finite. Get the file anew.")
    return found.shape[1]
