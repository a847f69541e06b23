"""Policies applied: one random view of each image of a batch, on the images' device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .. import processor
from . import operations as ops
from .policies import parse_policy

Uniform = Callable[[float, float], Tensor]  # a number for each image of the batch, between two
JITTERED, BLURRED = 0.8, 0.5  # shares of the images, as in the SimCLR paper
KNOTS = 5  # of elastic, along each side
WARPS = {"rotate", "scale", "shear", "shift", "elastic"}


# Values of pixels that are worked on at once: on a processor, as fit its caches; on a GPU, so many that it is kept
# busy, and so few that they take little of its memory.
CHUNK, CHUNK_GPU = 2**19, 2**25
WORTH_ASKING = 1024  # values of an image


class Augment:
    """One random view of each image of a batch: uint8 N x C x H x W in, normalised float32 out, on the same device.

    policy: as `parse_policy` reads it. mean, std: of each channel; where there are three, views of grey images have as
    many. size: height and width of the views; by default those of the images.
    Every draw comes from the generator that is passed in, which has to live on the images' device.
    """

    def __init__(self, policy: str, mean: Tensor, std: Tensor, size: tuple[int, int] | None = None):
        self.ranges, self.mean, self.std, self.size = parse_policy(policy), mean, std, size

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """The views of `images`, laid out channels last."""
        n, channels = images.shape[:2]
        size = self.size or (images.shape[-2], images.shape[-1])
        draws = self.draw(n, channels, (images.shape[-2], images.shape[-1]), size, generator)
        views = torch.empty(
            (n, max(channels, len(self.mean)), *size), device=images.device, memory_format=torch.channels_last
        )
        most = CHUNK_GPU if processor.on_gpu(images) else CHUNK
        step = max(most // max(views[0].numel(), images[0].numel()), 1)
        mean, std = (x.to(images.device).view(1, -1, 1, 1) for x in (self.mean, self.std))
        for start in range(0, n, step):
            part = slice(start, start + step)
            x = self.apply(images[part], {op: drawn[part] for op, drawn in draws.items()}, size)
            torch.sub(x, mean, out=views[part]).div_(std)
        return views

    def draw(
        self, n: int, channels: int, shape: tuple[int, int], size: tuple[int, int], generator: Generator
    ) -> dict[str, Tensor]:
        """What is drawn for n images of `shape` whose views are of `size`: operation -> numbers, n x ..."""
        has, drawn, device = self.ranges, dict[str, Tensor](), generator.device
        height, width = size

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator, device=device) * (high - low) + low

        if "hflip" in has:
            drawn["hflip"] = uniform(0, 1) < has["hflip"][0]
        if "crop" in has:
            low, high = has["crop"]
            drawn["crop"] = ops.crop_box(uniform, (low, high), *shape)
        if has.keys() & WARPS:
            drawn["warp"] = self._affine(uniform, size)
            if "elastic" in has:
                drawn["elastic"] = torch.randn((n, 2, KNOTS, KNOTS), generator=generator, device=device)
                drawn["elastic"] *= has["elastic"][0] * min(height, width)
        if "stroke" in has:
            drawn["stroke"] = uniform(-has["stroke"][0], has["stroke"][0])
        if "jitter" in has:
            drawn["jitter"] = _draw_jitter(has["jitter"], channels, uniform)
        if "blur" in has:
            drawn["blur"] = torch.where(uniform(0, 1) < BLURRED, uniform(*has["blur"]), 0)
        if "noise" in has:
            # Of all images at once, as no other draw: in parts, what is drawn after it would depend on their size
            strength = uniform(0, has["noise"][0]).view(-1, 1, 1, 1)
            drawn["noise"] = strength * torch.randn((n, channels, *size), generator=generator, device=device)
        if "grayscale" in has:
            drawn["grayscale"] = uniform(0, 1) < has["grayscale"][0]
        if "erase" in has:
            side = round(has["erase"][0] * min(height, width))
            drawn["erase"] = torch.stack([uniform(1 - side, height).floor(), uniform(1 - side, width).floor()], 1)
        return drawn

    def apply(self, x: Tensor, drawn: dict[str, Tensor], size: tuple[int, int]) -> Tensor:
        """Views in [0, 1] of uint8 images, by what was drawn for them."""
        if "hflip" in drawn:
            x = ops.hflip(x, drawn["hflip"])
        if "crop" in drawn:
            x = ops.resized_crop(x, drawn["crop"], size)
        elif x.shape[-2:] != size:
            whole = torch.zeros(len(x), 4, device=x.device)
            whole[:, 2], whole[:, 3] = x.shape[-2:]
            x = ops.resized_crop(x, whole, size)
        else:
            x = x.float() / 255
        if "warp" in drawn:
            elastic = drawn.get("elastic")
            x = ops.warp(x, drawn["warp"], None if elastic is None else ops.smooth_displacement(elastic, *size))
        if "stroke" in drawn:
            x = ops.stroke(x, drawn["stroke"])
        if "jitter" in drawn:
            x = _jitter(x, drawn["jitter"], self.ranges["jitter"])
        if "blur" in drawn:
            kernel_size = max(3, round(0.1 * size[0]) // 2 * 2 + 1)
            x = _on_some(x, drawn["blur"], 0, lambda part, sigma: ops.gaussian_blur(part, sigma, kernel_size))
        if "noise" in drawn:
            x = (x + drawn["noise"]).clamp_(0, 1)
        if "grayscale" in drawn:
            x = _on_some(x, drawn["grayscale"], False, ops.grayscale)
        if "erase" in drawn:
            top, left = drawn["erase"].unbind(1)
            x = ops.erase(x, top, left, round(self.ranges["erase"][0] * min(size)))
        return x

    def _affine(self, uniform: Uniform, size: tuple[int, int]) -> Tensor:
        """All that moves pixels and is not elastic, as one map, so that they are sampled, and blurred, once."""
        has, (height, width) = self.ranges, size

        def within(op: str) -> Tensor:
            limit = has.get(op, (0.0,))[0]
            return uniform(-limit, limit)

        low, high = has.get("scale", (1.0, 1.0))
        scale = torch.exp(uniform(math.log(low), math.log(high)))
        shift = torch.stack([within("shift") * width, within("shift") * height], dim=1)
        return ops.inverse_affine(within("rotate"), scale, within("shear"), shift)


def _adjustments(strengths: tuple[float, ...], channels: int) -> list[tuple[Callable, float, float]]:
    """The adjustments that change anything: each with its strength, and the value with which it would not."""
    known = (
        (ops.adjust_brightness, 1.0),
        (ops.adjust_contrast, 1.0),
        (ops.adjust_saturation, 1.0),
        (ops.adjust_hue, 0.0),
    )
    of_grey = known[:2]
    return [
        (adjust, strength, neutral)
        for (adjust, neutral), strength in zip(known, strengths, strict=True)
        if strength > 0 and (channels > 1 or (adjust, neutral) in of_grey)
    ]


def _draw_jitter(strengths: tuple[float, ...], channels: int, uniform: Uniform) -> Tensor:
    """N x 2 x adjustments: the value of each, and at which place of the order it comes."""
    apply, values, keys = uniform(0, 1) < JITTERED, [], []
    for _, strength, neutral in _adjustments(strengths, channels):
        values.append(torch.where(apply, uniform(neutral - strength, neutral + strength), neutral))
        keys.append(uniform(0, 1))
    if not values:
        return apply.new_zeros((len(apply), 2, 0))
    places = torch.stack(keys).argsort(0).argsort(0)
    return torch.stack([torch.stack(values), places], 0).permute(2, 0, 1)


def _jitter(x: Tensor, drawn: Tensor, strengths: tuple[float, ...]) -> Tensor:
    """The adjustments in a random order for each image, as torchvision's ColorJitter does per call."""
    values, places = drawn.unbind(1)
    adjustments = _adjustments(strengths, x.shape[1])
    for place in range(len(adjustments)):
        for i, (adjust, _, neutral) in enumerate(adjustments):
            x = _on_some(x, torch.where(places[:, i] == place, values[:, i], neutral), neutral, adjust)
    return x


