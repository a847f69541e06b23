"""Files of every kind become the pixels that other decoders, or a formula, find in them; what is no image is told."""

import numpy as np
import PIL
import pytest
from PIL import Image, features

from contrastive.data.decode import IMAGE_ENDINGS, decode, is_image, shape_of
from contrastive.data.picture import Undecodable

from .picture_files import COLOUR, GREY, SEVERAL, SOUND, lying, noise, pattern, reason, saved


def test_kinds_are_known_by_their_content():
    assert all(is_image(content[:132]) for content in SOUND.values())
    assert is_image(b"\0" * 128 + b"DICM")
    assert all(is_image(start + b"\0" * 128) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
    for other in (
        b"",
        b"P",
        b"Paris\n",
        b"BM is short for",
        b"RIFF\0\0\0\0WAVE",
        b"<html>",
        b"PK\3\4",
        b"P7\n",
        b"PF\n1",
    ):
        assert not is_image(other.ljust(132, b" "))
    assert {".png", ".jpeg", ".tif", ".dcm", ".pnm"} < IMAGE_ENDINGS
    assert all(ending == ending.lower() and ending[0] == "." for ending in IMAGE_ENDINGS)


def test_what_is_no_image_is_told():
    assert reason(b"") == "is empty"
    assert reason(b"\n <!DOCTYPE html><html>") == "is no image (HTML)"
    assert reason(b"<html><body>404") == "is no image (HTML)"
    assert reason(b"version https://git-lfs.github.com/spec/v1") == "is no image (a pointer of Git LFS)"
    assert reason(b"PK\3\4.....") == "is no image (ZIP)"
    assert "HEIC" in reason(b"\0\0\0\x18ftypheic")
    assert reason(b"\0" * 500) == reason(b"hello") == "is no image"
    with pytest.raises(Undecodable, match="empty"):
        shape_of(b"")
    assert reason(SOUND["jpeg"][: len(SOUND["jpeg"]) // 2]) == "is truncated"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "lossless WebP"])
@pytest.mark.parametrize("pixels", [noise(17, 23, 3), noise(17, 23)[..., None]], ids=["colour", "grey"])
def test_lossless_kinds_come_out_as_they_went_in(kind, pixels):
    name, options = ("WEBP", {"lossless": True}) if kind == "lossless WebP" else (kind, {})
    picture = decode(saved(pixels.squeeze(), name, **options))
    assert picture.remarks == ()
    assert picture.pixels.dtype == np.uint8
    assert np.array_equal(picture.pixels, pixels)


@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_is_what_another_decoder_finds(subsampling):
    io_ = pytest.importorskip("torchvision.io")
    torch = pytest.importorskip("torch")
    content = saved(pattern(60, 90), "JPEG", quality=90, subsampling=subsampling)
    other = io_.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    mine = decode(content).pixels
    assert mine.shape == (60, 90, 3)
    assert np.abs(mine.astype(int) - other).max() <= 3
    assert np.abs(mine.astype(int) - pattern(60, 90)).mean() < 3


# --- grey, colour and palettes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_grey_stored_as_colour_has_one_channel(kind):
    picture = decode(saved(np.dstack([GREY] * 3), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert picture.pixels.shape == (24, 40, 1)
    assert np.abs(picture.pixels[..., 0].astype(int) - GREY).max() <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("place", [(0, 0), (23, 39), (12, 20), (5, 7)])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_coloured_pixel_is_colour(place, channel):
    pixels = np.dstack([GREY] * 3)
    pixels[(*place, channel)] ^= 1
    assert np.array_equal(decode(saved(pixels, "PNG")).pixels, pixels)


def test_palettes_are_looked_up():
    palette, places = noise(256, 3), noise(9, 11, seed=1)
    image = Image.fromarray(places).convert("P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(decode(saved(image, "PNG")).pixels, palette[places])
    assert np.array_equal(decode(saved(image, "TIFF")).pixels, palette[places])
    image.putpalette(np.repeat(palette[:, :1], 3, axis=1).tobytes())
    assert np.array_equal(decode(saved(image, "PNG")).pixels, palette[places][..., :1])
    assert np.array_equal(decode(saved(image, "GIF")).pixels, palette[places][..., :1])


def test_black_and_white_is_grey():
    bits = noise(9, 11) > 100
    for kind in ("PNG", "TIFF", "PPM"):
        assert np.array_equal(decode(saved(Image.fromarray(bits), kind)).pixels[..., 0], bits * np.uint8(255))


def test_ycbcr_and_lab_tiffs():
    centre = Image.new("YCbCr", (4, 3), (100, 128, 228))  # by JFIF: R = Y + 1.402 * 100, G = Y - 0.714 * 100
    if int(PIL.__version__.split(".")[0]) > 11:  # version 11 reads four bytes of each pixel, and finds an end too early
        assert np.abs(decode(saved(centre, "TIFF")).pixels - np.array([240, 29, 100])).max() <= 1
    lab = Image.new("LAB", (4, 3), (138, 128 + 81, 128 + 70))  # L* 54, a* 81, b* 70 is the red of sRGB, nearly
    if features.check("littlecms2"):
        assert np.abs(decode(saved(lab, "TIFF")).pixels.astype(int) - np.array([255, 0, 0])).max() <= 25


# --- several pictures in a file, and large ones -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_pictures(kind):
    first, second = Image.fromarray(COLOUR).quantize(8).convert("RGB"), Image.fromarray(255 - COLOUR)
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = decode(saved(first, kind, save_all=True, append_images=[second], **options))
    assert picture.remarks == (SEVERAL,)
    assert np.array_equal(picture.pixels, np.asarray(first))
    assert decode(saved(first, kind, **options)).remarks == ()


def test_a_large_jpeg_is_decoded_smaller_but_never_too_small():
    large = saved(pattern(600, 800), "JPEG", quality=95)
    assert decode(large).pixels.shape == (600, 800, 3)
    for at_least, expected in (
        (32, (75, 100)),
        (37, (75, 100)),
        (38, (150, 200)),
        (150, (300, 400)),
        (151, (600, 800)),
    ):
        picture = decode(large, at_least=at_least)
        assert picture.pixels.shape[:2] == expected
        assert min(expected) >= 2 * at_least or expected == (600, 800)
        mean = pattern(600, 800).reshape(expected[0], 600 // expected[0], expected[1], -1, 3).mean((1, 3))
        assert np.abs(picture.pixels - mean).mean() < 2
    assert decode(SOUND["jpeg"], at_least=20).pixels.shape == (24, 40, 3)
    exif = Image.Exif()
    exif[274] = 6
    turned = saved(lying(pattern(600, 800), 6), "JPEG", exif=exif)
    assert decode(turned, at_least=38).pixels.shape == (150, 200, 3)
    assert shape_of(turned) == (600, 800)
