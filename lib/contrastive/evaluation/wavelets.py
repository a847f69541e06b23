"""The scattering transform: features that nobody trained, a strong control for small images (1203.1513, 1709.08145).

Written here since the one library for it, kymatio 0.3, cannot be imported beside recent versions of SciPy. With the
filters of that library, and equal to it within a thousandth of the largest coefficient. Where a filter lets only slow
changes pass, fewer pixels are kept.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES, ANGLES = 2, 8
SCATTERED_UP_TO = 3 * 32 * 32  # pixels and channels; of larger images the coefficients fill the memory


def scattering(images: Tensor, batch_size: int = 256) -> Tensor:
    """Scattering coefficients of orders 0 to 2 at scale 4, with 8 angles, of uint8 images N x C x H x W.

    Returns float32 N x (81 C H/4 W/4): 3,969 for 28x28 grey images. They hardly change when an image is moved or
    slightly bent. Computed on the CPU. H and W have to be at least 8.
    """
    return torch.cat([_coefficients(batch.cpu().float() / 255) for batch in images.split(batch_size)])


def _coefficients(x: Tensor) -> Tensor:
    step, (height, width) = 2**SCALES, x.shape[-2:]
    # Mirrored at the borders, so that the transform's circle closes outside the image, and in whole steps.
    sides = [((size + step) // step + 1) * step - size for size in (height, width)]
    padding = (sides[1] // 2, sides[1] - sides[1] // 2, sides[0] // 2, sides[0] - sides[0] // 2)
    x = F.pad(x, padding, mode="reflect")
    low, waves = _filters(x.shape[-2], x.shape[-1])
    low_by_scale = [low, _thin(low, 2) * 4]  # for images of which every second pixel is left
    spectrum = torch.fft.fft2(x)
    averages = [_thin(spectrum * low, step)]
    second = []
    for j, scale in enumerate(waves):
        for wave in scale:
            found = torch.fft.fft2(torch.fft.ifft2(_thin(spectrum * wave, 2**j)).abs())
            averages.append(_thin(found * low_by_scale[j], step // 2**j))
            if j == 0:  # what a wave found varies more slowly than the wave: only coarser ones see something in it
                again = torch.fft.ifft2(_thin(found.unsqueeze(2) * torch.stack(waves[1]), 2)).abs()
                second += list(_thin(torch.fft.fft2(again) * low_by_scale[1], step // 2).unbind(2))
    coefficients = torch.fft.ifft2(torch.stack(averages + second, dim=2)).real
    return coefficients[..., 1 : 1 + height // step, 1 : 1 + width // step].flatten(1)


def _thin(spectrum: Tensor, step: int) -> Tensor:
    """The spectrum of every `step`-th pixel of each row and column."""
    return spectrum.unflatten(-2, (step, -1)).unflatten(-1, (step, -1)).mean((-4, -2))


@lru_cache(maxsize=4)
def _filters(height: int, width: int) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
    """The low-pass filter and the Morlet waves, [scale][angle], as real transfer functions, height x width."""
    waves = tuple(
        tuple(_morlet(height, width, 2.0**j, (ANGLES // 2 - 1 - k) * math.pi / ANGLES) for k in range(ANGLES))
        for j in range(SCALES)
    )
    low = _gabor(height, width, 0.8 * 2 ** (SCALES - 1), 0.0, 0.0, 1.0)
    return _transfer(low), waves


def _morlet(height: int, width: int, scale: float, angle: float) -> Tensor:
    """A wave of wavelength 8/3 `scale`, and as much of its envelope taken away as makes its sum 0."""
    sigma, slant = 0.8 * scale, 4 / ANGLES
    wave = _gabor(height, width, sigma, angle, 0.75 * math.pi / scale, slant)
    envelope = _gabor(height, width, sigma, angle, 0.0, slant)
    return _transfer(wave - wave.sum() / envelope.sum() * envelope)


def _gabor(height: int, width: int, sigma: float, angle: float, frequency: float, slant: float) -> Tensor:
    """A Gaussian, `slant` times as steep across, times a complex wave, wrapped around the borders."""
    total = torch.zeros(height, width, dtype=torch.complex128)
    cos, sin = math.cos(angle), math.sin(angle)
    for over_y in range(-2, 3):
        for over_x in range(-2, 3):
            y = torch.arange(height, dtype=torch.float64)[:, None] + over_y * height
            x = torch.arange(width, dtype=torch.float64)[None] + over_x * width
            along, across = cos * y + sin * x, -sin * y + cos * x
            envelope = torch.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
            total += torch.polar(envelope, frequency * along)
    return total * slant / (2 * math.pi * sigma**2)


def _transfer(filter_: Tensor) -> Tensor:
    return torch.fft.fft2(filter_).real.float()
