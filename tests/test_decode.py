"""Files of every kind become the pixels that other decoders, or a formula, find in them; all others a reason."""

import contextlib
import io
import os
import re
import resource
import signal
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, features

from contrastive.data.decode import IMAGE_ENDINGS, decode, is_image, shape_of
from contrastive.data.picture import MAX_PIXELS, Picture, Undecodable
from contrastive.data.preparation import Preparation

TURNED = "turned upright by its EXIF entry"
SEVERAL = "several pictures: the first one"
# Where the first row and the first column of the stored pixels lie in the upright picture, as EXIF defines it
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def saved(image, kind, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def pattern(height=24, width=40, channels=3, seed=0):
    """Smooth and unsymmetrical, so that JPEG keeps it and no turning maps it onto itself."""
    y, x = np.mgrid[:height, :width]
    layers = [x * 200 // width + 20, y * 200 // height + 30, (2 * x + 3 * y) * 40 // (height + width) + seed]
    return np.stack(layers[:channels], axis=-1).astype(np.uint8)


def noise(*shape, dtype=np.uint8, seed=0):
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, *chunks):
    """A PNG made by hand: `rows` are the bytes of each row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND", b"")


def reason(content, **options):
    with pytest.raises(Undecodable) as caught:
        decode(content, **options)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert len(text) < 160
    return text


@pytest.fixture
def limited():
    """At most 1 GB more than now: what a bomb claims cannot be had, and would fail with another reason."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


GREY, COLOUR = pattern(channels=1)[..., 0], pattern()
SOUND = {
    "png": saved(COLOUR, "PNG"),
    "grey png": saved(GREY, "PNG"),
    "deep png": saved(noise(24, 40, dtype=np.uint16), "PNG"),
    "palette png": saved(Image.fromarray(COLOUR).quantize(16), "PNG", transparency=3),
    "rgba png": saved(np.dstack([COLOUR, GREY]), "PNG"),
    "jpeg": saved(COLOUR, "JPEG", quality=95),
    "grey jpeg": saved(GREY, "JPEG"),
    "progressive jpeg": saved(COLOUR, "JPEG", progressive=True),
    "cmyk jpeg": saved(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
    "bmp": saved(COLOUR, "BMP"),
    "webp": saved(COLOUR, "WEBP"),
    "lossless webp": saved(COLOUR, "WEBP", lossless=True),
    "gif": saved(Image.fromarray(COLOUR).quantize(32), "GIF"),
    "tiff": saved(COLOUR, "TIFF"),
    "lzw tiff": saved(COLOUR, "TIFF", compression="tiff_lzw"),
    "deflated tiff": saved(GREY, "TIFF", compression="tiff_adobe_deflate"),
    "float tiff": saved(GREY.astype(np.float32), "TIFF"),
    "pgm": saved(GREY, "PPM"),
    "ppm": saved(COLOUR, "PPM"),
}  # fmt: skip


# Kinds


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


# Depth


def test_a_ramp_of_16_bits_keeps_its_levels():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for content in (saved(ramp, "PNG"), saved(ramp, "TIFF"), saved(ramp, "TIFF", compression="tiff_lzw")):
        picture = decode(content)
        assert picture.pixels.dtype == np.float32
        assert np.array_equal(picture.pixels[..., 0], ramp)
        levels = Preparation(256, 256, 1, window=(0, 65535))(picture)
        assert len(np.unique(levels)) >= 250


@pytest.mark.parametrize("maxval", [65535, 4095, 1000, 256])
@pytest.mark.parametrize("plain", [False, True])
def test_deep_pgm(maxval, plain):
    values = np.random.default_rng(0).integers(0, maxval + 1, (13, 7))
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes()
    picture = decode(b"P%d\n# made by hand\n7 13\n%d\n" % (2 if plain else 5, maxval) + body)
    assert picture.pixels.dtype == np.float32
    assert np.array_equal(picture.pixels[..., 0], values)


def test_colour_of_16_bits_is_cut_to_8():
    values = noise(5, 6, 3, dtype=np.uint16)
    picture = decode(png(6, 5, 16, 2, [row.astype(">u2").tobytes() for row in values]))
    assert np.array_equal(picture.pixels, values >> 8)


READABLE = {  # kinds of grey values, big-endian and packed
    *[(t, order, packed) for t in ("u1", "i1", "u2", "f4", "i2", "i4") for order in "<>" for packed in (False, True)],
    ("u4", "<", False), ("u4", "<", True),
} - {(t, ">", True) for t in ("i2", "i4", "f4")}  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["grey", "less is brighter", "tiles", "colour", "colours apart", "alpha"])
@pytest.mark.parametrize("values", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8"])
def test_tiff_is_what_another_decoder_finds_or_refused(values, layout, packed, order):
    tifffile = pytest.importorskip("tifffile")
    dtype = np.dtype(values)
    shape = {"colour": (18, 33, 3), "colours apart": (3, 18, 33), "alpha": (18, 33, 4)}.get(layout, (18, 33))
    stored = noise(*shape, dtype=dtype) if dtype.kind in "iu" else noise(*shape).astype(dtype) * 1.5 - 7
    how = {
        "grey": {}, "tiles": {"tile": (16, 16)}, "less is brighter": {"photometric": "miniswhite"},
        "colour": {"photometric": "rgb"}, "colours apart": {"photometric": "rgb", "planarconfig": "separate"},
        "alpha": {"photometric": "rgb", "extrasamples": ["unassalpha"]},
    }[layout]  # fmt: skip
    if layout == "alpha":
        stored[..., 3] = np.iinfo(dtype).max if dtype.kind in "iu" else 1
    file = io.BytesIO()
    tifffile.imwrite(
        file, stored, **{"photometric": "minisblack", **how}, byteorder=order, compression="zlib" if packed else None
    )
    other = tifffile.imread(io.BytesIO(file.getvalue()))
    try:
        mine = decode(file.getvalue()).pixels
    except Undecodable:
        assert layout not in ("grey", "tiles") or (values, order, packed) not in READABLE
        assert values != "u1"
        assert re.search("TIFF (of|in which|with its colours apart)", reason(file.getvalue()))
        return
    assert mine.dtype == (np.uint8 if values == "u1" or mine.shape[2] == 3 else np.float32)
    other = {"colours apart": np.moveaxis(other, 0, -1), "alpha": other[..., :3]}.get(layout, other)
    if layout == "less is brighter":
        other = np.iinfo(dtype).max - other
    if mine.shape[2] == 3:
        other = other >> (8 * (dtype.itemsize - 1))
    assert np.array_equal(np.atleast_3d(other).astype(mine.dtype), mine)
    assert shape_of(file.getvalue()) == mine.shape[:2]


def test_tiff_of_many_channels_is_refused_in_silence(capfd):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, noise(9, 8, 12), photometric="minisblack", planarconfig="contig")
    assert "TIFF of 12 x 8-bit unsigned values" in reason(file.getvalue())
    assert capfd.readouterr() == ("", "")


def test_bigtiff_of_several_pages():
    tifffile = pytest.importorskip("tifffile")
    pages = noise(3, 20, 30, dtype=np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, pages, bigtiff=True, photometric="minisblack")
    picture = decode(file.getvalue())
    assert np.array_equal(picture.pixels[..., 0], pages[0])
    assert picture.remarks == (SEVERAL,)


# EXIF


def lying(upright, orientation):
    """How an upright picture is stored by a camera that was held in another way."""
    rows, columns = SIDES[orientation]
    stored = upright.swapaxes(0, 1) if rows in ("left", "right") else upright
    stored = stored[::-1] if rows in ("bottom", "right") else stored
    return np.ascontiguousarray(stored[:, ::-1] if columns in ("right", "bottom") else stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "LZW", "deep PNG", "deep TIFF"])
