"""A map of images to explore: in Jupyter and on a page the same, offline, by mouse, touch and keyboard."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .pictures import DARK, LIGHT, class_colours, figure_html
from .plots import embedding_maps

TEMPLATES = Path(__file__).with_name("templates")
LARGEST, COLUMNS = 48, 40  # pixels of a thumbnail; thumbnails in a row of the sheet


@dataclass(frozen=True)
class Explorer:
    """An interactive map. As the last value of a notebook cell it shows itself; without scripts, a static picture."""

    data: dict[str, Any]
    static: str
    alt: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        # In a script element only "<" can end the text, so it is escaped.
        data = json.dumps(self.data, separators=(",", ":")).replace("<", "\\u003c")
        style = (TEMPLATES / "explorer.css").read_text(encoding="utf-8")
        return {
            "text/plain": self.alt,
            "text/html": f'<div class="explorer"><style>{style}</style><div class="static">{self.static}</div>'
            f'<script type="application/json">{data}</script></div><script>{explorer_script()}</script>',
        }


def explorer_script() -> str:
    """The script of every map: d3, kept from module loaders that a notebook may have, then ours."""
    d3 = (TEMPLATES / "vendor" / "d3-7.9.2.min.js").read_text(encoding="utf-8")
    hidden = "var define, exports, module;"
    own = (TEMPLATES / "explorer.js").read_text(encoding="utf-8")
    return f"(function () {{ {hidden}\n{d3}\n}}).call(globalThis);\n{own}"


def explore(
    images: Tensor,
    points: np.ndarray,
    labels: Tensor,
    probabilities: Tensor,
    classes: Sequence[str],
    neighbours: Sequence[Sequence[int]],
) -> Explorer:
    """A map of N uint8 C x H x W images.

    points: float N x 2, where they lie. labels: int64 N. probabilities: float N x classes, of a probe. neighbours: for
    each image the indices of those nearest to it, nearest first.
    """
    sure, predicted = (part.numpy() for part in probabilities.max(1))
    truth = labels.numpy()
    wrong = predicted != truth
    low, high = points.min(0), points.max(0)
    place = np.rint(1000 * (points - low) / np.maximum(high - low, 1e-9)).astype(int)
    sheet, size = thumbnails(images)
    data = {
        "classes": list(classes),
        "colours": [class_colours(len(classes), theme) for theme in (LIGHT, DARK)],
        "x": place[:, 0].tolist(),
        "y": (1000 - place[:, 1]).tolist(),
        "label": truth.tolist(),
        "predicted": predicted.tolist(),
        "sure": np.rint(100 * sure).astype(int).tolist(),
        "neighbours": [list(map(int, row)) for row in neighbours],
        "sheet": {"src": sheet, "columns": COLUMNS, "width": size[0], "height": size[1]},
    }
    picture = embedding_maps({"": points}, truth, classes, wrong)
    shown = picture.as_json()
    return Explorer(data, figure_html(shown, shown["light"]), picture.alt)


def thumbnails(images: Tensor) -> tuple[str, tuple[int, int]]:
    """All images (uint8 N x C x H x W) on one PNG, as a data URI, COLUMNS in a row; and a thumbnail's width and height.

    The longer side is brought down to LARGEST pixels, if it is longer.
    """
    height, width = images.shape[2:]
    scale = min(1.0, LARGEST / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    if scale < 1:
        images = F.interpolate(images.float(), (height, width), mode="area").round().byte()
    images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % COLUMNS))
    # rows of the sheet x C x height x (columns * width), then rows of pixels
    rows = images.unflatten(0, (-1, COLUMNS)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
    buffer = io.BytesIO()
    Image.fromarray(rows[..., 0] if rows.shape[-1] == 1 else rows).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", (width, height)
