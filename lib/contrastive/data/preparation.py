"""From a picture of any size and depth to the pixels of a data set: all of one shape, as uint8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from .picture import Picture

FITS = ("crop", "pad", "stretch")
LARGEST_SIDE = 64  # of images that nobody gave a size: larger ones take a small network minutes to hours on a CPU
STEP = 8  # sizes that are chosen are multiples of it


@dataclass(frozen=True)
class Preparation:
    """What is done to each picture of a data set, and has to be done to any other that its encoder is to see.

    Args:
        height, width, channels: of the pixels that come out; 1 channel or 3.
        fit: how a picture of another shape is fitted: `crop` cuts what is too long, about the centre; `pad` adds
            black; `stretch` changes the shape.
        background: what shows through where a picture is transparent.
        window: the values that become 0 and 255, of pictures with more than 8 bits; None where there are none.
    """

    height: int
    width: int
    channels: int
    fit: str = "crop"
    background: str = "white"
    window: tuple[float, float] | None = None

    def __call__(self, picture: Picture) -> np.ndarray:
        """A picture as uint8 channels x height x width. Raises: ValueError for a deep one where there is no window."""
        pixels = as_bytes(picture.pixels, self.window)
        if self.channels == 1 and pixels.shape[2] == 3:
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        pixels = fitted(pixels, self.height, self.width, self.fit).transpose(2, 0, 1)
        return pixels if len(pixels) == self.channels else np.broadcast_to(pixels, (self.channels, *pixels.shape[1:]))

    def as_json(self) -> dict[str, Any]:
        """In values that JSON has."""
        return {**asdict(self), "window": None if self.window is None else list(self.window)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preparation:
        """What `as_json` gave. Raises: TypeError, ValueError or LookupError when it is something else."""
        window = values["window"]
        return cls(**{**values, "window": None if window is None else (float(window[0]), float(window[1]))})

    def in_words(self, fitted: bool = True) -> str:
        """For people: what is done, in a sentence without its full stop. fitted: whether there are other shapes."""
        how = {"crop": "cut about the centre", "pad": "padded with black", "stretch": "stretched"}[self.fit]
        kind = "grey" if self.channels == 1 else "colour"
        said = f"{kind}, {self.height}x{self.width} pixels" + (f", other shapes {how}" if fitted else "")
        return (
            said if self.window is None else f"{said}, values from {self.window[0]:g} to {self.window[1]:g} as 0 to 255"
        )


def as_bytes(pixels: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Pixels as uint8: as they are, or scaled by a window, rounded, and cut at its ends. Raises: ValueError."""
    if pixels.dtype == np.uint8:
        return pixels
    if window is None:
        raise ValueError("it has more than 8 bits, and no window scales it")
    low, high = window
    finite = np.nan_to_num(pixels.astype(np.float32), nan=low, posinf=high, neginf=low)
    scaled = (finite - low) * (255 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def fitted(pixels: np.ndarray, height: int, width: int, fit: str = "crop") -> np.ndarray:
    """uint8 H x W x C of another size, by Pillow's antialiased bicubic interpolation; as it is if it has that size."""
    h, w, channels = pixels.shape
    if (h, w) == (height, width):
        return pixels
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    box: tuple[float, float, float, float] = (0, 0, w, h)
    inner = width, height
    if fit == "crop":
        scale = min(w / width, h / height)
        cut_w, cut_h = min(width * scale, w), min(height * scale, h)  # rounding may lead beyond the edge
        left, top = (w - cut_w) / 2, (h - cut_h) / 2
        box = (left, top, min(left + cut_w, w), min(top + cut_h, h))
    elif fit == "pad":
        scale = max(w / width, h / height)
        inner = max(round(w / scale), 1), max(round(h / scale), 1)
    image = image.resize(inner, Image.Resampling.BICUBIC, box=box)
    if inner != (width, height):
        whole = Image.new(image.mode, (width, height))
        whole.paste(image, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        image = whole
    return np.asarray(image).reshape(height, width, channels)


# --- Which size ----------------------------------------------------------------------------------------------------


def size_of_alike(height: int, width: int) -> tuple[tuple[int, int], str]:
    """The size for pictures that all have this one, and the reason."""
    scale = LARGEST_SIDE / min(height, width)
    if scale >= 1:
        return (height, width), ""  # nothing to explain
    smaller = max(round(height * scale), 1), max(round(width * scale), 1)
    reason = (
        f"all are larger than {LARGEST_SIDE} pixels, with which a small network would take long on a CPU; "
        "image_size keeps more"
    )
    return smaller, reason


def size_of_mixed(shapes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    """The size for pictures of many, and the reason."""
    middle = float(np.median([min(shape) for shape in shapes]))
    side = int(min(max(middle // STEP * STEP, STEP), LARGEST_SIDE))
    sides = [side for shape in shapes for side in shape]
    reason = (
        f"they have {len(set(shapes)):,} sizes, with sides of {min(sides):,} to {max(sides):,} pixels; the median of "
        f"the shorter ones is {middle:,.0f}, and more than {LARGEST_SIDE} are kept only if image_size asks for it"
    )
    return (side, side), reason
