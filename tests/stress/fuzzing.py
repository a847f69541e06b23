"""Inputs that hypothesis makes up. Each test passes when the input works, or gives the one line of exit code 2."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from contrastive import Settings, UserError, load_images, resolve
from contrastive.__main__ import complain, given_parameters, parser
from contrastive.data import forget_images
from contrastive.data.idx import IDX_FILES
from contrastive.settings import ENCODERS, METHODS, parameters

ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=3)
FIELDS = sorted(parameters())
SIZES = st.sampled_from([0, 1, 2, 3, 28, 60, 255, 65_535, 10**6, 2**31, 2**32 - 1])


def works_or_one_line(call: Callable[[], Any]) -> None:
    """Call it; it may only end well, or as the command line does when the request is wrong."""
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            call()
            code = 0
        except UserError as error:
            code = complain(str(error))
        except SystemExit as done:  # by the parser
            code = int(done.code or 0)
    text = said.getvalue()
    assert code == 0 or (code == 2 and text.count("\n") == 1 and text[:-1].isprintable()), (code, text)


def load(path: Path) -> None:
    """Load a data set as a run would, and check what came out."""
    forget_images()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about damage that it puts up with
        images = load_images(str(path))
        resolve(Settings(dataset=str(path), batch_size=2))
    for x, labels in ((images.train, images.train_labels), (images.test, images.test_labels)):
        assert x.ndim == 4
        assert len(x) == len(labels) > 0
        assert 0 <= labels.min() <= labels.max() < len(images.classes)


def mutated(content: bytes, changes: list[tuple[int, int]], cut: int | None) -> bytes:
    """A file with some bytes replaced, counted from the start, and perhaps cut."""
    array = bytearray(content)
    for place, byte in changes:
        array[place % len(array)] = byte
    return bytes(array[: cut % len(array)] if cut is not None else array)


# Half of the changes go to the first bytes, where headers are.
CHANGES = st.lists(st.tuples(st.integers(0, 200) | st.integers(0, 10**6), st.integers(0, 255)), max_size=6)
CUT = st.none() | st.integers(0, 10**6)


# A method or encoder among them, so that parameters of its own count, too
CHOSEN = st.fixed_dictionaries(
    {}, optional={"method": st.sampled_from([*METHODS]), "encoder": st.sampled_from([*ENCODERS])}
)


@given(given=st.dictionaries(st.sampled_from(FIELDS) | st.text(), ANYTHING, max_size=5), chosen=CHOSEN)
def some_settings(folder: Path, given: dict[str, Any], chosen: dict[str, str]) -> None:
    """Any names and values."""
    given = {**given, **chosen}
    works_or_one_line(lambda: resolve(Settings(**{"dataset": "sklearn_digits", **given})))


@given(
    words=st.lists(
        st.builds("{}={}".format, st.sampled_from(FIELDS), st.text() | st.integers()) | st.text(), max_size=4
    )
)
def parameter_strings(folder: Path, words: list[str]) -> None:
    """Any text behind -p."""
    command = ["pretrain", "--dataset", "sklearn_digits", *(f"-p{word}" for word in words)]
    works_or_one_line(lambda: resolve(Settings(**given_parameters(parser().parse_args(command)))))


@given(
    name=st.sampled_from(IDX_FILES), kind=st.sampled_from([1, 3, 3, 8]), sizes=st.lists(SIZES, max_size=4),
    body=st.integers(0, 5000), changes=CHANGES, cut=CUT, whole=st.booleans(),
)  # fmt: skip
def idx_files(
    folder: Path, name: str, kind: int, sizes: list[int], body: int, changes: list, cut: int | None, whole: bool
) -> None:
    """Headers that claim anything, and changed files."""
    folder /= "idx"
    folder.mkdir(exist_ok=True)
    for file, count in zip(IDX_FILES, (60, 60, 20, 20), strict=True):
        header = struct.pack(">BBBB", 0, 0, 8, 3 if "idx3" in file else 1) + struct.pack(">I", count)
        size = (
            struct.pack(">II", 16, 16) + bytes(count * 256) if "idx3" in file else bytes(i % 10 for i in range(count))
        )
        content = header + size
        if file == name:
            made_up = struct.pack(">BBBB", 0, 0, 8, kind) + b"".join(struct.pack(">I", n) for n in sizes) + bytes(body)
            content = mutated(content if whole else made_up, changes, cut)
        (folder / file).write_bytes(content)
    works_or_one_line(lambda: load(folder))


def archive(shape: tuple[int, ...] = (60, 16, 16), descr: str = "|u1", compression: int = zipfile.ZIP_STORED) -> bytes:
    """An .npz file, whose train_images claim a shape and type."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as out:
        for name, array in {
            "train_labels": np.arange(60) % 3, "test_images": np.zeros((20, 16, 16), np.uint8),
            "test_labels": np.arange(20)[:, None] % 3,
        }.items():  # fmt: skip
            with out.open(f"{name}.npy", "w") as file:
                np.save(file, array)
        header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".ljust(117) + "\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        out.writestr("train_images.npy", start + bytes(60 * 256))
    return made.getvalue()


