"""Random augmentations of a whole batch of tensors, on any device, each image with its own draw.

The operations are functions of images in [0, 1], float32 N x C x H x W, and of one parameter per image; for equal
parameters each agrees with torchvision's function of the same purpose, image by image. Policies draw the parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .settings import POLICIES


def hflip(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror left and right where `flip` (bool, N) is true."""
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)


def resized_crop(x: Tensor, box: Tensor) -> Tensor:
    """Cut out `box` (float N x 4: top, left, height, width, in pixels) and resize it, bilinearly, to the full size.

    Bilinear resizing is separable: rows @ x @ columns, with one small interpolation matrix per image and axis.
    """
    top, left, height, width = box.to(x.dtype).unbind(1)
    rows = _interpolation(top, height, x.shape[-2])
    columns = _interpolation(left, width, x.shape[-1])
    return torch.einsum("nhi,ncij,nwj->nchw", rows, x, columns)


def _interpolation(start: Tensor, length: Tensor, size: int) -> Tensor:
    """N x size x size: how much each source pixel (last axis) gives to each pixel of the resized crop."""
    pixel = torch.arange(size, device=start.device, dtype=start.dtype)
    source = (pixel + 0.5) * (length / size).unsqueeze(1) - 0.5  # centres of pixels, as in torchvision
    source = start.unsqueeze(1) + source.clamp(min=0).minimum((length - 1).unsqueeze(1))  # the crop's edge repeats
    return (source.unsqueeze(2) - pixel).abs_().neg_().add_(1).clamp_(min=0)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn counter-clockwise about the centre by `degrees` (N), bilinearly; what comes in is 0."""
    angle = torch.deg2rad(degrees).view(-1, 1, 1)
    height, width = x.shape[-2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    down = (torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2).unsqueeze(1)
    cos, sin = angle.cos(), angle.sin()
    # The source of each pixel, counted in halves of each side. By hand, since affine_grid's many tiny matrix products
    # take three times as long as the sampling itself.
    grid = torch.stack([(cos * across - sin * down) * (2 / width), (sin * across + cos * down) * (2 / height)], dim=3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` (N), then clamp to [0, 1]."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` (N), with the mean of the image's grey levels."""
    return _blend(x, grey(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend, by `factor` (N), with the grey image. Nothing changes on one channel."""
    return _blend(x, grey(x), factor) if x.shape[1] == 3 else x


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` (N) of a full circle, in [-0.5, 0.5]. Nothing changes on one channel."""
    if x.shape[1] != 3:
        return x
    high, low = x.amax(1), x.amin(1)
    spread = high - low
    red, green, blue = x.unbind(1)
    safe = torch.where(spread == 0, 1, spread)
    hue = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * shift.view(-1, 1, 1)  # in sixths of the circle
    # Each channel is the same trapezoid of the hue, shifted by a third of the circle (HSV to RGB without cases).
    offset = torch.arange(5.0, 0.0, -2.0, device=x.device).view(1, 3, 1, 1)  # 5, 3, 1; made on the device
    k = (offset + hue.unsqueeze(1)) % 6
    return high.unsqueeze(1) - spread.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel_size: int) -> Tensor:
    """Blur with a kernel of odd size and standard deviation `sigma` (N, pixels); 0 leaves an image as it is."""
    half = kernel_size // 2
    tap = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (tap / sigma.clamp(min=1e-6).unsqueeze(1)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).view(-1, kernel_size, 1, 1, 1)
    height, width = x.shape[-2:]
    x = F.pad(x, (half, half, half, half), mode="reflect")
    x = torch.stack([weights[:, i] * x[..., i : i + width] for i in range(kernel_size)]).sum(0)
    return torch.stack([weights[:, i] * x[..., i : i + height, :] for i in range(kernel_size)]).sum(0)


def grayscale(x: Tensor, where: Tensor) -> Tensor:
    """Replace colour by grey where `where` (bool, N) is true. Nothing changes on one channel."""
    return torch.where(where.view(-1, 1, 1, 1), grey(x), x) if x.shape[1] == 3 else x


def normalize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract `mean` and divide by `std` (one number per channel)."""
    return (x - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


def grey(x: Tensor) -> Tensor:
    """Grey levels, N x 1 x H x W, with the weights of ITU-R BT.601 for three channels."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, x, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


@dataclass(frozen=True)
class Policy:
    """What is drawn at random, and from which range. An operation whose range is None is left out."""

    hflip: float | None = None  # probability
    crop: tuple[float, float] | None = None  # share of the area that is kept; aspect ratio 3/4 to 4/3
    rotate: float | None = None  # up to so many degrees to either side
    jitter: tuple[float, float, float, float] | None = None  # brightness, contrast, saturation, hue: +- so much
    blur: tuple[float, float] | None = None  # standard deviation in pixels, for half of the images
    grayscale: float | None = None  # probability
    jitter_probability: float = 0.8


RANGES = {
    # The recipe as written, with the ranges of the SimCLR paper (2002.05709, appendix A; strength 0.5 as on
    # small images): the crop's area, and probabilities of 0.5, 0.8, 0.5 and 0.2.
    "simclr": Policy(0.5, (0.08, 1.0), None, (0.4, 0.4, 0.4, 0.1), (0.1, 2.0), 0.2),
    # What suits digits: upright but slightly turned, never mirrored, all strokes in the picture.
    "digits": Policy(crop=(0.5, 1.0), rotate=15.0, jitter=(0.4, 0.4, 0.0, 0.0)),
}


def policy(name: str) -> Policy:
    """The policy of a name such as `simclr`, or `simclr-hflip` for the one without flips."""
    base, *left_out = name.split("-")
    ranges = RANGES[base]
    return Policy(**{op: getattr(ranges, op) for op in POLICIES[base] if op not in left_out})


class Augment:
    """One random view of each image of a batch: uint8 N x C x H x W in, normalised float32 out, on the same device.

    Every draw comes from the generator that is passed in, which has to live on the images' device.
    """

    def __init__(self, name: str, mean: Tensor, std: Tensor):
        self.policy, self.mean, self.std = policy(name), mean, std

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """The views of `images`."""
        n, _, height, width = images.shape
        p = self.policy

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=images.device) * (high - low) + low

        x = images.float() / 255
        if p.hflip is not None:
            x = hflip(x, uniform(0, 1) < p.hflip)
        if p.crop is not None:
            x = resized_crop(x, crop_box(uniform, p.crop, height, width))
        if p.rotate is not None:
            x = rotate(x, uniform(-p.rotate, p.rotate))
        if p.jitter is not None:
            x = self._jitter(x, p.jitter, uniform)
        if p.blur is not None:
            sigma = torch.where(uniform(0, 1) < 0.5, uniform(*p.blur), 0)
            x = gaussian_blur(x, sigma, kernel_size=max(3, round(0.1 * height) // 2 * 2 + 1))
        if p.grayscale is not None:
            x = grayscale(x, uniform(0, 1) < p.grayscale)
        return normalize(x, self.mean.to(x.device), self.std.to(x.device))

    def _jitter(self, x: Tensor, strengths: tuple[float, ...], uniform) -> Tensor:
        """The adjustments in a random order for each image, as torchvision's ColorJitter does per call.

        At each place in the order all adjustments run on the whole batch, with a factor that changes nothing for
        the images whose turn it is not: no image is looked at on its own, and a GPU is never waited for.
        """
        adjustments = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        apply = uniform(0, 1) < self.policy.jitter_probability
        chosen = []
        for adjust, strength in zip(adjustments, strengths, strict=True):
            if strength == 0 or (x.shape[1] == 1 and adjust in (adjust_saturation, adjust_hue)):
                continue
            neutral = 0.0 if adjust is adjust_hue else 1.0
            value = torch.where(apply, uniform(neutral - strength, neutral + strength), neutral)
            chosen.append((adjust, value, neutral, uniform(0, 1)))
        turns = torch.stack([key for *_, key in chosen]).argsort(0).argsort(0)
        for place in range(len(chosen)):
            for turn, (adjust, value, neutral, _) in zip(turns, chosen, strict=True):
                x = adjust(x, torch.where(turn == place, value, neutral))
        return x


def crop_box(uniform, area: tuple[float, float], height: int, width: int) -> Tensor:
    """Random boxes as RandomResizedCrop draws them, float N x 4: share of the area, log-uniform aspect 3/4 to 4/3.

    torchvision draws again when a box does not fit; here its longer side is cut, which costs no loop.
    """
    share = uniform(*area) * height * width
    aspect = torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    h = (share / aspect).sqrt().round().clamp(1, height)
    w = (share * aspect).sqrt().round().clamp(1, width)
    top = (uniform(0, 1) * (height - h + 1)).floor().clamp(max=height - 1)
    left = (uniform(0, 1) * (width - w + 1)).floor().clamp(max=width - 1)
    return torch.stack([top.minimum(height - h), left.minimum(width - w), h, w], dim=1)
