"""A map of images to explore: in Jupyter and on a page the same, offline, by mouse, touch and keyboard."""

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..settings import UserError
from .pictures import DARK, LIGHT, class_colours, figure_html
from .plots import embedding_maps

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("explorer_data.js", "explorer_map.js", "explorer_panels.js", "explorer.js")
MOST = 10_000  # images on a map
LARGEST_HTML = 8_000_000  # bytes of a map, with its scripts and its pictures
FEW_BYTES, BYTES_EACH = 200_000, 900  # of the pictures, on the page: small sets look as good as they can
COLUMNS, ROWS = 32, 32  # thumbnails on a sheet
BLOCK = 16  # pixels: WebP compresses squares of this side, and each thumbnail has squares of its own
SIDES = (48, 32, 24, 16)  # pixels of a thumbnail's longer side, at most
QUALITIES = (None, 90, 75, 60, 45, 30)  # of WebP, where None loses nothing
TRIED_ON = 256  # images, by which the size of all is estimated
NAMED_GROUPS = 10  # have colours of their own: more could not be told apart


@dataclass(frozen=True)
class Explorer:
    """An interactive map. As the last value of a notebook cell it shows itself; without scripts, a static picture."""

    data: dict[str, Any]
    static: str
    alt: str

    def html(self) -> str:
        """All of it, as a part of a page."""
        # In a script element only "<" can end the text, so it is escaped.
        data = json.dumps(self.data, separators=(",", ":")).replace("<", "\\u003c")
        style = (TEMPLATES / "explorer.css").read_text(encoding="utf-8")
        return (
            f'<div class="explorer"><style>{style}</style><div class="static">{self.static}</div>'
            f'<script type="application/json">{data}</script></div><script>{explorer_script()}</script>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.alt, "text/html": self.html()}


def explorer_script() -> str:
    """The script of every map: d3, kept from module loaders that a notebook may have, then ours."""
    d3 = (TEMPLATES / "vendor" / "d3-7.9.2.min.js").read_text(encoding="utf-8")
    hidden = "var define, exports, module;"
    own = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'(function () {{ {hidden}\n{d3}\n}}).call(globalThis);\n(() => {{\n"use strict";\n{own}}})();\n'


def explore(
    images: Tensor,
    spaces: Mapping[str, np.ndarray] | np.ndarray,
    labels: Tensor | None,
    probabilities: Tensor | None,
    classes: Sequence[str],
    neighbours: Sequence[Sequence[int]] | None = None,
    *,
    groups: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> Explorer:
    """A map of N images, at most MOST.

    Args:
        images: uint8 N x C x H x W, grey or colour.
        spaces: where the images lie, float N x 2, in each feature space by its name; or in the only one.
        labels: int64 N, -1 for none.
        probabilities: float N x classes, of a probe; NaN in rows of images that it did not judge.
        classes: their names.
        neighbours: for each image the indices of those nearest to it, nearest first.
        groups: of each image, such as a patient; "" for none.
        names: of the images' files; their numbers, where there are none.

    Returns:
        The map, of at most LARGEST_HTML bytes unless names are very long. Names may hold anything: they are shown as
        text, and in tables they are no formulas.

    Raises:
        UserError: when there are no images, or too many.
    """
    n = len(images)
    if not 0 < n <= MOST:
        raise UserError(f"a map of {n:,} images cannot be drawn: give it at least one image and at most {MOST:,}.")
    maps = {"": spaces} if isinstance(spaces, np.ndarray) else dict(spaces)
    given = np.full(n, -1) if labels is None else labels.cpu().numpy()
    predicted, sure = predictions(probabilities, n)
    data: dict[str, Any] = {
        "n": n,
        "spaces": [{"name": name, "at": packed(places(points), "<u2")} for name, points in maps.items()],
        **judgements(given, predicted, sure, classes),
        "neighbours": None if neighbours is None else packed_rows(neighbours),
        "groups": None if groups is None else grouped(groups),
        "names": None if names is None else list(names),
    }
    wrong = (given >= 0) & (predicted >= 0) & (predicted != given)
    picture = embedding_maps(maps, given, classes, wrong)
    picture = picture.with_rows(table(classes, given, predicted, sure, groups, names))
    shown = picture.as_json()
    drawn = Explorer(data, figure_html(shown, shown["light"]), picture.alt)
    room = LARGEST_HTML - len(drawn.html().encode())
    data["sheets"] = sheets(images, min(room, max(FEW_BYTES, BYTES_EACH * n)))
    return drawn


def judgements(labels: np.ndarray, predicted: np.ndarray, sure: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Labels, predictions and how sure they are, and the colours of all of these in both themes."""
    return {
        "classes": list(classes),
        "colours": [class_colours(max(len(classes), 1), theme) for theme in (LIGHT, DARK)],
        "greys": [LIGHT.grey, DARK.grey],
        "ramp": [[theme.orange, theme.blue] for theme in (LIGHT, DARK)],  # from unsure to sure
        "label": packed(labels, "<i2") if (labels >= 0).any() else None,
        "predicted": packed(predicted, "<i2") if (predicted >= 0).any() else None,
        "sure": packed(np.rint(100 * sure), "u1") if (predicted >= 0).any() else None,
    }


def predictions(probabilities: Tensor | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes, int64 N, and their probabilities, float64 N; -1 and 0 where there is none."""
    if probabilities is None:
        return np.full(n, -1), np.zeros(n)
    sure, predicted = probabilities.cpu().double().max(1)
    judged = sure.isfinite()
    return torch.where(judged, predicted, -1).numpy(), torch.where(judged, sure, 0.0).numpy()


def places(points: np.ndarray) -> np.ndarray:
    """Points, float N x 2, spread over whole numbers from 0 to 65,535; the second grows downwards, as on screens."""
    low, high = points.min(0), points.max(0)
    share = (points - low) / np.maximum(high - low, 1e-9)
    share[:, 1] = 1 - share[:, 1]
    return np.rint(65535 * share)


def packed(values: np.ndarray, kind: str) -> str:
    """Numbers as little-endian bytes in base64, which take less room than their digits."""
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def packed_rows(rows: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Rows of indices, as long as the longest; what is missing is 65,535."""
    most = max(map(len, rows), default=0)
    filled = np.full((len(rows), most), 65535)
    for into, row in zip(filled, rows, strict=True):
        into[: len(row)] = list(row)
    return {"of_each": most, "at": packed(filled, "<u2")}


def grouped(groups: Sequence[str]) -> dict[str, Any]:
    """Names of groups, the largest first, and each image's place among them; 65,535 for none."""
    size = Counter(name for name in groups if name)
    order = sorted(size, key=lambda name: (-size[name], name))
    place = {name: i for i, name in enumerate(order)} | {"": 65535}
    coloured = min(len(order), NAMED_GROUPS)
    return {
        "names": order,
        "of": packed(np.array([place[name] for name in groups]), "<u2"),
        "colours": [class_colours(coloured, theme) for theme in (LIGHT, DARK)],
    }


def table(
    classes: Sequence[str],
    labels: np.ndarray,
    predicted: np.ndarray,
    sure: np.ndarray,
    groups: Sequence[str] | None,
    names: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """A row for each image, with the columns that the map saves of those that are selected."""
    shown = [*classes, ""]  # the last for -1
    return [
        {
            "file": inert_cell(names[i], "./") if names is not None else i,
            "label": inert_cell(shown[labels[i]]),
            "prediction": inert_cell(shown[predicted[i]]),
            "certainty": f"{sure[i]:.2f}" if predicted[i] >= 0 else "",
            "group": inert_cell(groups[i]) if groups is not None else "",
        }
        for i in range(len(labels))
    ]


def inert_cell(text: str, before: str = "'") -> str:
    """Text that spreadsheets do not take for a formula, and that can be written as UTF-8; `before` goes before it."""
    text = text.encode("utf-8", "replace").decode()
    return before + text if text.startswith(tuple("=+-@\t\r\n＝＋－＠")) else text


# --- Thumbnails


def sheets(images: Tensor, room: int) -> dict[str, Any]:
    """All images as thumbnails on sheets, WebP in base64, as large and as good as there is room for.

    Args:
        images: uint8 N x C x H x W.
        room: bytes that they may take on the page. Should even the smallest not fit, it is them all the same.

    Returns:
        src: the sheets. columns, rows: of thumbnails on each. width, height: of a thumbnail, in pixels. cell: [width,
        height], from one to the next.
    """
    some = images[torch.linspace(0, len(images) - 1, min(len(images), TRIED_ON)).long()]
    for side in SIDES:
        tried = sheet(small(some, side))
        for quality in QUALITIES:
            size, last = len(webp(tried, quality)) * 4 / 3 * len(images) / len(some), (side, quality)
            if size > room and last != (SIDES[-1], QUALITIES[-1]):
                continue
            thumbnails = small(images, side)
            found = [base64.b64encode(webp(sheet(part), quality)).decode() for part in thumbnails.split(COLUMNS * ROWS)]
            if sum(map(len, found)) <= room or last == (SIDES[-1], QUALITIES[-1]):
                height, width = thumbnails.shape[2:]
                return {
                    "src": found, "columns": COLUMNS, "rows": ROWS, "width": width, "height": height,
                    "cell": [width + -width % BLOCK, height + -height % BLOCK],
                }  # fmt: skip
    raise AssertionError("the last try is always taken")


def small(images: Tensor, side: int) -> Tensor:
    """Images, uint8 N x C x H x W, whose longer side is brought down to `side` pixels, if it is longer."""
    height, width = images.shape[2:]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    if scale == 1:
        return images
    return torch.cat([F.interpolate(part.float(), size, mode="area").round().byte() for part in images.split(256)])


def sheet(thumbnails: Tensor) -> np.ndarray:
    """Thumbnails, uint8 N x C x H x W, COLUMNS in a row, each grown to whole blocks by its last row and column."""
    height, width = thumbnails.shape[2:]
    grown = F.pad(thumbnails.float(), (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate").byte()
    grown = F.pad(grown, (0, 0, 0, 0, 0, 0, 0, -len(grown) % COLUMNS))
    # rows of the sheet x C x height x (columns * width), then rows of pixels
    return grown.unflatten(0, (-1, COLUMNS)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()


def webp(pixels: np.ndarray, quality: int | None) -> bytes:
    """Pixels, uint8 H x W x C, as WebP; a quality of None loses nothing."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    picture.save(buffer, "WEBP", lossless=quality is None, quality=80 if quality is None else quality, method=4)
    return buffer.getvalue()