@given(
    shape=st.just((60, 16, 16)) | st.lists(SIZES | st.just(10**12), max_size=4).map(tuple), changes=CHANGES, cut=CUT,
    descr=st.sampled_from(["|u1", "|u1", "<f8", "|O", "<U9", "|V3", "[('a', '|O')]", "x"]),
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)  # fmt: skip
def npz_files(
    folder: Path, shape: tuple[int, ...], changes: list, cut: int | None, descr: str, compression: int
) -> None:
    """Headers that claim anything, objects that would be unpickled, and changed files."""
    path = folder / "x.npz"
    path.write_bytes(mutated(archive(shape, descr, compression), changes, cut))
    works_or_one_line(lambda: load(path))


@given(
    suffix=st.sampled_from(["png", "jpg", "bmp", "webp", "ppm"]), mode=st.sampled_from(["L", "RGB", "P", "1", "RGBA"]),
    size=st.tuples(*[st.sampled_from([1, 16, 16, 17])] * 2), changes=CHANGES, cut=CUT, rest=st.binary(max_size=50),
)  # fmt: skip
def image_files(
    folder: Path, suffix: str, mode: str, size: tuple[int, int], changes: list, cut: int | None, rest: bytes
) -> None:
    """Images of any size, mode and kind, changed, cut and lengthened."""
    folder /= "images"
    made = io.BytesIO()
    image = Image.effect_noise(size, 50).convert(mode)
    try:
        image.save(made, {"jpg": "jpeg"}.get(suffix, suffix))
    except OSError:  # the format has no such mode
        image.convert("RGB").save(made, {"jpg": "jpeg"}.get(suffix, suffix))
    for part, n in (("train", 12), ("test", 2)):
        for i in range(n):
            (folder / part / str(i % 2)).mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), i).save(folder / part / str(i % 2) / f"{i}.png")
    odd = folder / "train" / "0" / f"odd.{suffix}"
    odd.write_bytes(mutated(made.getvalue(), changes, cut) + rest)
    works_or_one_line(lambda: load(folder))
    odd.unlink()


TESTS = (some_settings, parameter_strings, idx_files, npz_files, image_files)


def run(test: Callable[..., None], count: int, seed_: int, folder: Path, done: list[int]) -> None:
    """Do that many cases of a test, counting them in `done`. Raises: what the smallest case that fails raises."""
    inner = test.hypothesis.inner_test  # type: ignore[attr-defined]

    def counted(folder: Path, **arguments: Any) -> None:
        done[0] += 1
        inner(folder, **arguments)

    test.hypothesis.inner_test = counted  # type: ignore[attr-defined]
    options = settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    try:
        seed(seed_)(options(test))(folder=folder)
    finally:
        test.hypothesis.inner_test = inner  # type: ignore[attr-defined]
