"""Files of pictures: sound ones of every kind, some made by hand, damaged ones, and what has to come of them."""

import contextlib
import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrastive.data.decode import decode, shape_of
from contrastive.data.picture import Picture, Undecodable

SEVERAL = "several pictures: the first one"
# Where the first row and the first column of the stored pixels lie in the upright picture, as EXIF defines it
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def saved(image, kind, **options):
    """The bytes of a file in which Pillow saves an image or an array."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def pattern(height=24, width=40, channels=3, seed=0):
    """Smooth and unsymmetrical, so that JPEG keeps it and no turning maps it onto itself."""
    y, x = np.mgrid[:height, :width]
    layers = [x * 200 // width + 20, y * 200 // height + 30, (2 * x + 3 * y) * 40 // (height + width) + seed]
    return np.stack(layers[:channels], axis=-1).astype(np.uint8)


def noise(*shape, dtype=np.uint8, seed=0):
    """Random values from all that a type can hold."""
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def lying(upright, orientation):
    """How an upright picture is stored by a camera that was held in another way."""
    rows, columns = SIDES[orientation]
    stored = upright.swapaxes(0, 1) if rows in ("left", "right") else upright
    stored = stored[::-1] if rows in ("bottom", "right") else stored
    return np.ascontiguousarray(stored[:, ::-1] if columns in ("right", "bottom") else stored)


def chunk(name, data):
    """A part of a PNG file, with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, rows, *chunks):
    """A PNG made by hand: `rows` are the bytes of each row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + body + chunk(b"IEND", b"")


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


def reason(content, **options):
    """Why a file cannot be decoded: one short line. A file that can be decoded fails."""
    with pytest.raises(Undecodable) as caught:
        decode(content, **options)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert len(text) < 160
    return text


def attacked(content, rng):
    """The content with up to five bytes changed, half of them near its start; one time in ten it is cut, too."""
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


@pytest.fixture
def limited():
    """At most 1 GB more than now: what a bomb claims cannot be had, and would fail with another reason."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
