"""Images of one's own -> batches that an encoder takes: arrays are checked, files are read and prepared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..data.decode import decode
from ..data.picture import Picture
from ..data.pictures import LARGEST_SIDE
from ..data.preparation import Preparation
from ..settings import UserError

if TYPE_CHECKING:
    from .base import Encoder

NAMED = 10  # of the files that cannot be used, how many an error names
MOST, PIXELS = 512, 2**22  # images and pixels in a batch

Entry = tuple[str, Callable[[], Picture]]  # a picture's name, and what reads it or raises ValueError or OSError


def batch_size(preparation: Preparation) -> int:
    """How many images are computed at once: fewer of large ones, since a network's maps take many times their size."""
    return max(min(PIXELS // (preparation.height * preparation.width), MOST), 1)


@torch.no_grad()
def features_of(encoder: Encoder, batches: Iterable[Tensor]) -> np.ndarray:
    """Features, float32 N x out_dim, of batches of uint8 images N x C x H x W: at least one."""
    with evaluating(encoder):
        return np.concatenate([encoder(encoder.prepare(batch)).cpu().numpy() for batch in batches])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Have a module in eval mode, and each of its parts as it was afterwards."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def file_names(images: Any) -> list[str] | None:
    """The names, where images are given as one file or as a sequence of them; None where they are an array.

    Raises: UserError when they are neither.
    """
    if isinstance(images, str | os.PathLike):
        return [os.fspath(images)]
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype.kind not in "UO"):
        return None
    listed = list(images) if isinstance(images, Iterable) else [images]
    if not all(isinstance(name, str | os.PathLike) for name in listed):
        raise UserError(
            f"images have to be an array, a tensor or names of files; this is {type(images).__name__} with something "
            "else. Put images of one size into an array, as by numpy.stack."
        )
    return [os.fspath(name) for name in listed]


# --- Arrays -------------------------------------------------------------------------------------------------------


def array_batches(images: np.ndarray | Tensor, preparation: Preparation) -> Iterator[Tensor]:
    """An array of uint8 images as batches N x C x H x W. Raises: UserError when it is not as the encoder needs it."""
    check_pixels(images, preparation)
    channels, last = preparation.channels, 3
    if images.ndim == 3:
        images = images[:, None]
    elif tuple(images.shape[1:]) != (channels, preparation.height, preparation.width):
        images = images.movedim(last, 1) if isinstance(images, Tensor) else np.moveaxis(images, last, 1)
    size = batch_size(preparation)
    for start in range(0, len(images), size):
        part = images[start : start + size]
        # NumPy's arrays may be read-only, mapped from a file or run backwards, which tensors may not.
        yield part if isinstance(part, Tensor) else torch.from_numpy(np.require(part, requirements=["C", "W"]))


def check_pixels(images: np.ndarray | Tensor, preparation: Preparation) -> None:
    """Raises: UserError when these are not uint8 images of the preparation's shape, in one of the usual layouts."""
    p, shape, dtype = preparation, tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if dtype != "uint8":
        hint = ", as by (255 * images).round() where they are from 0 to 1" if "float" in dtype else ""
        raise UserError(
            f"these images are {dtype}: uint8 from 0 to 255 is needed{hint}; the encoder normalises them itself."
        )
    if 0 in shape:
        raise UserError(f"there are no images: the array is {_written(shape)}.")
    first, last, flat = (p.channels, p.height, p.width), (p.height, p.width, p.channels), (p.height, p.width)
    layouts = [first, last, flat] if p.channels == 1 else [first, last]
    if shape[1:] in layouts:
        return
    taken = " or ".join(f"N x {_written(layout)}" for layout in layouts)
    raise UserError(f"the encoder takes uint8 {taken}; these images are {_written(shape)}: {_misfit(shape, p)}.")


def _misfit(shape: tuple[int, ...], p: Preparation) -> str:
    """In words, what is wrong with an array's shape, and what to do."""
    single = [(p.channels, p.height, p.width), (p.height, p.width, p.channels), (p.height, p.width)]
    if shape in single:
        return "a single image. Put an axis before it, as by images[None]"
    if len(shape) == 3 and p.channels != 1:
        return f"one channel rather than {p.channels}"
    if len(shape) not in (3, 4):
        return f"{len(shape)} axes rather than {'3 or 4' if p.channels == 1 else '4'}"
    height, width, channels = (*shape[1:], 1) if len(shape) == 3 else (shape[2], shape[3], shape[1])
    if len(shape) == 4 and shape[3] <= 4 < shape[1]:
        height, width, channels = shape[1:]
    if channels != p.channels:
        return f"{channels} channels rather than {p.channels}"
    return f"{height}x{width} pixels rather than {p.height}x{p.width}. Images given as names of files are fitted"


def _written(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


# --- Files --------------------------------------------------------------------------------------------------------


def at_least(preparation: Preparation) -> int:
    """Of how many pixels large JPEGs have to keep twice as many where they are decoded at a part of their size: as for
    a training, since in full they have slightly other pixels."""
    return max(LARGEST_SIDE, min(preparation.height, preparation.width))


def content_of(name: str) -> bytes:
    """A file's content. Raises: OSError; ValueError for what is no regular file, which might never end."""
    path = Path(name)
    if path.exists() and not path.is_file():
        raise ValueError("is a folder" if path.is_dir() else "is no regular file")
    return path.read_bytes()


def file_entries(names: Sequence[str], preparation: Preparation) -> Iterator[Entry]:
    """Files as pictures that are yet to be read."""

    def reader(name: str) -> Callable[[], Picture]:
        return lambda: decode(content_of(name), preparation.background, at_least(preparation))

    for name in names:
        yield name, reader(name)


def picture_batches(
    entries: Iterable[Entry], preparation: Preparation, left_out: dict[int, str] | None = None
) -> Iterator[Tensor]:
    """Pictures, read and prepared, as batches uint8 N x C x H x W.

    Args:
        entries: the pictures.
        preparation: of the encoder.
        left_out: takes the places of those that cannot be used, each with its name and the reason. Without it they are
            an error: after the first, no more batches come, but the others are read as well, so that all are named.

    Raises:
        UserError: at the end, when some cannot be used and that is an error, or there are none that can.
    """
    size, batch, count, failed = batch_size(preparation), list[np.ndarray](), 0, dict[int, str]()
    for place, (name, read) in enumerate(entries):
        count += 1
        try:
            batch.append(preparation(read()))
        except OSError as error:
            failed[place] = f"{name} ({error.strerror or type(error).__name__})"
        except ValueError as error:
            failed[place] = f"{name} ({error})"
        if failed and left_out is None:
            batch.clear()
        if len(batch) == size:
            yield torch.from_numpy(np.stack(batch))
            batch.clear()
    if not count:
        raise UserError("there are no images: the list of files is empty.")
    if failed and (left_out is None or len(failed) == count):
        raise UserError(f"{len(failed):,} of {count:,} images cannot be used: {some_of(failed)}.")
    if left_out is not None:
        left_out |= failed
    if batch:
        yield torch.from_numpy(np.stack(batch))


def some_of(failed: Mapping[int, str]) -> str:
    """The first few of those that cannot be used, for people."""
    more = f", and {len(failed) - NAMED:,} more" if len(failed) > NAMED else ""
    return ", ".join(list(failed.values())[:NAMED]) + more
