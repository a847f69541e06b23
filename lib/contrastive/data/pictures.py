"""Where pictures come from, by number; how they are all brought to one shape; and doing that, in several processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..settings import UserError
from .decode import decode, shape_of
from .picture import Picture, Undecodable
from .preparation import LARGEST_SIDE, Preparation, size_of_alike, size_of_mixed
from .processes import in_processes
from .quiet import quiet
from .trees import Tree

CHUNK, CHUNK_BYTES = 256, 2**23  # pictures that a process prepares at a time, and bytes of pixels: the less of both
PARALLEL_FROM, PARALLEL_BYTES = 2000, 30_000_000  # fewer and smaller pictures are decoded before processes have started
DEEP = "more than 8 bits, scaled by a window"  # a remark
WINDOW_SAMPLE = 200  # pictures that a window is found from
WINDOW_VALUES = 4096  # of each, at most
WINDOW_SHARE = 0.1  # percent of the values on each side that the window cuts


class Pictures(Protocol):
    """Where pictures come from."""

    @property
    def where(self) -> object:
        """Where they lie, for people."""

    @property
    def names(self) -> list[str]:
        """Of each."""

    @property
    def stamp(self) -> str:
        """What changes when any of them does; empty where nothing tells."""

    @property
    def n_bytes(self) -> int:
        """How much there is to read."""

    def picture(self, i: int) -> Picture:
        """Picture i. Raises: Undecodable."""

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of picture i. Raises: Undecodable."""


@dataclass(frozen=True)
class Reading:
    """How pictures are to be prepared. None or auto: by what they are."""

    image_size: int | None = None
    fit: str = "crop"
    background: str = "white"
    window: str = "auto"


class FilePictures:
    """Pictures in the files of a tree.

    Args:
        tree: where the files lie.
        names: of those that are images.
        reading: how they will be prepared: large ones need not be decoded in full.
    """

    def __init__(self, tree: Tree, names: Sequence[str], reading: Reading) -> None:
        self.tree, self.names, self.where, self.stamp = tree, list(names), tree.where, tree.stamp(names)
        self.n_bytes = sum(map(tree.size, names))
        self._background, self._at_least = reading.background, max(reading.image_size or 0, LARGEST_SIDE)

    def _content(self, i: int) -> bytes:
        try:
            return self.tree.read(self.names[i])
        except OSError as error:
            raise Undecodable(f"cannot be read: {error.strerror}") from None
        except Exception as error:  # archives can be broken in many ways
            raise Undecodable(f"cannot be read ({type(error).__name__})") from None

    def picture(self, i: int) -> Picture:
        """Picture i. Raises: Undecodable."""
        return decode(self._content(i), self._background, self._at_least)

    def shape(self, i: int) -> tuple[int, int]:
        """Height and width of picture i. Raises: Undecodable."""
        return shape_of(self._content(i))


class NeedsError(Exception):
    """Picture `place` is not as was guessed. what: sizes, colour or window."""

    def __init__(self, what: str, place: int) -> None:
        super().__init__(what)
        self.what, self.place = what, place


class Plan:
    """How pictures are prepared, as far as it is known: at first as if all were like the first one. So each has to be
    read only once, unless one is found that is not.

    Args:
        pictures: which.
        reading: what was asked for.

    Raises:
        UserError: when no picture can be read.
    """

    def __init__(self, pictures: Pictures, reading: Reading) -> None:
        self.pictures, self.reading = pictures, reading
        self.one_shape: tuple[int, int] | None = None  # that all are expected to have
        low, _, high = reading.window.partition(":")
        self.window = None if reading.window == "auto" else (float(low), float(high))
        first, shape = self._first()
        self.channels = first.shape[2]
        if reading.image_size is not None:
            self.size, self.reason = (reading.image_size,) * 2, "asked for by image_size"
        else:
            self.one_shape = first.shape[0], first.shape[1]
            self.size, self.reason = size_of_alike(*shape)

    def _first(self) -> tuple[np.ndarray, tuple[int, int]]:
        """The first picture that can be read, and its size: a large JPEG is decoded at a part of it."""
        said = ""
        for i, name in enumerate(self.pictures.names):
            try:
                return self.pictures.picture(i).pixels, self.pictures.shape(i)
            except Undecodable as error:
                said = said or f"{name} {error}"
        raise UserError(
            f"{self.pictures.where}: none of {len(self.pictures.names):,} pictures can be read; {said}. Replace them."
        )

    @property
    def preparation(self) -> Preparation:
        """What is done to each picture, as the plan is now."""
        height, width = self.size
        return Preparation(height, width, self.channels, self.reading.fit, self.reading.background, self.window)

    def learn(self, need: NeedsError) -> None:
        """Take in that a picture is not as was expected."""
        if need.what == "colour":
            self.channels = 3
        elif need.what == "window":
            self.window = self._window(need.place)
        else:
            self.one_shape, shapes = None, list(_shapes(self.pictures))
            # Of one size, a large JPEG and a PNG are decoded to several
            self.size, self.reason = size_of_alike(*shapes[0]) if len(set(shapes)) == 1 else size_of_mixed(shapes)

    def _window(self, place: int) -> tuple[float, float]:
        """The values between which nearly all of the deep pictures lie, from a sample of them and one that is known to
        be deep."""
        n, values = len(self.pictures.names), []
        for i in sorted({place, *np.linspace(0, n - 1, min(n, WINDOW_SAMPLE)).astype(int).tolist()}):
            try:
                pixels = self.pictures.picture(i).pixels
            except Undecodable:
                continue
            if pixels.dtype != np.uint8:
                flat = pixels.ravel()  # of large ones no more than of others
                values.append(flat[np.linspace(0, flat.size - 1, min(flat.size, WINDOW_VALUES)).astype(int)])
        finite = np.concatenate(values)
        finite = finite[np.isfinite(finite)]
        low, high = np.percentile(finite, [WINDOW_SHARE, 100 - WINDOW_SHARE]) if len(finite) else (0.0, 1.0)
        return float(low), max(float(high), float(low) + max(abs(float(low)), 1.0) * 1e-6)

    def as_json(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"preparation": self.preparation.as_json(), "one_shape": self.one_shape, "reason": self.reason}

    def restore(self, kept: dict[str, Any]) -> None:
        """Take over what an interrupted process had learned."""
        known = Preparation.from_json(kept["preparation"])
        self.size, self.channels, self.window = (known.height, known.width), known.channels, known.window
        self.one_shape = None if kept["one_shape"] is None else (kept["one_shape"][0], kept["one_shape"][1])
        self.reason = kept["reason"]


