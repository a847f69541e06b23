"""Every picture gets the shape of its data set, by what Pillow and torchvision give for the same; and a window."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from contrastive import load_images
from contrastive.data.picture import Picture
from contrastive.data.preparation import FITS, Preparation, as_bytes, fitted

SIDES = st.integers(1, 90)


def scene(height, width, channels=3, seed=0):
    """Smooth, with noise: what is moved by a pixel, or blurred, is not the same any more."""
    y, x = np.mgrid[:height, :width]
    layers = [(y * 3 + seed) % 256, (x * 5) % 256, (x + y) * 2 % 256][:channels]
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, channels))
    return (np.stack(layers, -1) * 0.7 + noise).astype(np.uint8)


def by_pillow(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def channels_last(image, channels):
    return np.asarray(image).reshape(image.height, image.width, channels)


# --- One shape ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "target"), [
    ((60, 91), (32, 32)), ((91, 60), (32, 32)), ((200, 20), (24, 40)), ((10, 13), (32, 32)), ((48, 48), (64, 32)),
])  # fmt: skip
def test_crop_is_what_pillow_calls_fit(size, target, channels):
    pixels = scene(*size, channels)
    expected = ImageOps.fit(by_pillow(pixels), target[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(fitted(pixels, *target, "crop"), channels_last(expected, channels))


@pytest.mark.parametrize(("size", "target"), [((64, 96), (32, 32)), ((120, 80), (40, 40)), ((64, 64), (32, 16))])
def test_crop_is_a_smaller_picture_with_its_centre_cut_out(size, target):
    pixels = scene(*size)
    scale = min(size[0] / target[0], size[1] / target[1])
    smaller = by_pillow(pixels).resize((round(size[1] / scale), round(size[0] / scale)), Image.Resampling.BICUBIC)
    expected = F.center_crop(smaller, list(target))
    np.testing.assert_array_equal(fitted(pixels, *target, "crop"), np.asarray(expected))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "target"), [
    ((60, 120), (32, 32)), ((120, 60), (32, 32)), ((200, 20), (40, 24)), ((10, 20), (32, 32)),
])  # fmt: skip
def test_pad_is_what_pillow_calls_pad(size, target, channels):
    pixels = scene(*size, channels)
    expected = ImageOps.pad(by_pillow(pixels), target[::-1], Image.Resampling.BICUBIC, color=0)
    np.testing.assert_array_equal(fitted(pixels, *target, "pad"), channels_last(expected, channels))


@pytest.mark.parametrize(("size", "target"), [((60, 120), (32, 32)), ((33, 200), (40, 24)), ((10, 13), (32, 32))])
def test_stretch_is_what_torch_interpolates(size, target):
    pixels = scene(*size)
    whole = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = F.resize(whole, list(target), InterpolationMode.BICUBIC, antialias=True).permute(1, 2, 0).numpy()
    difference = np.abs(fitted(pixels, *target, "stretch").astype(int) - expected)
    assert difference.max() <= 2  # Pillow rounds between the two directions
    assert difference.mean() < 0.3


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_that_fits_is_not_touched(fit):
    pixels = scene(40, 24)
    assert fitted(pixels, 40, 24, fit) is pixels


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
@given(height=SIDES, width=SIDES, to_height=st.integers(1, 40), to_width=st.integers(1, 40))
def test_any_size_becomes_any_other_and_one_colour_stays(fit, channels, height, width, to_height, to_width):
    pixels = np.full((height, width, channels), 200, np.uint8)
    found = fitted(pixels, to_height, to_width, fit)
    assert found.shape == (to_height, to_width, channels)
    if fit != "pad":
        assert (found == 200).all()
        return
    inside = (found == 200).all(axis=2)
    assert (found[~inside] == 0).all()
    rows, columns = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert inside.sum() == rows * columns > 0
    assert rows == to_height or columns == to_width  # as large as can be
    scale = max(height / to_height, width / to_width)
    assert abs(rows - max(height / scale, 1)) <= 0.5 + 1e-9
    assert abs(columns - max(width / scale, 1)) <= 0.5 + 1e-9


# --- Colours ------------------------------------------------------------------------------------------------------


def test_grey_pictures_among_coloured_ones_have_three_equal_channels():
    pixels = scene(8, 12, 1)
    found = Preparation(8, 12, 3)(Picture(pixels))
    assert found.shape == (3, 8, 12)
    for channel in found:
        np.testing.assert_array_equal(channel, pixels[..., 0])


def test_coloured_pictures_for_a_grey_network_are_as_bright_as_pillow_has_them():
    pixels = scene(8, 12)
    found = Preparation(8, 12, 1)(Picture(pixels))
    np.testing.assert_array_equal(found[0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_channels_come_first_in_their_order():
    pixels = scene(8, 12)
    found = Preparation(8, 12, 3)(Picture(pixels))
    for channel in range(3):
        np.testing.assert_array_equal(found[channel], pixels[:, :, channel])


# --- Windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0, 4095), (-1024, 3071), (1000, 1001), (0, 65535)])
def test_a_window_is_a_line_from_black_to_white_cut_at_its_ends(low, high):
    values = np.concatenate([np.linspace(low, high, 5000), [low - 1e4, high + 1e5]]).round().astype(np.float32)
    found = as_bytes(values.reshape(-1, 1, 1), (low, high)).ravel()
    exact = [max(0.0, min(255.0, 255 * (int(v) - low) / (high - low))) for v in values]
    assert found.dtype == np.uint8
    assert np.abs(found - exact).max() <= 0.5 + 1e-4
    assert found[0] == 0
    assert found[4999] == 255
    assert found[-2:].tolist() == [0, 255]


def test_all_levels_are_used():
    values = np.arange(4096, dtype=np.float32).reshape(64, 64, 1)
    assert len(np.unique(as_bytes(values, (0, 4095)))) == 256


def test_what_is_no_number_is_black():
    values = np.array([np.nan, 100, 0], np.float32).reshape(3, 1, 1)
    assert as_bytes(values, (0, 100)).ravel().tolist() == [0, 255, 0]


def test_bytes_are_not_windowed():
    pixels = scene(5, 5)
    assert as_bytes(pixels, (100, 120)) is pixels


def test_deep_pictures_need_a_window():
    with pytest.raises(ValueError, match="no window"):
        Preparation(4, 4, 1)(Picture(np.zeros((4, 4, 1), np.float32)))


def test_a_window_comes_before_the_size():
    # Values far outside would otherwise shine into their neighbours
    values = np.zeros((64, 64, 1), np.float32)
    values[::7, ::7] = 60000
    found = Preparation(16, 16, 1, window=(0, 100))(Picture(values))
    bright = Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8)[..., 0])
    np.testing.assert_array_equal(found[0], np.asarray(bright.resize((16, 16), Image.Resampling.BICUBIC)))


# --- As it is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, (0.0, 4095.0), (-1024.5, 3e9)])
def test_it_comes_back_from_json(window):
    import json

    preparation = Preparation(32, 48, 3, "pad", "black", window)
    assert Preparation.from_json(json.loads(json.dumps(preparation.as_json()))) == preparation


@pytest.mark.parametrize("broken", [{}, {"window": None, "size": 3}, {"window": [1]}, {"window": "ab"}])
def test_something_else_does_not(broken):
    with pytest.raises((TypeError, ValueError, LookupError)):
        Preparation.from_json(broken)


def test_it_is_told_in_words():
    said = Preparation(32, 48, 1, "stretch", window=(10, 4000.5)).in_words()
    assert said == "grey, 32x48 pixels, other shapes stretched, values from 10 to 4000.5 as 0 to 255"
    assert Preparation(32, 32, 3).in_words() == "colour, 32x32 pixels, other shapes cut about the centre"


def test_one_bright_picture_does_not_set_the_window_of_all():
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 4096, (200, 16, 16)).astype(np.uint16)
    arrays[7, :2] = 65535  # two lines
    low, high = load_images(arrays).preparation.window
    assert low < 50
    assert 4000 < high < 8000


def test_arrays_of_another_shape_are_other_images():
    values = np.random.default_rng(0).integers(0, 4096, (40, 16, 24)).astype(np.uint16)
    assert load_images(values).sha256 != load_images(values.reshape(40, 24, 16)).sha256


def test_a_window_that_nothing_needs_is_not_told_of(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        pixels = rng.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    plain, asked = load_images(tmp_path), load_images(tmp_path, window="0:100")
    assert asked.preparation.window is None
    assert asked.sha256 == plain.sha256
    Image.fromarray(rng.integers(0, 4096, (16, 16)).astype(np.uint16)).save(tmp_path / "0.png")
    mixed = load_images(tmp_path, window="0:4095")
    assert mixed.preparation.window == (0, 4095)
    assert dict(mixed.account.done) == {"more than 8 bits, scaled by a window": 1}


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_values_that_are_not_finite_are_no_part_of_the_window(odd, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.random((20, 20), np.float32) * 900 + 100
        pixels[0, 0] = odd
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.tif")
    images = load_images(tmp_path)
    low, high = images.preparation.window
    assert 90 < low < 110
    assert 990 < high < 1010
    corner = images.train[0, 0, 0, 0].item()
    assert corner == (255 if odd == np.inf else 0)
