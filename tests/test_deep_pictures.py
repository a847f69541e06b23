"""Pictures of more than 8 bits a value: PNG, PGM and TIFF in all its layouts keep their levels, or are refused."""

import io
import re

import numpy as np
import pytest

from contrastive.data.decode import decode, shape_of
from contrastive.data.picture import Undecodable
from contrastive.data.preparation import Preparation

from .picture_files import SEVERAL, noise, png, reason, saved


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


# --- TIFF ---------------------------------------------------------------------------------------------------------


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
