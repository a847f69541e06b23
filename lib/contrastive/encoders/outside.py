"""Encoders of other libraries, to be pretrained: torchvision's, timm's, and EfficientNet-Lite0."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ..settings import ENCODERS, EncoderSettings, Int, UserError
from ..storage.files import DamagedError
from ..storage.tensors import read_tensors
from . import zoos
from .base import RANDOM
from .squares import SquareEncoder, n_features

# Some of these networks average BatchNorm's statistics over hundreds or thousands of steps, and trainings here have
# hundreds: EfficientNet-Lite0 (0.01), 120 steps on digits from random weights, had features in eval mode with a spread
# of 0.01, and of 0.75 with PyTorch's usual 0.1.
LEAST_MOMENTUM = 0.1


class OutsideSettings(EncoderSettings):
    """Parameters of `OutsideEncoder`."""

    input_size: Int | None = Field(
        None,
        ge=8,
        le=1024,
        description="side of the squares to which the network brings views (default: as the images; with weights of "
        "others, what these were trained with, 112 for efficientnet_lite0)",
    )


@ENCODERS.register("efficientnet_lite0")
@ENCODERS.register("torchvision:NAME")
@ENCODERS.register("timm:NAME")
class OutsideEncoder(SquareEncoder):
    """A network of another library without its classifier, all of whose weights are trained."""

    Parameters = OutsideSettings

    def __init__(
        self, settings: OutsideSettings, shape: tuple[int, ...], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        size = _side(settings, shape)
        network = zoos.build(settings.name, None, size)
        for layer in network.body.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.momentum is not None:
                layer.momentum = max(layer.momentum, LEAST_MOMENTUM)
        if len(mean) == 1:
            mean, std = 3 * mean, 3 * std
        super().__init__(network.body, _n_features(network, size, settings.name), mean, std, size)

    @classmethod
    def check(cls, settings: EncoderSettings, shape: tuple[int, ...], view: tuple[int, ...] | None = None) -> None:
        """As `Encoder.check`; also, whether the network is known, installed, and takes images of that size."""
        super().check(settings, shape, view)
        assert isinstance(settings, OutsideSettings)
        if shape[0] not in (1, 3):
            raise UserError(f"encoder {settings.name} takes grey and colour images; these have {shape[0]} channels.")
        if settings.input_size or settings.initial_weights == RANDOM:  # otherwise `fitted` finds a size
            _check_size(settings.name, _side(settings, shape))

    @classmethod
    def imagenet_file(cls, settings: EncoderSettings) -> Path:
        """What its package brings, or its library downloaded before."""
        return zoos.find(settings.name)

    @classmethod
    def fitted(cls, settings: EncoderSettings, path: Path) -> dict[str, Any]:
        """The size of images that the weights were trained with."""
        assert isinstance(settings, OutsideSettings)
        if settings.input_size:
            return {}
        try:
            saved, _ = read_tensors(path)
        except (DamagedError, FileNotFoundError):  # not of a run
            return {"input_size": zoos.usual_size(settings.name, path)}
        return {"input_size": saved["settings"].get("input_size") or max(saved["shape"][1:])}

    def adopt_network(self, settings: EncoderSettings, state: dict[str, Tensor], path: Path) -> None:
        """By the library's own way to read weights, and with its normalisation."""
        network = zoos.build(settings.name, path, self.size)
        self.body.load_state_dict(network.body.state_dict())
        self.mean.copy_(torch.tensor(network.mean))
        self.std.copy_(torch.tensor(network.std))


def _side(settings: OutsideSettings, shape: tuple[int, ...]) -> int:
    return settings.input_size or max(shape[1:])


def _n_features(network: zoos.Network, size: int, name: str) -> int:
    return n_features(network.body, size, name, f"Set input_size={network.size}, to which images are enlarged.")


@lru_cache(maxsize=64)
def _check_size(name: str, size: int) -> None:
    """Raises: UserError when a network does not take images of that size."""
    with torch.device("meta"):  # without the memory and the time that its weights would take
        _n_features(zoos.build(name, None, size), size, name)
