"""From the bytes of an image file to a picture, whatever its kind; nothing that the file claims is trusted."""

from __future__ import annotations

from PIL import Image

from .dicom import dicom_shape, read_dataset_of, read_dicom
from .picture import BACKGROUNDS, MAX_PIXELS, Picture, Undecodable
from .quiet import quiet
from .raster import opened, orientation_of, read_picture

IMAGE_ENDINGS = frozenset((
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".ppm", ".pnm",
    ".dcm", ".dicom",
))  # fmt: skip
STARTS = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
)  # fmt: skip
NO_IMAGES = (
    (b"%PDF", "PDF"), (b"PK\3\4", "ZIP"), (b"\x1f\x8b", "gzip"), (b"\x89HDF", "HDF5"), (b"\x93NUMPY", "NumPy"),
    (b"<!doctype html", "HTML"), (b"<html", "HTML"), (b"version https://git-lfs", "a pointer of Git LFS"),
)  # fmt: skip
OTHER_IMAGES = (
    (b"\0\0\0\x0cjp  ", "JPEG 2000"), (b"\xff\x4f\xff\x51", "JPEG 2000"), (b"8bps", "Photoshop"), (b"<svg", "SVG"),
)  # fmt: skip


def decode(content: bytes, background: str = "white", at_least: int | None = None) -> Picture:
    """The picture that a file holds, or the first one of several.

    Args:
        content: of a PNG, JPEG, WebP, BMP, GIF, TIFF, PGM, PPM or DICOM file; its name plays no part.
        background: what shows through where the picture is transparent, "white" or "black".
        at_least: pixels that its shorter side has to keep twice over. A large JPEG is then decoded at a half, a quarter
            or an eighth of its size, which is faster.

    Raises: Undecodable.
    """
    if background not in BACKGROUNDS:
        raise ValueError(f"unknown background {background!r}")
    kind = _kind(content)
    if kind is None:
        raise Undecodable(_what_else(content))
    with quiet:
        try:
            return read_dicom(content) if kind == "DICOM" else read_picture(content, kind, background, at_least)
        except Undecodable:
            raise
        except Exception as error:  # decoders raise many things
            raise Undecodable(_reason(error)) from None


def shape_of(content: bytes) -> tuple[int, int]:
    """Height and width of the picture that `decode` gives without `at_least`, without decoding a pixel (but of a PNG
    whose EXIF entry lies behind its pixels). Raises: Undecodable."""
    kind = _kind(content)
    if kind is None:
        raise Undecodable(_what_else(content))
    with quiet:
        try:
            if kind == "DICOM":
                return dicom_shape(read_dataset_of(content, stop_before_pixels=True))
            image = opened(content, kind)
            if kind == "PNG" and "exif" not in image.info and b"eXIf" in content:
                image.load()
            turned = kind != "TIFF" and orientation_of(image) > 4  # of a TIFF Pillow tells the turned size
            return image.size if turned else (image.height, image.width)
        except Undecodable:
            raise
        except Exception as error:  # decoders raise many things
            raise Undecodable(_reason(error)) from None


def is_image(start: bytes) -> bool:
    """Whether a file is of a kind that `decode` reads, by its first 132 bytes or more."""
    return _kind(start) is not None


def _kind(content: bytes) -> str | None:
    """Pillow's name for the kind of a file, or DICOM."""
    if content[128:132] == b"DICM":  # before TIFF: some files are both, and say more as DICOM
        return "DICOM"
    for start, kind in STARTS:
        if content.startswith(start):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[:2] == b"BM" and int.from_bytes(content[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        return "BMP"
    if content[:1] == b"P" and content[1:2] in tuple(b"%d" % n for n in range(1, 7)) and content[2:3].isspace():
        return "PPM"
    return None


def _what_else(content: bytes) -> str:
    """Why a file of an unknown kind is not read."""
    if not content:
        return "is empty"
    start = content[:256].lstrip().lower() if content[:1] != b"\0" else content[:256].lower()
    named = [name for known, name in NO_IMAGES if start.startswith(known.lower())]
    if named:
        return f"is no image ({named[0]})"
    named = [name for known, name in OTHER_IMAGES if start.startswith(known)]
    if start[4:8] == b"ftyp":
        named = ["HEIC or AVIF"]
    return f"is an image of a kind that is not read ({named[0]}): save it as PNG or JPEG" if named else "is no image"


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS / 1e6:.0f} million pixels"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    text = str(error).lower()
    cut = isinstance(error, EOFError) or any(
        word in text for word in ("truncated", "not enough image data", "eof", "less than expected")
    )
    return "is truncated" if cut else f"is damaged ({type(error).__name__})"
