"""Random augmentations of a whole batch of tensors, on any device, each image with its own draw.

The operations are functions of images in [0, 1], float32 N x C x H x W, and of one parameter per image; for equal
parameters each agrees with torchvision's function of the same purpose, image by image. Policies draw the parameters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..settings.model import parse_policy


def hflip(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror left and right where `flip` (bool, N) is true."""
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)


def resized_crop(x: Tensor, box: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Cut out `box` (float N x 4: top, left, height, width, in pixels) and resize it, bilinearly, to `size` (by
    default the size of `x`). What is made smaller is not smoothed first.

    Bilinear resizing is separable: rows @ x @ columns, with one small interpolation matrix per image and axis.
    """
    top, left, height, width = box.to(x.dtype).unbind(1)
    size = size or (x.shape[-2], x.shape[-1])
    rows = _interpolation(top, height, x.shape[-2], size[0])
    columns = _interpolation(left, width, x.shape[-1], size[1])
    return torch.einsum("nhi,ncij,nwj->nchw", rows, x, columns)


def _interpolation(start: Tensor, length: Tensor, size: int, out: int) -> Tensor:
    """N x out x size: how much each source pixel (last axis) gives to each pixel of the resized crop."""
    pixel = torch.arange(max(size, out), device=start.device, dtype=start.dtype)
    source = (pixel[:out] + 0.5) * (length / out).unsqueeze(1) - 0.5  # centres of pixels, as in torchvision
    source = start.unsqueeze(1) + source.clamp(min=0).minimum((length - 1).unsqueeze(1))  # the crop's edge repeats
    return (source.unsqueeze(2) - pixel[:size]).abs_().neg_().add_(1).clamp_(min=0)


def warp(x: Tensor, affine: Tensor, displacement: Tensor | None = None) -> Tensor:
    """Move pixels, sampling bilinearly; what comes in from outside is 0.

    affine: N x 2 x 3, as `inverse_affine` gives it: from a pixel of the result, counted from the centre, to its source.
    displacement: N x H x W x 2 (x, y), pixels to add to the sources.
    """
    height, width = x.shape[-2:]
    across = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    down = (torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2).unsqueeze(1)
    # By hand, since affine_grid's many tiny matrix products take three times as long as the sampling itself.
    a, b, c, d, e, f = affine.flatten(1).view(-1, 6, 1, 1).unbind(1)
    to_right, to_bottom = a * across + b * down + c, d * across + e * down + f
    if displacement is not None:
        to_right, to_bottom = to_right + displacement[..., 0], to_bottom + displacement[..., 1]
    grid = torch.stack([to_right * (2 / width), to_bottom * (2 / height)], dim=3)  # in halves of each side
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def inverse_affine(degrees: Tensor, scale: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """N x 2 x 3, for `warp`: turn counter-clockwise by `degrees`, enlarge by `scale`, slant by `shear` degrees, then
    move by `shift` (N x 2: right and down, in pixels); each about the centre. torchvision's turns the other way.
    """
    angle, slant = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear))
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrix = torch.stack([cos + sin * slant, cos * slant - sin, sin, cos], dim=1).view(-1, 2, 2)
    return torch.cat([matrix, -(matrix @ shift.unsqueeze(2))], dim=2)


def smooth_displacement(knots: Tensor, height: int, width: int) -> Tensor:
    """N x 2 x k x k displacements, spread evenly over the image, with bicubic values between them: N x H x W x 2."""
    return F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)


def stroke(x: Tensor, amount: Tensor) -> Tensor:
    """Thicken bright strokes (`amount`, N, above 0) or thin them (below 0), by up to a pixel on each side at 1 or -1:
    a blend of the image with its grey-scale dilation or erosion by 3x3 pixels."""
    amount = amount.view(-1, 1, 1, 1)
    thick = torch.where(amount > 0, x, -x)  # erosion is the dilation of the negative
    thick = F.max_pool2d(thick, 3, stride=1, padding=1)
    return torch.lerp(x, torch.where(amount > 0, thick, -thick), amount.abs())


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


def erase(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Make a square of `side` pixels black, its corner at `top`, `left` (N each, pixels): cutout (1708.04552)."""
    rows = torch.arange(x.shape[-2], device=x.device) - top.unsqueeze(1)
    columns = torch.arange(x.shape[-1], device=x.device) - left.unsqueeze(1)
    inside = ((rows >= 0) & (rows < side)).unsqueeze(2) & ((columns >= 0) & (columns < side)).unsqueeze(1)
    return x.masked_fill(inside.unsqueeze(1), 0)


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


JITTERED, BLURRED = 0.8, 0.5  # shares of the images, as in the SimCLR paper
KNOTS = 5  # of elastic, along each side


class Augment:
    """One random view of each image of a batch: uint8 N x C x H x W in, normalised float32 out, on the same device.

    policy: as `settings.parse_policy` reads it. size: height and width of the views; by default those of the images.
    Every draw comes from the generator that is passed in, which has to live on the images' device.
    """

    def __init__(self, policy: str, mean: Tensor, std: Tensor, size: tuple[int, int] | None = None):
        self.ranges, self.mean, self.std, self.size = parse_policy(policy), mean, std, size

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """The views of `images`."""
        n, has = len(images), self.ranges
        height, width = self.size or images.shape[-2:]

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=images.device) * (high - low) + low

        x = images.float() / 255
        if "hflip" in has:
            x = hflip(x, uniform(0, 1) < has["hflip"][0])
        if "crop" in has:
            low, high = has["crop"]
            x = resized_crop(x, crop_box(uniform, (low, high), x.shape[-2], x.shape[-1]), (height, width))
        elif x.shape[-2:] != (height, width):
            whole = torch.zeros(n, 4, device=x.device)
            whole[:, 2], whole[:, 3] = x.shape[-2:]
            x = resized_crop(x, whole, (height, width))
        if has.keys() & {"rotate", "scale", "shear", "shift", "elastic"}:
            x = self._warp(x, uniform, generator)
        if "stroke" in has:
            x = stroke(x, uniform(-has["stroke"][0], has["stroke"][0]))
        if "jitter" in has:
            x = self._jitter(x, has["jitter"], uniform)
        if "blur" in has:
            sigma = torch.where(uniform(0, 1) < BLURRED, uniform(*has["blur"]), 0)
            x = gaussian_blur(x, sigma, kernel_size=max(3, round(0.1 * height) // 2 * 2 + 1))
        if "noise" in has:
            strength = uniform(0, has["noise"][0]).view(-1, 1, 1, 1)
            x = (x + strength * torch.randn(x.shape, generator=generator, device=x.device)).clamp_(0, 1)
        if "grayscale" in has:
            x = grayscale(x, uniform(0, 1) < has["grayscale"][0])
        if "erase" in has:
            side = round(has["erase"][0] * min(height, width))
            x = erase(x, uniform(1 - side, height).floor(), uniform(1 - side, width).floor(), side)
        return normalize(x, self.mean.to(x.device), self.std.to(x.device))

    def _warp(self, x: Tensor, uniform, generator: Generator) -> Tensor:
        """All that moves pixels, in one sampling, so that they are blurred once."""
        has, (height, width) = self.ranges, x.shape[-2:]

        def within(op: str) -> Tensor:
            limit = has.get(op, (0.0,))[0]
            return uniform(-limit, limit)

        low, high = has.get("scale", (1.0, 1.0))
        scale = torch.exp(uniform(math.log(low), math.log(high)))
        shift = torch.stack([within("shift") * width, within("shift") * height], dim=1)
        affine = inverse_affine(within("rotate"), scale, within("shear"), shift)
        displacement = None
        if "elastic" in has:
            knots = torch.randn((len(x), 2, KNOTS, KNOTS), generator=generator, device=x.device)
            displacement = smooth_displacement(knots * (has["elastic"][0] * min(height, width)), height, width)
        return warp(x, affine, displacement)

    def _jitter(self, x: Tensor, strengths: tuple[float, ...], uniform) -> Tensor:
        """The adjustments in a random order for each image, as torchvision's ColorJitter does per call.

        At each place in the order all adjustments run on the whole batch, with a factor that changes nothing for
        the images whose turn it is not: no image is looked at on its own, and a GPU is never waited for.
        """
        adjustments = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        apply = uniform(0, 1) < JITTERED
        chosen = []
        for adjust, strength in zip(adjustments, strengths, strict=True):
            if strength == 0 or (x.shape[1] == 1 and adjust in (adjust_saturation, adjust_hue)):
                continue
            neutral = 0.0 if adjust is adjust_hue else 1.0
            value = torch.where(apply, uniform(neutral - strength, neutral + strength), neutral)
            chosen.append((adjust, value, neutral, uniform(0, 1)))
        if not chosen:
            return x
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