def _on_some(x: Tensor, values: Tensor, neutral: float, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`operation(x, values)`, which leaves images as they are whose value is neutral: on a processor these are left
    out, unless they are so small that this takes longer. A GPU is not asked which they are, since that would mean to
    wait for it. x may be changed."""
    if x[0].numel() < WORTH_ASKING or processor.on_gpu(x):
        return operation(x, values)
    some = (values != neutral).nonzero().flatten()
    if len(some) == len(x):
        return operation(x, values)
    if len(some):
        x[some] = operation(x[some], values[some])
    return x


@dataclass(frozen=True)
class View:
    """What a method asks for: `count` views of each image by a policy, `size` pixels high (default: as the images)."""

    policy: str
    size: int | None = None
    count: int = 1


class ViewMaker:
    """All views that a method asks for, of uint8 images of one shape (channels, height, width)."""

    def __init__(self, views: Sequence[View], shape: tuple[int, ...], mean: Tensor, std: Tensor):
        height, width = shape[-2:]
        self.parts = []
        for view in views:
            size = None if view.size is None else (view.size, round(view.size * width / height))
            self.parts.append((Augment(view.policy, mean, std, size), view.count))

    def __call__(self, images: Tensor, generator: Generator) -> list[Tensor]:
        """The views of N images, in the order in which they were asked for: each float32 N x C x height x width,
        normalised, laid out channels last."""
        views: list[Tensor] = []
        for augment, count in self.parts:
            views += augment(images.repeat(count, 1, 1, 1) if count > 1 else images, generator).chunk(count)
        return views
