"""Folders and files as people have them, made small, and what each has to give."""

from __future__ import annotations

import io
import re
import resource
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contrastive import UserError, load_images
from contrastive.data import Images, inert

SIDE = 8  # pixels
Files = Mapping[str, Any]  # path -> so many images in that folder, or a file's content, or None for an empty folder


def noise(name: str, side: int = SIDE) -> np.ndarray:
    """Grey pixels that no other name has."""
    return np.random.default_rng(zlib.crc32(name.encode("utf-8", "surrogateescape"))).integers(
        0, 256, (side, side), dtype=np.uint8
    )


def picture(name: str, kind: str = "PNG") -> bytes:
    """A file of such pixels."""
    made = io.BytesIO()
    Image.fromarray(noise(name)).save(made, kind)
    return made.getvalue()


def put(root: Path, files: Files) -> None:
    """Make files. A number makes as many images, 00.png and so on; `...` makes one image of that name."""
    for name, content in files.items():
        path = root / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        elif isinstance(content, int):
            put(root, {f"{name}/{i:02}.png".removeprefix("./"): ... for i in range(content)})
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is ...:
                content = picture(name)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


@dataclass(frozen=True)
class Case:
    """What it is called, how it is made, how it is read, and what that gives.

    files: as `put` takes them; or makes them in a folder, and may give another path. gives: split -> class -> images,
    or a regular expression of the only line that is said. classes: their names, where the order matters. left_out:
    (where, why) -> how many. remarks: regular expressions, one of each remark.
    """

    name: str
    files: Files | Callable[[Path], Path | None]
    gives: dict[str, dict[str, int]] | str
    options: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def parametrised(cases: list[Case]) -> Any:
    """A test for each."""
    assert len({case.name for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def check(case: Case, folder: Path) -> Images | None:
    """Make a case in a folder, read it, and compare with what it has to give. Returns the images, if it gives any."""
    root = folder / "data"
    root.mkdir()
    path = None
    if callable(case.files):
        path = case.files(root)
    else:
        put(root, case.files)
    if isinstance(case.gives, str):
        refused(path or root, case.gives, **case.options)
        return None
    images = load_images(path or root, **case.options)
    assert rows_of(images) == case.gives
    assert {(where, why): n for where, why, n in images.account.left_out} == case.left_out
    assert len(images.account.remarks) == len(case.remarks), images.account.remarks
    for said, expected in zip(images.account.remarks, case.remarks, strict=True):
        assert re.search(expected, said), said
    if case.classes is not None:
        assert images.classes == case.classes
    counts_agree(images)
    if path is None:
        files_agree(images, root)
    return images


def refused(path: object, pattern: str, **options: Any) -> None:
    """It is refused in one line that is not endless."""
    with pytest.raises(UserError) as caught:
        load_images(path, **options)
    said = str(caught.value)
    assert re.search(pattern, said), said
    assert said.isprintable()
    assert len(said.replace(str(path), "")) < 500


def rows_of(images: Images) -> dict[str, dict[str, int]]:
    """The account, without its zeros."""
    found: dict[str, dict[str, int]] = {}
    for split, name, n in images.account.rows:
        if n:
            found.setdefault(split, {})[name] = n
    return found


def counts_agree(images: Images) -> None:
    """The tensors hold what the account says."""
    names = (*images.classes, "")
    validation = set(images.validation.tolist())
    found = Counter[tuple[str, str]]()
    for i, label in enumerate(images.train_labels.tolist()):
        found["val" if i in validation else "train", names[label]] += 1
    for label in images.test_labels.tolist():
        found["test", names[label]] += 1
    told = {(split, name): n for split, names_of in rows_of(images).items() for name, n in names_of.items()}
    if images.n_labels == 0:  # any of them validate nothing
        told_apart = Counter[tuple[str, str]]()
        for (split, name), n in told.items():
            told_apart[split, name] += n
        told = dict(told_apart)
    assert dict(found) == told
    assert len(images.train) == len(images.train_labels) == len(images.train_names)
    assert len(images.test) == len(images.test_labels) == len(images.test_names)


def files_agree(images: Images, root: Path) -> None:
    """Every file is accounted for, pixels are those of the file of that name, and a label is one of its folders, unless
    a table says it."""
    files = [path for path in root.rglob("*") if path.is_file()]
    left_out = sum(n for _, why, n in images.account.left_out if why != "no regular files")
    table = any(" (image from " in remark for remark in images.account.remarks)
    assert len(files) == len(images.train) + len(images.test) + left_out + table
    for pixels, labels, names in (
        (images.train, images.train_labels, images.train_names),
        (images.test, images.test_labels, images.test_names),
    ):
        for x, label, name in zip(pixels, labels.tolist(), names, strict=True):
            with Image.open(root / name) as file:
                seen = np.atleast_3d(np.asarray(file.convert("L" if len(x) == 1 else "RGB")))
            if seen.shape[:2] == tuple(x.shape[1:]):
                assert np.array_equal(x.numpy().transpose(1, 2, 0), seen), name
            if label >= 0 and not table:
                assert images.classes[label] in [inert(part) for part in name.split("/")[:-1]]


@contextmanager
def little_memory() -> Iterator[None]:
    """Fewer than 4 GB more than now: a larger allocation fails, with something else than one line."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
