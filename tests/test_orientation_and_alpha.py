"""Pictures are turned upright by EXIF, CMYK becomes RGB, and what is transparent is laid over a background."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from contrastive.data.decode import decode, shape_of
from contrastive.data.picture import Undecodable

from .picture_files import COLOUR, GREY, SOUND, chunk, lying, noise, pattern, png, saved

TURNED = "turned upright by its EXIF entry"


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


# --- CMYK ---------------------------------------------------------------------------------------------------------


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


# --- transparency -------------------------------------------------------------------------------------------------


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