def test_all_orientations_become_upright(kind, orientation):
    upright = noise(12, 20, dtype=np.uint16) if "deep" in kind else pattern(24, 40)
    name = {"LZW": "TIFF"}.get(kind, kind.removeprefix("deep "))
    options = {"JPEG": {"quality": 98}, "WEBP": {"lossless": True}, "LZW": {"compression": "tiff_lzw"}}.get(kind, {})
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(lying(upright, orientation), name, exif=exif, **options)
    picture = decode(content)
    assert picture.remarks == ((TURNED,) if orientation > 1 else ())
    assert picture.pixels.shape[:2] == upright.shape[:2] == shape_of(content)
    assert np.abs(picture.pixels.squeeze().astype(float) - upright).max() <= (12 if kind == "JPEG" else 0)


def test_exif_behind_the_pixels_of_a_png():
    exif = Image.Exif()
    exif[274] = 6
    content = saved(lying(COLOUR, 6), "PNG")
    content = content[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[-12:]
    assert np.array_equal(decode(content).pixels, COLOUR)
    assert shape_of(content) == COLOUR.shape[:2]


@pytest.mark.parametrize(
    "block", [b"", b"nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_leaves_the_pixels(kind, block):
    options = {"lossless": True} if kind == "WEBP" else {}
    whole = saved(COLOUR, kind, exif=b"Exif\0\0" + block, **options)
    assert np.array_equal(decode(whole).pixels, decode(saved(COLOUR, kind, **options)).pixels)
    assert decode(whole).remarks == ()
    assert shape_of(whole) == (24, 40)


@pytest.mark.parametrize("at", [0, 5, 40, 99999, 2**32 - 1])
@pytest.mark.parametrize("packed", [False, True])
def test_broken_exif_in_tiff(packed, at):
    tifffile = pytest.importorskip("tifffile")
    file, compression = io.BytesIO(), "zlib" if packed else None
    tags = [(274, "H", 1, 6, True), (34001, "I", 1, at, True)]
    tifffile.imwrite(file, lying(COLOUR, 6), photometric="rgb", compression=compression, extratags=tags)
    named = struct.pack("<HHI", 34001, 4, 1), struct.pack("<HHI", 34665, 4, 1)  # the latter says where EXIF begins
    content = file.getvalue().replace(*named)
    assert content != file.getvalue()
    assert decode(content).remarks == (TURNED,)
    assert np.array_equal(decode(content).pixels, COLOUR)


def test_orientation_that_does_not_exist():
    for orientation in (0, 9, 65535):
        exif = Image.Exif()
        exif[274] = orientation
        for kind in ("PNG", "TIFF"):
            picture = decode(saved(COLOUR, kind, exif=exif))
            assert np.array_equal(picture.pixels, COLOUR)
            assert picture.remarks == ()


# CMYK


def ink_on_paper(inks):
    inks = inks.astype(float)
    return (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255


def test_cmyk_of_adobe_plain_and_tiff():
    inks = np.stack([pattern()[..., 0], pattern()[..., 1], 255 - pattern()[..., 0], pattern()[..., 2]], axis=-1)
    adobe = saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=98, subsampling=0)
    at = adobe.index(b"\xff\xee")
    assert adobe[at + 4 : at + 9] == b"Adobe"
    inverted = saved(Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=98, subsampling=0)
    plain = inverted[:at] + inverted[at + 2 + int.from_bytes(inverted[at + 2 : at + 4], "big") :]
    assert b"Adobe" not in plain
    for content in (adobe, plain, saved(Image.fromarray(inks, "CMYK"), "TIFF")):
        picture = decode(content)
        assert picture.remarks == ("CMYK turned into RGB",)
        assert np.abs(picture.pixels - ink_on_paper(inks)).max() <= 12
        assert np.abs(picture.pixels - ink_on_paper(inks)).mean() < 1.5


# Transparency


def over(pixels, alpha, background):
    share = alpha.astype(float)[..., None] / 255
    return np.atleast_3d(pixels) * share + {"white": 255, "black": 0}[background] * (1 - share)


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_pixels_are_laid_over_the_background(kind, background):
    colour, alpha = noise(9, 14, 3), noise(9, 14, seed=1)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    images = {"rgba": (np.dstack([colour, alpha]), colour)}
    if kind == "PNG":
        images["la"] = (np.dstack([colour[..., 0], alpha]), colour[..., :1])
    if kind == "PNG":
        images["grey rgba"] = (np.dstack([colour[..., :1]] * 3 + [alpha]), colour[..., :1])
    for stored, seen in images.values():
        picture = decode(saved(stored, kind, **options), background)
        assert picture.remarks == (f"transparent: laid over {background}",)
        assert picture.pixels.shape == seen.shape
        assert np.abs(picture.pixels - over(seen, alpha, background)).max() <= 1


def test_opaque_alpha_is_dropped():
    alpha = np.full(GREY.shape, 255, np.uint8)
    assert decode(saved(np.dstack([COLOUR, alpha]), "PNG")).remarks == ()
    assert np.array_equal(decode(saved(np.dstack([COLOUR, alpha]), "PNG"), "black").pixels, COLOUR)
    assert np.array_equal(decode(saved(np.dstack([GREY, alpha]), "PNG"), "black").pixels[..., 0], GREY)


@pytest.mark.parametrize("background", ["white", "black"])
def test_transparent_palettes(background):
    palette, alphas, places = noise(4, 3), np.array([255, 0, 128, 7], np.uint8), noise(8, 8, seed=2) % 4
    image = Image.fromarray(places).convert("P")
    image.putpalette(palette.tobytes())
    picture = decode(saved(image, "PNG", transparency=alphas.tobytes()), background)
    assert np.abs(picture.pixels - over(palette[places], alphas[places], background)).max() <= 1
    assert picture.remarks == (f"transparent: laid over {background}",)
    one = np.where(places == 2, 0, 255)
    for kind in ("PNG", "GIF"):
        picture = decode(saved(image, kind, transparency=2), background)
        assert np.array_equal(picture.pixels, over(palette[places], one, background))


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_one_grey_that_stands_for_nothing(depth, background):
    top = 2**depth - 1
    values = np.random.default_rng(0).integers(0, top + 1, (6, 16))
    key = int(values[2, 3])
    packed = [
        row.astype(">u2").tobytes() if depth == 16 else
        int("".join(f"{v:0{depth}b}" for v in row), 2).to_bytes(2 * depth, "big") for row in values
    ]  # fmt: skip
    picture = decode(png(16, 6, depth, 0, packed, chunk(b"tRNS", struct.pack(">H", key))), background)
    scale = 1 if depth == 16 else 255 // top
    expected = np.where(values == key, {"white": 65535 if depth == 16 else 255, "black": 0}[background], values * scale)
    assert np.array_equal(picture.pixels[..., 0], expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_one_colour_that_stands_for_nothing(depth):
    values = noise(5, 6, 3, dtype=np.uint8 if depth == 8 else np.uint16)
    key = values[1, 2].tolist()
    rows = [row.astype(f">u{depth // 8}").tobytes() for row in values]
    picture = decode(png(6, 5, depth, 2, rows, chunk(b"tRNS", struct.pack(">3H", *key))))
    expected = values >> (depth - 8)
    expected[1, 2] = 255
    assert np.array_equal(picture.pixels, expected)


def test_unknown_background_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="unknown background") as caught:
        decode(SOUND["png"], "blue")
    assert not isinstance(caught.value, Undecodable)


# Several pictures; large ones


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


@pytest.mark.usefixtures("limited")
def test_bombs_are_refused_by_their_headers():
    assert reason(png(60000, 60000, 8, 0, [b""])) == "has more than 67 million pixels"
    assert reason(png(9000, 8000, 8, 2, [b""])) == "has 72 million pixels, more than 67"
    assert reason(png(8193, 8192, 8, 0, [b""])) == "has 68 million pixels, more than 67"
    for content in (png(60000, 60000, 8, 0, [b""]), png(9000, 8000, 8, 0, [b""])):
        with pytest.raises(Undecodable, match="more than 67"):
            shape_of(content)
    text = zlib.compress(b"\0" * 2**28, 9)
    assert reason(png(2, 2, 8, 0, [b"ab", b"cd"], chunk(b"zTXt", b"Comment\0\0" + text)))
    assert "more than 67" in reason(b"P6 20000 20000 255\n" + b"\0" * 99)
    assert "more than 67" in reason(b"GIF89a" + struct.pack("<HHBBB", 50000, 50000, 0x80, 0, 0) + SOUND["gif"][13:])
    jpeg = bytearray(SOUND["jpeg"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    assert "more than 67" in reason(bytes(jpeg))
    webp = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + (16382).to_bytes(3, "little") * 2
    assert reason(b"RIFF" + struct.pack("<I", len(webp) + 4) + b"WEBP" + webp)
    tags = [
        (256, 60000),
        (257, 60000),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 60000),
        (279, 3600000000),
    ]
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    assert "more than 67" in reason(b"II*\0" + struct.pack("<I", 8) + ifd + b"\0\0\0\0")


def test_as_many_pixels_as_are_allowed():
    assert MAX_PIXELS == 2**26
    assert shape_of(png(8192, 8192, 1, 0, [b""])) == (8192, 8192)


# Damage


@pytest.mark.parametrize("name", SOUND)
def test_truncated_files_are_refused(name):
    content = SOUND[name]
    whole = decode(content)
    assert shape_of(content) == whole.pixels.shape[:2]
    for n in sorted({*range(1, len(content), 1 + len(content) // 60), *range(len(content) - 40, len(content))}):
        with contextlib.suppress(Undecodable):
            assert np.array_equal(decode(content[:n]).pixels, whole.pixels)
            assert n > 0.75 * len(content)  # what ends a file, such as a checksum, may be lacking if no pixel does


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


def attacked(content, rng):
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place = (
            int(rng.integers(0, len(damaged))) if rng.random() < 0.5 else int(rng.integers(0, min(300, len(damaged))))
        )
        damaged[place] = int(rng.integers(0, 256))
    return bytes(damaged[: rng.integers(1, len(damaged) + 1)] if rng.random() < 0.1 else damaged)


def survives(content):
    """Whether a file gives a picture; anything but a picture or a reason fails."""
    with contextlib.suppress(Undecodable):
        shape_of(content)
    try:
        picture = decode(content)
    except Undecodable:
        return False
    assert isinstance(picture, Picture)
    assert picture.pixels.ndim == 3
    assert picture.pixels.shape[2] in (1, 3)
    assert picture.pixels.dtype in (np.uint8, np.float32)
    return True


@pytest.mark.parametrize("name", SOUND)
def test_flipped_bytes_give_a_picture_or_a_reason(name, capfd):
    rng = np.random.default_rng(7)
    outcomes = [survives(attacked(SOUND[name], rng)) for _ in range(150)]
    assert False in outcomes  # a PNG has a checksum, so that there may be no picture at all
    assert True in outcomes or "png" in name
    if name not in ("lzw tiff", "deflated tiff"):  # libtiff itself writes what is wrong with a damaged file
        assert capfd.readouterr() == ("", "")


# Warnings


def warning_files():
    """Sound files of which Pillow warns: too many bytes for a tag, a palette with bytes of transparency."""
    palette = Image.fromarray(COLOUR).quantize(8)
    yield saved(palette, "PNG", transparency=bytes(range(0, 80, 10)))
    tiff = bytearray(saved(COLOUR, "TIFF", software="x" * 40))
    ifd = int.from_bytes(tiff[4:8], "little")
    for i in range(int.from_bytes(tiff[ifd : ifd + 2], "little")):
        at = ifd + 2 + 12 * i
        if tiff[at : at + 2] == (305).to_bytes(2, "little"):
            tiff[at + 8 : at + 12] = b"\xff\xff\xff\x00"
    yield bytes(tiff)


def test_warnings_are_neither_printed_nor_errors(capfd):
    files = list(warning_files())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(files[0])).convert("RGB")
        Image.open(io.BytesIO(files[1])).load()
    assert len(seen) >= 2  # or this tests nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        for content in files:
            assert decode(content).pixels.shape == (24, 40, 3)
            assert shape_of(content) == (24, 40)
        reason(b"\x89PNG\r\n\x1a\n")
        assert warnings.filters == before
        with pytest.raises(UserWarning):
            warnings.warn("still an error", stacklevel=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_warnings_in_threads_and_forks():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # newer Pythons warn of forks beside threads
        before, failed, files = list(warnings.filters), [], list(warning_files())

        def work():
            try:
                for _ in range(60):
                    for content in files:
                        decode(content)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        statuses = []
        for _ in range(5):
            if (child := os.fork()) == 0:
                signal.alarm(20)
                os._exit(0 if decode(files[1]).pixels.shape == (24, 40, 3) and warnings.filters == before else 1)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        for thread in threads:
            thread.join()
        assert failed == []
        assert statuses == [0] * 5
        assert warnings.filters == before


# DICOM


@pytest.fixture
def pydicom():
    return pytest.importorskip("pydicom", minversion="3")


def dicom(pixels, syntax="1.2.840.10008.1.2.1", **attributes):
    """A DICOM file made by hand, and what pydicom holds of it. pixels: frames x H x W or H x W, with or without x 3."""
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    bits = 8 * pixels.itemsize
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    if pixels.ndim - colour == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 3 if colour else 1, int(pixels.dtype.kind == "i")
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue(), dataset


OWN, PERCENTILES = "DICOM: its own window", "DICOM without a window: 0.5 to 99.5 % of its values"
WINDOWS = [
    {"WindowCenter": 40, "WindowWidth": 400}, {"WindowCenter": 40.5, "WindowWidth": 1},
    {"WindowCenter": [-600, 40], "WindowWidth": [1500, 400]},
    {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
]  # fmt: skip


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1024}])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_dicom_by_its_own_window(pydicom, dtype, rescale, window):
    from pydicom.pixels import apply_modality_lut, apply_windowing

    stored = np.random.default_rng(0).integers(-900 if dtype == np.int16 else 0, 1800, (20, 30)).astype(dtype)
    content, dataset = dicom(stored, **rescale, **window)
    picture = decode(content)
    low, high = apply_modality_lut(np.array([np.iinfo(dtype).min, np.iinfo(dtype).max]), dataset)
    theirs = apply_windowing(apply_modality_lut(stored, dataset), dataset)  # over all values that there can be
    assert picture.remarks == (OWN,)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape == (20, 30, 1)
    assert np.abs(picture.pixels[..., 0] - (theirs - low) / (high - low) * 255).max() <= 0.51
    assert len(np.unique(picture.pixels)) > 1
    assert shape_of(content) == (20, 30)


def test_dicom_by_its_own_table(pydicom):
    from pydicom.dataset import Dataset

    stored = noise(20, 30, dtype=np.uint8).astype(np.uint16)
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [200, 20, 12], (np.sqrt(np.arange(200) / 199) * 4095).astype("<u2").tobytes()
    content, _ = dicom(stored, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    picture = decode(content)
    expected = np.frombuffer(table.LUTData, "<u2")[np.clip(stored.astype(int) - 20, 0, 199)] * (255 / 4095)
    assert picture.remarks == (OWN,)
    assert np.abs(picture.pixels[..., 0] - expected).max() <= 0.51


@pytest.mark.parametrize("padding", [None, -2000, (-2000, -1990)])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": "", "WindowWidth": ""}])
def test_dicom_without_a_window(pydicom, window, padding):
    stored = np.random.default_rng(0).normal(300, 80, (40, 50)).astype(np.int16)
    own = stored.copy()
    padded = np.zeros(stored.shape, bool)
    if padding is not None:
        window = window | {"PixelPaddingValue": -2000}
        padded[:15] = True
        stored[:15] = -2000
    if isinstance(padding, tuple):
        window = window | {"PixelPaddingRangeLimit": -1990}
        stored[3:9] = -1995
    picture = decode(dicom(stored, RescaleSlope=0.5, RescaleIntercept=10, **window)[0])
    low, high = np.percentile(own[~padded] * 0.5 + 10, (0.5, 99.5))
    expected = np.clip((stored * 0.5 + 10 - low) / (high - low), 0, 1) * 255
    assert picture.remarks == (PERCENTILES,)
    assert np.abs(picture.pixels[..., 0] - expected).max() <= 0.51


def test_dicom_of_few_values(pydicom):
    mask = np.zeros((100, 100), np.uint8)
    mask[4, 5:8] = 1
    assert np.array_equal(decode(dicom(mask)[0]).pixels[..., 0], mask * 255)
    assert np.ptp(decode(dicom(mask * 0 + 7)[0]).pixels) == 0


def test_dicom_negatives_are_turned(pydicom):
    stored = noise(20, 30, dtype=np.uint16)
    for window in ({}, {"WindowCenter": 30000, "WindowWidth": 40000}):
        plain = decode(dicom(stored, **window)[0])
        negative = decode(dicom(stored, PhotometricInterpretation="MONOCHROME1", **window)[0])
        assert np.array_equal(negative.pixels, 255 - plain.pixels)
        assert negative.remarks == (*plain.remarks, "DICOM, MONOCHROME1: turned from negative")


def test_dicom_in_colour(pydicom):
    from pydicom.pixels import convert_color_space

    assert np.array_equal(decode(dicom(COLOUR)[0]).pixels, COLOUR)
    deep = noise(9, 7, 3, dtype=np.uint16)
    assert np.array_equal(decode(dicom(deep)[0]).pixels, deep >> 8)
    luminance = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    picture = decode(dicom(luminance, PhotometricInterpretation="YBR_FULL")[0])
    assert np.abs(picture.pixels.astype(int) - COLOUR).max() <= 2
    assert picture.remarks == ()
    assert decode(dicom(np.dstack([GREY] * 3))[0]).pixels.shape == (24, 40, 1)
    assert "colours" in reason(dicom(COLOUR, PhotometricInterpretation="HSV")[0])


@pytest.mark.parametrize("bits", [8, 16])
def test_dicom_with_a_palette(pydicom, bits):
    tables = noise(3, 256, dtype=np.uint8 if bits == 8 else np.uint16)
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        palette[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    expected = np.moveaxis(tables[:, GREY] >> (bits - 8), 0, -1)
    assert np.array_equal(decode(dicom(GREY, **palette)[0]).pixels, expected)


def test_dicom_of_several_frames_with_functional_groups(pydicom):
    from pydicom.dataset import Dataset

    frames = noise(3, 20, 30, dtype=np.uint16) % 1000
    window, rescale, groups = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = 100, 800, "LINEAR_EXACT"
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -500
    groups.FrameVOILUTSequence, groups.PixelValueTransformationSequence = [window], [rescale]
    picture = decode(dicom(frames, SharedFunctionalGroupsSequence=[groups])[0])
    expected = np.clip((frames[0] * 2.0 - 500 + 300) / 800, 0, 1) * 255
    assert picture.remarks == (OWN, SEVERAL)
    assert np.abs(picture.pixels[..., 0] - expected).max() <= 0.51


def test_packed_dicom(pydicom):
    from pydicom.dataset import Dataset
    from pydicom.pixels import pixel_array
    from pydicom.uid import RLELossless

    stored = noise(20, 30, dtype=np.uint16)
    plain, dataset = dicom(stored)
    assert isinstance(dataset, Dataset)
    dataset.compress(RLELossless)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    assert np.array_equal(pixel_array(dataset), stored)
    assert np.array_equal(decode(file.getvalue()).pixels, decode(plain).pixels)
    deflated = "1.2.840.10008.1.2.1.99"
    assert np.array_equal(decode(dicom(stored, deflated)[0]).pixels, decode(plain).pixels)


def test_shipped_dicom_files(pydicom, capfd):
    """Of files that pydicom is tested with, those that it finds pixels in; no word but the reason of any other."""
    from pydicom.pixels import pixel_array

    read, refused = 0, []
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if content[128:132] != b"DICM":
                continue
            try:
                picture = decode(content)
                assert picture.pixels.dtype == np.uint8
                assert shape_of(content) == picture.pixels.shape[:2]
                read += 1
            except Undecodable as error:
                refused.append((path, str(error)))
    assert capfd.readouterr() == ("", "")
    assert read >= 60
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, _ in refused:
            with pytest.raises(Exception):  # noqa: B017 - whatever pydicom says
                pixel_array(path)
    told = {path.name: text for path, text in refused}
    assert "JPEG-LS Lossless" in told["MR_small_jpeg_ls_lossless.dcm"]
    assert "decoder" in told["MR_small_jpeg_ls_lossless.dcm"]
    assert told["MR_truncated.dcm"] == "is truncated"
    assert told["rtplan.dcm"] == "is DICOM without a picture"


def test_dicom_that_looks_like_tiff(pydicom):
    content, _ = dicom(noise(9, 9))
    assert np.array_equal(decode(b"II*\0" + content[4:]).pixels, decode(content).pixels)


def test_dicom_without_pydicom(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for call in (decode, shape_of):
        with pytest.raises(Undecodable, match=r"^needs pydicom: install contrastive\[dicom\]$"):
            call(b"\0" * 128 + b"DICM" + b"\0" * 20)


@pytest.mark.usefixtures("limited")
def test_dicom_bombs(pydicom):
    small = noise(2, 2)
    assert "more than 67" in reason(dicom(small, Rows=60000, Columns=60000)[0])
    content, _ = dicom(small, "1.2.840.10008.1.2.1.99")
    start = 144 + int.from_bytes(content[140:144], "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = content[:start] + b"".join(deflate.compress(b"\0" * 2**24) for _ in range(17)) + deflate.flush()
    assert len(bomb) < 2**20
    assert "unpacks to more than 268 MB" in reason(bomb)
    lying_length = bomb[:140] + b"\xff\xff\xff\x7f" + bomb[144:]  # of the part that names how the rest is packed
    assert "unpacks to more than 268 MB" in reason(lying_length)
    from pydicom.encaps import encapsulate

    jpeg = bytearray(saved(GREY, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 9000, 9000)
    content, _ = dicom(GREY, "1.2.840.10008.1.2.4.50", PixelData=encapsulate([bytes(jpeg)]))
    assert "more than 67" in reason(content)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"])
def test_damaged_dicom(pydicom, syntax, capfd):
    content, _ = dicom(noise(16, 16, dtype=np.uint16), syntax, WindowCenter=30000, WindowWidth=9000)
    assert decode(content).remarks == (OWN,)
    for share in (0.25, 0.5, 0.75, 0.9, 0.99):
        reason(content[: int(len(content) * share)])
    rng = np.random.default_rng(3)
    assert {survives(content[:132] + attacked(content[132:], rng)) for _ in range(150)} == {True, False}
    assert capfd.readouterr() == ("", "")
