"""What every figure is made of: two themes, a caption, the numbers behind it, and the text that stands in for it."""

import base64
import csv
import functools
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

WIDE = 600  # pixels; wider figures scroll on a phone, rather than get too small to be read
MIME = "application/vnd.contrastive.figure+json"
PIXELS_PER_INCH = 200  # twice the size at which a page shows them
LEVELS = 0.5  # of 255, by which 256 colours may be off on average; photographs would be by several


@dataclass(frozen=True)
class Theme:
    """Colours of figures on a page's background. Those of data keep 3:1 against it and differ for the colour-blind,
    who also get markers or names in place."""

    paper: str
    ink: str
    muted: str
    grid: str
    blue: str
    orange: str
    green: str
    grey: str
    purple: str
    diverging: str  # colour map with its middle near the background
    mistakes: str  # colour map that starts near the background

    def rc(self) -> Any:
        """For matplotlib."""
        return sns.axes_style("whitegrid") | {
            "figure.facecolor": self.paper, "axes.facecolor": self.paper, "savefig.facecolor": self.paper,
            "text.color": self.ink, "axes.labelcolor": self.ink, "axes.edgecolor": self.muted,
            "xtick.color": self.muted, "ytick.color": self.muted, "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink, "grid.color": self.grid,
            "font.size": 10, "axes.titlesize": 10, "axes.titlelocation": "left",
            "axes.spines.top": False, "axes.spines.right": False,
        }  # fmt: skip


LIGHT = Theme(
    "#ffffff", "#1b2a33", "#5c6b75", "#e3e8eb", "#0173b2", "#b35c00", "#02805d", "#6f7a82", "#8a4bb0",
    "vlag", "light:#0173b2",
)  # fmt: skip
DARK = Theme(
    "#12181d", "#e4eaee", "#a3b1bb", "#2b363e", "#5ab4f0", "#f0a04b", "#45c49c", "#9aa6ae", "#c79bea",
    "icefire", "dark:#5ab4f0",
)  # fmt: skip
_theme: ContextVar[Theme] = ContextVar("theme", default=LIGHT)


@dataclass(frozen=True)
class Sketch:
    """What a drawing function gives: a figure, its alternative text, its caption, the rows of numbers behind it."""

    figure: Figure
    alt: str
    caption: str
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """A figure in both themes. As the last value of a notebook cell it shows itself, with all that belongs to it."""

    name: str
    light: Sketch
    dark: Sketch

    def with_rows(self, rows: Iterable[Mapping[str, Any]]) -> "Picture":
        """The same figure, with other numbers behind it."""
        rows = list(rows)
        return Picture(self.name, replace(self.light, rows=rows), replace(self.dark, rows=rows))

    @property
    def alt(self) -> str:
        """What the figure shows, in words."""
        return self.light.alt

    def as_json(self) -> dict[str, Any]:
        """What a page needs beside the PNG: dark is another one, in base64; csv the numbers behind the figure."""
        png, table = to_png(self.light.figure), io.StringIO()
        if self.light.rows:
            columns = dict.fromkeys(name for row in self.light.rows for name in row)  # some runs log more than others
            writer = csv.DictWriter(table, list(columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.light.rows)
        return {
            "name": self.name,
            "alt": self.alt,
            "caption": self.light.caption,
            # Half of what the PNG's header tells: it has twice the pixels of the size at which it is shown.
            "width": int.from_bytes(png[16:20], "big") // 2,
            "height": int.from_bytes(png[20:24], "big") // 2,
            "light": base64.b64encode(png).decode(),
            "dark": base64.b64encode(to_png(self.dark.figure)).decode(),
            "csv": table.getvalue(),
        }

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        shown = self.as_json()
        size = {name: shown[name] for name in ("alt", "width", "height")}
        return {"image/png": shown.pop("light"), "text/plain": self.alt, MIME: shown}, {"image/png": size}


def to_png(figure: Figure) -> bytes:
    """A figure as PNG at twice its displayed size, of 256 colours, which for charts is enough, unless it shows more."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=PIXELS_PER_INCH, bbox_inches="tight")
    image = Image.open(drawn).convert("RGB")
    fewer = image.quantize(256, dither=Image.Dither.NONE)
    away = ImageStat.Stat(ImageChops.difference(image, fewer.convert("RGB"))).mean
    (fewer if max(away) < LEVELS else image).save(small, "PNG", optimize=True)
    return small.getvalue()


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw in a theme."""
    token = _theme.set(theme)
    try:
        with matplotlib.rc_context(theme.rc()):
            yield
    finally:
        _theme.reset(token)


def figure(draw: Callable[..., Sketch]) -> Callable[..., Picture]:
    """Have a function that draws once in the current theme make a picture in both, named after it or by `name`."""

    @functools.wraps(draw)
    def both(*args: Any, name: str = "", **kwargs: Any) -> Picture:
        sketches = []
        for theme in (LIGHT, DARK):
            with themed(theme):
                sketches.append(draw(*args, **kwargs))
        return Picture(name or draw.__name__, *sketches)

    return both


def subplots(rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 3.6), **kw: Any) -> tuple[Figure, Any]:
    """A figure and its axes, made without pyplot, so that none is shown twice or kept for ever."""
    drawn = Figure(figsize=size, layout="constrained")
    return drawn, drawn.subplots(rows, columns, **kw)


