"""General features of images, computed once for each image and network, and kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from ..data import Images
from ..encoders.general import USUAL, GeneralEncoder, general_encoder, why_no_general
from ..encoders.transform import evaluating
from ..processor import keep_freed_memory
from ..settings import EvaluationSettings, UserError
from ..storage.files import locked
from ..training.devices import choose_precision
from .feature_store import FeatureStore, image_keys

VERSION = 1  # raised when the same network and image come to have other features
PART = 1000  # images that are written at once: what is lost when a process is killed
PIXELS, PIXELS_GPU = 2**18, 2**23  # in a batch, of what the network gets: on a processor, as stays in its cache


def general_network(
    settings: EvaluationSettings, images: Images, device: str = "cpu", precision: str = "auto"
) -> GeneralEncoder | None:
    """The network that settings name, on a device; None where they want none, or leave it open and there is none.

    Args:
        settings: `general`, a network's name, or `auto`: the usual one where it can be used; or `none`. `weights`, a
            file. `general_size`, pixels.
        images: that it is to look at.
        device, precision: on which, and in which, it computes, as a run's settings have them.

    Raises:
        UserError: when the network that is named cannot be used.
    """
    weights, left_open = settings.weights or "", settings.general == "auto"
    name, channels = USUAL if left_open else settings.general, images.format.shape[0]
    if name == "none":
        return None
    if channels not in (1, 3):
        if left_open:
            return None
        raise UserError(f"parameter general={name}: it takes grey and colour images; these have {channels} channels.")
    if left_open and not weights and why_no_general(name):
        return None
    return general_encoder(name, weights, settings.general_size, choose_precision(precision, device)).to(device)


def general_features(network: GeneralEncoder, images: Tensor, progress: bool = True) -> Tensor:
    """Features of uint8 images by a network that others trained; only of those that have none yet are they computed.

    They are kept by image below `$CONTRASTIVE_RUNS/cache`, so that a killed process loses those of 1,000 images at
    most, and another run with some of the same images has these at once. One process computes; others wait for it.

    Args:
        network: by `general_encoder`, on the device that is to compute.
        images: uint8 N x 1|3 x H x W, of any size; equal ones are computed once.
        progress: whether to show a bar, where it takes a while.

    Returns:
        float32 N x D, on the CPU.

    Raises:
        UserError: for images of another type or number of channels.
        RunError: when features cannot be written.
    """
    network.prepare(images[:1])  # which checks them
    store = FeatureStore({"version": VERSION, **network.identity}, network.out_dim)
    keys = image_keys(images)
    found = store.read(keys)
    if len(found) < len(set(keys)):
        with locked(store.folder, "computing features"):
            found = store.read(keys, repair=True)  # with those of the process that was waited for
            place = {key: i for i, key in enumerate(keys) if key not in found}
            found |= _compute(network, images, place, store, progress)
    return torch.stack([found[key] for key in keys]) if keys else torch.empty(0, network.out_dim)


def _compute(
    network: GeneralEncoder, images: Tensor, place: dict[bytes, int], store: FeatureStore, progress: bool
) -> dict[bytes, Tensor]:
    """Features of the images at these places, kept part by part."""
    keep_freed_memory()
    found, missing = dict[bytes, Tensor](), list(place)
    bar = tqdm(
        total=len(missing), desc=f"features by {network.name}", unit="image", file=sys.stdout,
        disable=not progress or len(missing) <= PART,
        mininterval=1, dynamic_ncols=sys.stdout.isatty(),
    )  # fmt: skip
    with bar, evaluating(network):
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            features = compute_features(network, images, [place[key] for key in part], bar)
            store.add(part, features)
            found |= dict(zip(part, features, strict=True))
    return found


@torch.inference_mode()
def compute_features(network: GeneralEncoder, images: Tensor, places: Sequence[int], bar: tqdm | None = None) -> Tensor:
    """Features, float32 N x D on the CPU, of the images at these places, in batches. The network is in eval mode."""
    rows = []
    device = network.mean.device.type
    pixels = PIXELS if device == "cpu" else PIXELS_GPU
    for batch in torch.tensor(places).split(max(pixels // network.size**2, 1)):
        with torch.autocast(device, torch.bfloat16, network.precision == "bfloat16"):
            rows.append(network(network.prepare(images[batch])).cpu())
        if bar is not None:
            bar.update(len(batch))
    return torch.cat(rows)
