"""The first picture of a DICOM file, upright and in 8 bits. A data set, in DICOM's words, is what one file holds."""

from __future__ import annotations

import io
import math
import zlib
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .picture import SEVERAL, Picture, Undecodable, check_size, grey_if_it_is

MAX_UNPACKED = 2**28  # bytes of a file that is deflated as a whole


def read_dataset_of(content: bytes, **how: Any) -> Any:
    """What a DICOM file holds. Raises: Undecodable and others."""
    try:
        import pydicom.pixels  # there since version 3
        from pydicom.filereader import read_dataset
    except ImportError:
        raise Undecodable("needs pydicom: install contrastive[dicom]") from None
    file = io.BytesIO(content)
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
        _check_deflated(content[file.tell() :])  # which pydicom inflates without a limit
    file.seek(0)
    return pydicom.dcmread(file, **how)


def _check_deflated(packed: bytes) -> None:
    """Raises: Undecodable for more than MAX_UNPACKED bytes, and others."""
    inflate, n_bytes = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed and not inflate.eof:
        n_bytes += len(inflate.decompress(packed, 2**20))
        packed = inflate.unconsumed_tail
        if n_bytes > MAX_UNPACKED:
            raise Undecodable(f"unpacks to more than {MAX_UNPACKED / 1e6:.0f} MB")


def dicom_shape(dataset: Any) -> tuple[int, int]:
    """Rows and columns. Raises: Undecodable."""
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise Undecodable("is DICOM without a picture")
    check_size(columns, rows)
    return rows, columns


def read_dicom(content: bytes) -> Picture:
    """The first picture of a DICOM file, in 8 bits. Raises: Undecodable and others."""
    from pydicom.pixels import apply_color_lut

    dataset = read_dataset_of(content)
    stored = _stored(dataset)
    several = (SEVERAL,) if int(dataset.get("NumberOfFrames") or 1) > 1 else ()
    photometric = str(dataset.get("PhotometricInterpretation"))
    if photometric == "PALETTE COLOR":
        stored, depth = apply_color_lut(stored, dataset)[..., :3], dataset.RedPaletteColorLookupTableDescriptor[2]
    elif stored.ndim == 3:
        depth = dataset.BitsStored
        if photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"):  # the latter four come as RGB
            raise Undecodable(f"is DICOM of colours that are not read ({photometric[:20]})")
    elif photometric in ("MONOCHROME1", "MONOCHROME2"):
        values, remark = _dicom_grey(dataset, stored)
        if photometric == "MONOCHROME2":
            return Picture(values[..., None], (remark, *several))
        return Picture(255 - values[..., None], (remark, "DICOM, MONOCHROME1: turned from negative", *several))
    else:
        raise Undecodable(f"is DICOM of a kind that is not read ({photometric[:20]})")
    return Picture(grey_if_it_is((stored >> max(depth - 8, 0)).astype(np.uint8)), several)


def _stored(dataset: Any) -> np.ndarray:
    """The values of the first frame as they are stored, H x W or H x W x 3. Raises: Undecodable and others."""
    from pydicom.encaps import get_frame
    from pydicom.pixels import pixel_array

    dicom_shape(dataset)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise Undecodable("is DICOM without a picture")
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return pixel_array(dataset, index=0)
    try:  # a packed frame has a header of its own, which may claim another size than the file
        frame = get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        check_size(*Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")).size)
    except UnidentifiedImageError:  # packed in another way, or broken, which the decoder will tell
        pass
    try:
        return pixel_array(dataset, index=0)
    except (NotImplementedError, RuntimeError):  # no decoder, or none that reads it
        raise Undecodable(f"is compressed as {syntax.name}, and no decoder that is installed reads it") from None


def _dicom_grey(dataset: Any, stored: np.ndarray) -> tuple[np.ndarray, str]:
    """Stored values as uint8, by the window of the file if it has one, and a remark by which."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    transformation = _of_first_frame(dataset, "PixelValueTransformationSequence")
    values = apply_modality_lut(stored, transformation).astype(np.float64)
    own = "DICOM: its own window"
    if dataset.get("VOILUTSequence"):
        table = apply_voi(np.rint(values).astype(np.int64), dataset).astype(np.float64)
        return _scaled(table, 0, 2.0 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1), own
    voi = _of_first_frame(dataset, "FrameVOILUTSequence")
    centre, width = _number(voi.get("WindowCenter")), _number(voi.get("WindowWidth"))
    if math.isfinite(centre) and math.isfinite(width) and width > 0:  # PS3.3, C.11.2.1.2 and C.11.2.1.3
        function = voi.get("VOILUTFunction")
        if function == "SIGMOID":
            return _scaled(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))), 0, 1), own
        if function != "LINEAR_EXACT" and width >= 1:
            centre, width = centre - 0.5, width - 1
        return _scaled(values, centre - width / 2, centre + width / 2), own
    kept = values[np.isfinite(values) & ~_padding(dataset, stored)]
    kept = kept if kept.size else np.nan_to_num(values)
    low, high = np.percentile(kept, (0.5, 99.5))
    if low == high:  # such as a mask, of which less than half a per cent is set
        low, high = kept.min(), kept.max()
    return _scaled(values, low, high), "DICOM without a window: 0.5 to 99.5 % of its values"


def _of_first_frame(dataset: Any, macro: str) -> Any:
    """Where attributes of a macro stand: among those of the first frame, or of all frames, or of the file."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = dataset.get(groups)
        if items and items[0].get(macro):
            return items[0].get(macro)[0]
    return dataset


def _number(value: Any) -> float:
    """The first of one or several numbers; NaN if there is none."""
    try:
        return float(value if isinstance(value, (int, float, str)) else value[0])
    except (TypeError, ValueError, IndexError):
        return math.nan


def _padding(dataset: Any, stored: np.ndarray) -> np.ndarray:
    """Which values fill up the rectangle around what was recorded."""
    first = dataset.get("PixelPaddingValue")
    last = dataset.get("PixelPaddingRangeLimit")
    last = first if last is None else last
    if not isinstance(first, int) or not isinstance(last, int) or stored.dtype.kind not in "iu":
        return np.zeros(stored.shape, bool)
    low, high = np.sort(np.array([first, last]).astype(stored.dtype))  # their sign may have been told wrongly
    return (stored >= low) & (stored <= high)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values from low to high as 0 to 255, and cut there; of none between them, what is higher is 255."""
    scaled = (np.nan_to_num(values, nan=low) - low) * (255 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
