"""The scattering transform against its definition, computed by plain convolutions."""

import math

import numpy as np
import pytest
import torch

from contrastive.evaluation.wavelets import ANGLES, scattering


def gabor(size, sigma, angle, frequency, slant):
    """The filter on a grid that is large enough for its tails, centre in the middle."""
    y, x = np.mgrid[-size : size + 1, -size : size + 1].astype(float)
    along, across = math.cos(angle) * y + math.sin(angle) * x, -math.sin(angle) * y + math.cos(angle) * x
    envelope = np.exp(-(along**2 + slant**2 * across**2) / (2 * sigma**2))
    return envelope * np.exp(1j * frequency * along) * slant / (2 * math.pi * sigma**2)


def morlet(scale, angle):
    wave, plain = (gabor(16, 0.8 * scale, angle, f, 4 / ANGLES) for f in (0.75 * math.pi / scale, 0.0))
    return wave - wave.sum() / plain.sum() * plain


def convolved(image, kernel):
    """Circular convolution, as a sum over the kernel's pixels."""
    half, total = kernel.shape[0] // 2, np.zeros(image.shape, complex)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            if abs(kernel[i, j]) > 1e-7:
                total += kernel[i, j] * np.roll(image, (i - half, j - half), axis=(0, 1))
    return total


@pytest.fixture(scope="module")
def image():
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 7, 7, generator=torch.manual_seed(0)), 28, mode="bicubic")
    return (smooth.clamp(0, 1) * 255).byte()


def test_coefficients_are_those_of_the_definition(image):
    found = scattering(image).view(81, 7, 7).numpy()
    padded = np.pad(image[0, 0].numpy() / 255.0, 4, mode="reflect")
    low = gabor(16, 1.6, 0.0, 0.0, 1.0)
    angles = [(ANGLES // 2 - 1 - k) * math.pi / ANGLES for k in range(ANGLES)]

    def smoothed(u):
        return convolved(u, low).real[4:32:4, 4:32:4]

    np.testing.assert_allclose(found[0], smoothed(padded), atol=1e-3)
    for j in (0, 1):
        for k in (0, 3):
            u = np.abs(convolved(padded, morlet(2**j, angles[k])))
            np.testing.assert_allclose(found[1 + 8 * j + k], smoothed(u), atol=1e-3)
    u = np.abs(convolved(padded, morlet(1, angles[3])))
    second = np.abs(convolved(u, morlet(2, angles[5])))
    np.testing.assert_allclose(found[17 + 8 * 3 + 5], smoothed(second), atol=1e-3)


def test_it_hardly_minds_a_move_that_pixels_mind(image):
    moved = image.roll(1, dims=-1)
    pixels = (moved.float() - image.float()).norm() / image.float().norm()
    here, there = scattering(image), scattering(moved)
    assert (there - here).norm() / here.norm() < 0.7 * pixels
    assert scattering(torch.zeros_like(image)).abs().max() < 1e-5


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (30, 45), (8, 64)])
def test_shapes(size):
    images = torch.randint(0, 256, (3, 3, *size), dtype=torch.uint8)
    features = scattering(images, batch_size=2)
    assert features.shape == (3, 3 * 81 * (size[0] // 4) * (size[1] // 4))
    torch.testing.assert_close(features[2:], scattering(images[2:]), atol=1e-5, rtol=1e-4)
