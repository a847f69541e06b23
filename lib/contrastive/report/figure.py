"""A figure as HTML: light and dark, caption, the numbers behind it; the same on every page and in Jupyter."""

from __future__ import annotations

import base64
from html import escape
from typing import Any

WIDE = 600  # pixels; wider figures scroll on a phone, rather than get too small to be read


def figure_html(shown: dict[str, Any], png: str, lead: bool = False) -> str:
    """What `Picture.as_json` gave (without `light`), and its PNG in base64, as a figure.

    The page's switch turns the dark picture on and off; without scripts the reader's system decides. lead: the copy on
    a page's first screen, which has no caption of its own.
    """
    alt = ("Summary: " if lead else "") + shown["alt"]
    size = f'width="{int(shown["width"])}" height="{int(shown["height"])}"'
    wide = ' class="wide"' if int(shown["width"]) > WIDE and not lead else ""
    csv = base64.b64encode(shown["csv"].encode()).decode()
    link = (
        f' <a class="numbers" download="{escape(shown["name"])}.csv" '
        f'href="data:text/csv;base64,{csv}">Numbers (CSV)</a>'
        if csv
        else ""
    )
    caption = "" if lead else f"<figcaption>{escape(shown['caption'])}{link}</figcaption>"
    return (
        f'<figure{wide}><div class="canvas"><picture>'
        '<source class="dark" media="screen and (prefers-color-scheme: dark)" '
        f'srcset="data:image/png;base64,{escape(shown["dark"])}">'
        f'<img src="data:image/png;base64,{escape(png)}" alt="{escape(alt)}" {size}></picture></div>{caption}</figure>'
    )
