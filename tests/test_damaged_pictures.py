"""Truncated files, flipped bytes and decompression bombs give a reason, at little cost; warnings stay unseen."""

import contextlib
import io
import os
import signal
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from contrastive.data.decode import decode, shape_of
from contrastive.data.picture import MAX_PIXELS, Undecodable

from .picture_files import COLOUR, SOUND, attacked, chunk, limited, png, reason, saved, survives  # noqa: F401 - a fixture


@pytest.mark.parametrize("name", SOUND)
def test_truncated_files_are_refused(name):
    content = SOUND[name]
    whole = decode(content)
    assert shape_of(content) == whole.pixels.shape[:2]
    for n in sorted({*range(1, len(content), 1 + len(content) // 60), *range(len(content) - 40, len(content))}):
        with contextlib.suppress(Undecodable):
            assert np.array_equal(decode(content[:n]).pixels, whole.pixels)
            assert n > 0.75 * len(content)  # what ends a file, such as a checksum, may be lacking if no pixel does


@pytest.mark.parametrize("name", SOUND)
def test_flipped_bytes_give_a_picture_or_a_reason(name, capfd):
    rng = np.random.default_rng(7)
    outcomes = [survives(attacked(SOUND[name], rng)) for _ in range(150)]
    assert False in outcomes  # a PNG has a checksum, so that there may be no picture at all
    assert True in outcomes or "png" in name
    if name not in ("lzw tiff", "deflated tiff"):  # libtiff itself writes what is wrong with a damaged file
        assert capfd.readouterr() == ("", "")


# --- decompression bombs ------------------------------------------------------------------------------------------


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


# --- warnings -----------------------------------------------------------------------------------------------------


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
