"""Policies applied: one random view of each image of a batch, on the images' device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from . import operations as ops
from .policies import parse_policy

Uniform = Callable[[float, float], Tensor]  # a number for each image of the batch, between two
JITTERED, BLURRED = 0.8, 0.5  # shares of the images, as in the SimCLR paper
KNOTS = 5  # of elastic, along each side


class Augment:
    """One random view of each image of a batch: uint8 N x C x H x W in, normalised float32 out, on the same device.

    policy: as `parse_policy` reads it. size: height and width of the views; by default those of the images.
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
            x = ops.hflip(x, uniform(0, 1) < has["hflip"][0])
        if "crop" in has:
            low, high = has["crop"]
            x = ops.resized_crop(x, ops.crop_box(uniform, (low, high), x.shape[-2], x.shape[-1]), (height, width))
        elif x.shape[-2:] != (height, width):
            whole = torch.zeros(n, 4, device=x.device)
            whole[:, 2], whole[:, 3] = x.shape[-2:]
            x = ops.resized_crop(x, whole, (height, width))
        if has.keys() & {"rotate", "scale", "shear", "shift", "elastic"}:
            x = self._warp(x, uniform, generator)
        if "stroke" in has:
            x = ops.stroke(x, uniform(-has["stroke"][0], has["stroke"][0]))
        if "jitter" in has:
            x = self._jitter(x, has["jitter"], uniform)
        if "blur" in has:
            sigma = torch.where(uniform(0, 1) < BLURRED, uniform(*has["blur"]), 0)
            x = ops.gaussian_blur(x, sigma, kernel_size=max(3, round(0.1 * height) // 2 * 2 + 1))
        if "noise" in has:
            strength = uniform(0, has["noise"][0]).view(-1, 1, 1, 1)
            x = (x + strength * torch.randn(x.shape, generator=generator, device=x.device)).clamp_(0, 1)
        if "grayscale" in has:
            x = ops.grayscale(x, uniform(0, 1) < has["grayscale"][0])
        if "erase" in has:
            side = round(has["erase"][0] * min(height, width))
            x = ops.erase(x, uniform(1 - side, height).floor(), uniform(1 - side, width).floor(), side)
        return ops.normalize(x, self.mean.to(x.device), self.std.to(x.device))

    def _warp(self, x: Tensor, uniform: Uniform, generator: Generator) -> Tensor:
        """All that moves pixels, in one sampling, so that they are blurred once."""
        has, (height, width) = self.ranges, x.shape[-2:]

        def within(op: str) -> Tensor:
            limit = has.get(op, (0.0,))[0]
            return uniform(-limit, limit)

        low, high = has.get("scale", (1.0, 1.0))
        scale = torch.exp(uniform(math.log(low), math.log(high)))
        shift = torch.stack([within("shift") * width, within("shift") * height], dim=1)
        affine = ops.inverse_affine(within("rotate"), scale, within("shear"), shift)
        displacement = None
        if "elastic" in has:
            knots = torch.randn((len(x), 2, KNOTS, KNOTS), generator=generator, device=x.device)
            displacement = ops.smooth_displacement(knots * (has["elastic"][0] * min(height, width)), height, width)
        return ops.warp(x, affine, displacement)

    def _jitter(self, x: Tensor, strengths: tuple[float, ...], uniform: Uniform) -> Tensor:
        """The adjustments in a random order for each image, as torchvision's ColorJitter does per call.

        At each place in the order all adjustments run on the whole batch, with a factor that changes nothing for
        the images whose turn it is not: no image is looked at on its own, and a GPU is never waited for.
        """
        adjustments = (ops.adjust_brightness, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)
        apply = uniform(0, 1) < JITTERED
        chosen = []
        for adjust, strength in zip(adjustments, strengths, strict=True):
            if strength == 0 or (x.shape[1] == 1 and adjust in (ops.adjust_saturation, ops.adjust_hue)):
                continue
            neutral = 0.0 if adjust is ops.adjust_hue else 1.0
            value = torch.where(apply, uniform(neutral - strength, neutral + strength), neutral)
            chosen.append((adjust, value, neutral, uniform(0, 1)))
        if not chosen:
            return x
        turns = torch.stack([key for *_, key in chosen]).argsort(0).argsort(0)
        for place in range(len(chosen)):
            for turn, (adjust, value, neutral, _) in zip(turns, chosen, strict=True):
                x = adjust(x, torch.where(turn == place, value, neutral))
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
            made = augment(images.repeat(count, 1, 1, 1) if count > 1 else images, generator)
            views += made.contiguous(memory_format=torch.channels_last).chunk(count)
        return views