def current_theme() -> Theme:
    """The theme in which it is drawn now."""
    return _theme.get()


def themed_colour(name: str) -> str:
    """The current theme's colour of that name."""
    return getattr(_theme.get(), name)


def colour_map(name: str) -> Any:
    """The current theme's colour map of that name."""
    return sns.color_palette(themed_colour(name), as_cmap=True)


def name_lines(axes: Any, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write names (name, x and y of the line's end, colour) to the right of the axes, with room between them."""
    low, high = axes.yaxis.get_transform().transform(axes.get_ylim())
    at = [(float(axes.yaxis.get_transform().transform(y)) - low) / (high - low) for _, _, y, _ in ends]
    gap = 1.3 * matplotlib.rcParams["font.size"] / (0.8 * 72 * axes.figure.get_figheight())
    order, places = sorted(range(len(ends)), key=at.__getitem__), dict(enumerate(at))
    for below, above in pairwise(order):
        places[above] = max(places[above], places[below] + gap)
    places[order[-1]] = min(places[order[-1]], 1.0)
    for above, below in pairwise(order[::-1]):  # down again from the upper edge
        places[below] = min(places[below], places[above] - gap)
    for i, (name, x, y, colour) in enumerate(ends):
        axes.annotate(
            name,
            (x, y),
            (1.03, places[i]),
            xycoords="data",
            textcoords="axes fraction",
            color=colour,
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.8, "alpha": 0.7, "shrinkA": 1, "shrinkB": 5},
        )


def style_of_many(i: int) -> tuple[str, str, str]:
    """Colour, marker and style of the i-th of many lines."""
    return ("blue", "orange", "green", "grey")[i % 4], "osD^"[i % 4], ("-", "--", ":", "-.")[i // 4 % 4]


def class_colours(n: int, theme: Theme) -> list[str]:
    """As many colours for classes: ten that keep 3:1 against the theme's background, else as even as they get."""
    if n > 10:
        lightness = 0.45 if theme is LIGHT else 0.7
        return [matplotlib.colors.to_hex(c) for c in sns.husl_palette(n, l=lightness)]
    light = "#1f77b4 #b85c00 #2a7f3f #c11c2c #7d53b5 #7a4a3f #c2378f #6b6b6b #807a10 #0b828f"
    dark = "#6db3f2 #ff9d5c #6fd08c #ff8a8a #bfa2f0 #c9a196 #f2a0d5 #b5b5b5 #d6cf5a #5fd3e0"
    return (light if theme is LIGHT else dark).split()[:n]


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
