"""Pictures in the files that Pillow reads, with what it gets wrong put right: PNG, JPEG, WebP, BMP, GIF, TIFF, PNM."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFile, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from .picture import SEVERAL, Picture, Undecodable, check_size, grey_if_it_is

EXIF = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))  # where Pillow finds an orientation
ORIENTATION, BITS, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 274, 258, 262, 284, 339  # tags of TIFF and EXIF


def opened(content: bytes, kind: str) -> ImageFile.ImageFile:
    """An image whose header was read, and found to be sound. Raises: Undecodable and others."""
    try:
        image: ImageFile.ImageFile
        if kind == "JPEG":  # without looking for its kind, which takes some of the time of a small picture
            image = JpegImagePlugin.jpeg_factory(io.BytesIO(content))
        else:
            image = Image.open(io.BytesIO(content), formats=(kind,))
    except (UnidentifiedImageError, SyntaxError):
        raise Undecodable(
            _unread_tiff(content) if kind == "TIFF" else "is damaged, or truncated in its header"
        ) from None
    check_size(*image.size)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        _check_tiff(image, content)
    return image


def _unread_tiff(content: bytes) -> str:
    """Why Pillow does not know what a TIFF file is."""
    file = io.BytesIO(content)
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if content[2:4] in (b"+\0", b"\0+") else 8))
    file.seek(tags.next)
    tags.load(file)
    if BITS not in tags:
        return "is damaged, or truncated in its header"
    bits = tags[BITS] if isinstance(tags[BITS], tuple) else (tags[BITS],)
    numbers = {2: "signed", 3: "floating-point"}.get(tags.get(SAMPLE_FORMAT, (1,))[0], "unsigned")
    return (
        f"is a TIFF of {len(bits)} x {bits[0]}-bit {numbers} values, which is not read: save it as 8-bit or 16-bit grey"
    )


def _check_tiff(image: TiffImagePlugin.TiffImageFile, content: bytes) -> None:
    """Kinds of which Pillow gives wrong values without a word. Raises: Undecodable."""
    deep, packed = image.mode in ("I", "F"), image.info.get("compression") != "raw"
    if deep and packed and content[:2] == b"MM":
        raise Undecodable("is a compressed big-endian TIFF of signed or floating-point values: save it uncompressed")
    if image.mode == "F" and image.tag_v2.get(PHOTOMETRIC, 0) == 0:
        raise Undecodable("is a floating-point TIFF in which less is brighter: save it with black as zero")
    if not packed and image.tag_v2.get(PLANES) == 2 and max(image.tag_v2.get(BITS, (1,))) > 8:
        raise Undecodable("is an uncompressed 16-bit TIFF with its colours apart: save them pixel by pixel")


def orientation_of(image: Image.Image) -> int:
    """1 to 8, as EXIF defines it. An EXIF entry that is broken counts as none: the pixels are sound."""
    if image.format != "TIFF" and EXIF.isdisjoint(image.info):
        return 1
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken in one of many ways
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """H x W x C as its EXIF orientation says that it is to be seen."""
    if orientation > 4:  # rows of the picture lie in columns
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def read_picture(content: bytes, kind: str, background: str, at_least: int | None) -> Picture:
    """The picture of a file that Pillow reads. Raises: Undecodable and others."""
    image = opened(content, kind)
    if at_least and kind == "JPEG" and min(image.size) >= 4 * at_least:  # smaller ones cannot be halved
        image.draft(None, (2 * at_least, 2 * at_least))
    orientation = orientation_of(image) if kind == "TIFF" else 1  # Pillow turns a TIFF, and then forgets that it did
    turned = orientation > 1
    maxval = image.tile[0][3] if kind == "PPM" else None
    if kind != "JPEG":  # the mode of a GIF, and what a PNG says behind its pixels, is known only now
        image.load()
    remarks: tuple[str, ...] = ()
    if image.mode[0] in "IF" or (kind == "TIFF" and _sample_format(image) == 2):
        pixels = _deep(image, maxval, background)
    else:
        pixels, remarks = _shallow(image, content, background)
    if kind != "TIFF" and (orientation := orientation_of(image)) > 1:
        pixels, turned = _upright(pixels, orientation), True
    if turned:
        remarks = ("turned upright by its EXIF entry", *remarks)
    if image.format != "JPEG" and _several(image):
        remarks = (*remarks, SEVERAL)
    return Picture(pixels, remarks)


def _several(image: Image.Image) -> bool:
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # there is something behind the first picture, and it is damaged
        return True


def _sample_format(image: Any) -> int:
    return image.tag_v2.get(SAMPLE_FORMAT, (1,))[0]


def _deep(image: Any, maxval: Any, background: str) -> np.ndarray:
    """Values of more than 8 bits, as they are in the file, as float32 H x W x 1."""
    values = np.asarray(image)
    if image.format == "TIFF":
        unsigned = _sample_format(image) == 1
        if image.mode == "L":
            values = values.view(np.int8)
        elif image.mode == "I" and unsigned and image.tag_v2.get(BITS, (1,))[0] == 32:
            values = values.view(np.uint32)
        elif image.mode == "I;16" and image.tag_v2.get(PHOTOMETRIC, 0) == 0:  # less is brighter
            values = 65535 - values
    elif isinstance(maxval, tuple) and isinstance(maxval[-1], int):  # Pillow has scaled them to 16 bits
        values = np.rint(values * (maxval[-1] / 65535))
    elif "transparency" in image.info:  # one value stands for nothing
        values = np.where(values == image.info["transparency"], 65535 if background == "white" else 0, values)
    return values.astype(np.float32)[..., None]


def _shallow(image: Image.Image, content: bytes, background: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """An image of 8 bits as uint8 H x W x 1 or 3, and what was done to it."""
    remarks: tuple[str, ...] = ()
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        pass
    elif image.has_transparency_data:
        image, remarks = _opaque(image, content, background)
    elif image.mode == "CMYK":
        if image.format in ("JPEG", "MPO") and "adobe" not in image.info:  # Pillow takes all for Adobe's, inverted
            image = ImageChops.invert(image)
        image, remarks = image.convert("RGB"), ("CMYK turned into RGB",)
    else:
        image = image.convert("L" if image.mode == "1" else "RGB")
    pixels = np.frombuffer(image.tobytes(), np.uint8)  # which np.asarray comes to, by a longer way
    return grey_if_it_is(pixels.reshape(image.height, image.width, *[3] * (image.mode == "RGB"))), remarks


def _opaque(image: Image.Image, content: bytes, background: str) -> tuple[Image.Image, tuple[str, ...]]:
    """An image with transparent pixels, laid over the background."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode in ("1", "L", "RGB") and transparent is not None:
        depth = content[24]  # Pillow has scaled the pixels to 8 bits, but not what stands for nothing
        if depth == 16 and image.mode == "RGB":
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
        elif depth < 8 and transparent < 2**depth:
            image.info["transparency"] = transparent * (255 // (2**depth - 1))
    if image.mode == "1":
        image = image.convert("L")
    image = image.convert("LA" if image.mode in ("L", "LA", "La") else "RGBA")
    alpha, opaque = image.getchannel("A"), image.convert(image.mode[:-1])
    if alpha.getextrema()[0] == 255:
        return opaque, ()
    under = Image.new(opaque.mode, opaque.size, background)
    under.paste(opaque, mask=alpha)
    return under, (f"transparent: laid over {background}",)
