"""Views by the recipe's five augmentations in other libraries, and augmenting a batch by itself.

The ranges are those of policy `simclr`; the blur's kernel is a tenth of the side and odd, as here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from contrastive.augment import View, ViewMaker
from contrastive.processor import keep_freed_memory

Numbers = tuple[float, ...]
Call = Callable[[], object]
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # of images that are only augmented


def blur_kernel(side: int) -> int:
    """Pixels along the side of the blur's kernel."""
    return max(3, round(0.1 * side) // 2 * 2 + 1)


def torchvision_view(mean: Numbers, std: Numbers, side: int) -> Callable[[Tensor], Tensor]:
    """The recipe in torchvision's transforms v2, for one image: uint8 C x H x W."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.08, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(blur_kernel(side), (0.1, 2.0))], p=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )


def kornia_views(mean: Numbers, std: Numbers, side: int) -> Callable[[Tensor], Tensor]:
    """The recipe in kornia, for a batch: float32 N x C x H x W from 0 to 1. Its colour operations refuse one channel;
    there brightness and contrast take their place. (kornia adds to the brightness where torchvision multiplies.)"""
    from kornia import augmentation as k

    grey, kernel = len(mean) == 1, blur_kernel(side)
    jitter = [
        *([k.RandomBrightness((0.6, 1.4), p=0.8), k.RandomContrast((0.6, 1.4), p=0.8)] if grey else []),
        *([] if grey else [k.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=0.8), k.RandomGrayscale(p=0.2)]),
    ]
    return k.AugmentationSequential(
        k.RandomResizedCrop((side, side), scale=(0.08, 1.0)),
        k.RandomHorizontalFlip(p=0.5),
        *jitter,
        k.RandomGaussianBlur((kernel, kernel), (0.1, 2.0), p=0.5),
        k.Normalize(torch.tensor(mean), torch.tensor(std)),
        data_keys=["input"],
    )


# --- Augmentations of one batch -----------------------------------------------------------------------------------
# Each is made for a batch, uint8 N x 3 x side x side, and gives two float32 views of each image.


def our_batch(images: Tensor, draws: Generator | None = None) -> Call:
    """This project's, on the images' device, set up as a training does. draws: where the views come from."""
    keep_freed_memory()
    mean, std = (torch.tensor(numbers, device=images.device) for numbers in (MEAN, STD))
    make_views = ViewMaker([View("simclr", None, 2)], tuple(images.shape[1:]), mean, std)
    own = draws or Generator(images.device).manual_seed(0)
    return lambda: make_views(images, own)


def torchvision_batch(images: Tensor) -> Call:
    """torchvision's, an image after the other, put together as a DataLoader does."""
    view = torchvision_view(MEAN, STD, images.shape[-1])
    return lambda: torch.stack([view(image) for _ in range(2) for image in images])


def kornia_batch(images: Tensor) -> Call:
    """kornia's, of the whole batch."""
    augment = kornia_views(MEAN, STD, images.shape[-1])
    return lambda: augment(images.repeat(2, 1, 1, 1).float() / 255)


AUGMENTATIONS: dict[str, Callable[[Tensor], Call]] = {
    "ours": our_batch,
    "torchvision": torchvision_batch,
    "kornia": kornia_batch,
}
