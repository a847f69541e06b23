"""DICOM files: their own window or percentiles, colours, several frames, compressed ones, damaged ones and bombs."""

import io
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from contrastive.data.decode import decode, shape_of
from contrastive.data.picture import Undecodable

from .picture_files import COLOUR, GREY, SEVERAL, attacked, limited, noise, reason, saved, survives  # noqa: F401 - a fixture


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


# --- grey ---------------------------------------------------------------------------------------------------------


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


# --- colours, frames and compression ------------------------------------------------------------------------------


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
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import JPEGLSLossless

    data, read, refused = Path(pydicom.__file__).parent / "data", 0, []
    for path in sorted(data.rglob("*")):
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
    if get_decoder(JPEGLSLossless).is_available:
        plain, lossless = (data / "test_files" / f"MR_small{end}.dcm" for end in ("", "_jpeg_ls_lossless"))
        assert np.array_equal(decode(lossless.read_bytes()).pixels, decode(plain.read_bytes()).pixels)
    else:
        assert "JPEG-LS Lossless" in told["MR_small_jpeg_ls_lossless.dcm"]
        assert "decoder" in told["MR_small_jpeg_ls_lossless.dcm"]
    assert told["MR_truncated.dcm"] == "is truncated"
    assert told["rtplan.dcm"] == "is DICOM without a picture"


def test_dicom_that_looks_like_tiff(pydicom):
    content, _ = dicom(noise(9, 9))
    assert np.array_equal(decode(b"II*\0" + content[4:]).pixels, decode(content).pixels)


# --- what is refused ----------------------------------------------------------------------------------------------


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
