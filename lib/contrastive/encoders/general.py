"""General features: those of a network that others trained, on ImageNet or the like, and that is kept as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..settings import UserError
from ..storage.tensors import hash_tensors
from . import zoos
from .squares import SquareEncoder, n_features
from .weight_files import check_file

USUAL = zoos.LITE0


class GeneralEncoder(SquareEncoder):
    """A network that others trained, without its classifier: images of any size -> features, float32 N x out_dim.

    Images are enlarged, since such networks see little in small ones. It is made by `general_encoder`, not by the
    settings of a run.

    Args:
        name: as `general_encoder` takes it.
        network: what it is made of.
        out_dim: number of features of an image.
        size: pixels, height and width of what the network itself gets.
        precision: float32, or bfloat16 where the hardware multiplies it; in which features are computed.
    """

    def __init__(self, name: str, network: zoos.Network, out_dim: int, size: int, precision: str = "float32") -> None:
        super().__init__(network.body, out_dim, network.mean, network.std, size)
        self.name, self.precision = name, precision

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


def locate(name: str, weights: str = "") -> Path:
    """The file of a network's weights, after a check of its name, of the packages that it needs, and of the file.

    Args:
        name: `efficientnet_lite0`, `torchvision:NAME` or `timm:NAME`.
        weights: a file .pth, .pt or .safetensors. By default what the network's package brings, or what its library
            downloaded before.

    Raises:
        UserError: one line that says what to do.
    """
    given = Path(os.path.expanduser(weights)) if weights else None
    if given is not None:
        check_file(given)
    return zoos.find(name, given)


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
    network = zoos.build(name, locate(name, weights), size)
    size = size or network.size
    body = network.body.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    out_dim = n_features(body, size, name, "Leave the size out.")
    return GeneralEncoder(name, network, out_dim, size, precision).eval()
