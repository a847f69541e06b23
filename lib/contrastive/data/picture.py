"""A picture as it was read, and what every kind of file has in common."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BACKGROUNDS = ("white", "black")
MAX_PIXELS = 2**26  # of one picture
SEVERAL = "several pictures: the first one"


@dataclass(frozen=True)
class Picture:
    """A picture as it was read.

    pixels: H x W x 1 or 3. uint8, ready to be shown; or float32, as from 16 bits: in units of the file's own, for a
    window to scale. remarks: what was done to it, in words that are counted over all pictures, such as "transparent:
    laid over white".
    """

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


class Undecodable(ValueError):  # noqa: N818 - what is said of a file
    """A file that gives no picture. Its text is the reason, in a few words that follow the file's name."""


def check_size(width: int, height: int) -> None:
    """Raises: Undecodable."""
    if width < 1 or height < 1:
        raise Undecodable("has no pixels")
    if width * height > MAX_PIXELS:
        million = math.ceil(width * height / 1e6)
        raise Undecodable(f"has {million:,} million pixels, more than {MAX_PIXELS / 1e6:.0f}")


def grey_if_it_is(pixels: np.ndarray) -> np.ndarray:
    """H x W or H x W x 3 with one channel, if the three are equal. Most that are not show it in the middle."""
    if pixels.ndim == 2:
        return pixels[..., None]
    red, green, blue = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist()
    if not red == green == blue:
        return pixels
    for part in (pixels[0], pixels):
        if not ((part[..., 0] == part[..., 1]).all() and (part[..., 0] == part[..., 2]).all()):
            return pixels
    return np.ascontiguousarray(pixels[..., :1])