# --- Doing it -----------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """Some pictures.

    n: how many. pixels: uint8 n x C x H x W, zeros where one is damaged; none if a `Taker` took them. damaged: place ->
    what is wrong with it. remarks: what was done to how many.
    """

    n: int
    pixels: np.ndarray
    damaged: dict[int, str]
    remarks: Counter[str]


# Takes pixels, and the place of the first of them, in the process that has prepared them: less to hand over
Taker = Callable[[np.ndarray, int], None]


class _Prepare:
    """Places -> the pictures there, prepared; or why the plan does not hold, and for which picture; or why they could
    not be taken."""

    def __init__(self, pictures: Pictures, plan: Plan, taker: Taker | None) -> None:
        self.pictures, self.preparation, self.one_shape = pictures, plan.preparation, plan.one_shape
        self.taker = taker

    def __call__(self, places: range) -> Part | tuple[str, int] | OSError:
        p = self.preparation
        part = Part(len(places), np.zeros((len(places), p.channels, p.height, p.width), np.uint8), {}, Counter())
        with quiet:  # entered once for all, since that takes long beside decoding a small picture
            for row, i in enumerate(places):
                try:
                    picture = self.pictures.picture(i)
                except Undecodable as error:
                    part.damaged[i] = str(error)
                    continue
                if need := self._need(picture.pixels):
                    return need, i
                part.pixels[row] = p(picture)
                if picture.pixels.dtype != np.uint8:
                    part.remarks[DEEP] += 1
                if picture.remarks:
                    part.remarks.update(picture.remarks)
        if self.taker is not None:
            try:
                self.taker(part.pixels, places.start)
            except OSError as error:  # returned, since one that is raised loses its number on the way
                return error
            part.pixels = part.pixels[:0]
        return part

    def _need(self, pixels: np.ndarray) -> str:
        """What the plan lacks for a picture; empty if it holds."""
        if self.one_shape is not None and pixels.shape[:2] != self.one_shape:
            return "sizes"
        if pixels.shape[2] > self.preparation.channels:
            return "colour"
        return "window" if pixels.dtype != np.uint8 and self.preparation.window is None else ""


class _Measure:
    """Places -> the sizes of the pictures there whose headers can be read."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __call__(self, places: range) -> list[tuple[int, int]]:
        found = []
        for i in places:
            try:
                found.append(self.pictures.shape(i))
            except Undecodable:
                continue
        return found


def prepare_from(pictures: Pictures, plan: Plan, start: int = 0, taker: Taker | None = None) -> Iterator[Part]:
    """All pictures from `start` on, prepared, in order.

    Raises: NeedsError when one does not fit the plan; RunError when a process is killed; OSError of the taker.
    """
    p, places = plan.preparation, range(start, len(pictures.names))
    chunk = min(max(CHUNK_BYTES // (p.channels * p.height * p.width), 1), CHUNK)
    for part in in_processes(_Prepare(pictures, plan, taker), places, chunk, _many(pictures)):
        if isinstance(part, tuple):
            raise NeedsError(*part)
        if isinstance(part, OSError):
            raise part
        yield part


def _shapes(pictures: Pictures) -> Iterator[tuple[int, int]]:
    places = range(len(pictures.names))
    for some in in_processes(_Measure(pictures), places, CHUNK, _many(pictures)):
        yield from some


def _many(pictures: Pictures) -> bool:
    return len(pictures.names) >= PARALLEL_FROM or pictures.n_bytes >= PARALLEL_BYTES
