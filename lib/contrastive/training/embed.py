"""Features of a folder or file of images, written as one table."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ..data import find_pictures
from ..data.picture import Picture
from ..data.pictures import Reading
from ..encoders import Encoder
from ..encoders.transform import Entry, at_least, features_of, picture_batches, some_of
from ..settings import Settings, UserError
from ..storage.files import atomic_write, say
from .devices import choose_device
from .export import check_output, make_folder, need_packages
from .runs import Run, load_encoder


class Some(Protocol):
    """Pictures by number, with their names."""

    @property
    def names(self) -> Sequence[str]:
        """What each is called, below what was searched."""

    def picture(self, i: int) -> Picture:
        """Picture i. Raises: ValueError or OSError when it cannot be read."""


# Features, float32 N x D -> names of classes and how sure they are, 0 to 1
Predict = Callable[[np.ndarray], tuple[list[str], np.ndarray]]


def embed_source(
    images: str,
    source: Run | Path | str,
    out: Path,
    skip_damaged: bool = False,
    follow_links: bool = False,
    predict: Predict | None = None,
) -> Path:
    """Write the features of one's own images by the encoder of a run.

    Args:
        images: a picture, a folder, which is searched, an archive of pictures, an .npz or .npy file, or the name of a
            data set.
        source: the run, its folder or its `encoder.safetensors`.
        out: as for `embed_pictures`.
        skip_damaged: whether to leave out what cannot be read, rather than to refuse.
        follow_links: whether links may lead out of the folder.
        predict: a probe, which adds what it takes each image for.

    Returns:
        The file written.

    Raises:
        UserError: when the request is wrong, a package is missing, or pictures cannot be used, naming them.
        RunError: when the file cannot be written.
    """
    check_table(out)
    if os.path.exists(out) and os.path.exists(images) and out.samefile(images):
        raise UserError(f"--out {out} is the file of images itself. Choose another file.")
    encoder = load_encoder(source).to(choose_device("auto"))
    p = encoder.preparation
    assert p is not None
    data = Settings(dataset=images, follow_links=follow_links).data
    found = find_pictures(data.dataset, Reading(at_least(p), p.fit, p.background), data)
    embed_pictures(encoder, found, out, skip_damaged, predict)
    return out


def embed_pictures(
    encoder: Encoder, found: Some, out: Path, skip_damaged: bool = False, predict: Predict | None = None
) -> None:
    """Write the features of pictures as a table, in one go.

    Args:
        encoder: one that knows how pictures are prepared, as by `load_encoder`.
        found: the pictures.
        out: .csv and .parquet have the columns `file`, `f0`, `f1` and so on; .npz has the arrays `files`, `features`
            (float32 N x out_dim) and `run`, which names the run by what decided its weights. With `predict`, also
            `prediction` and `certainty` (0 to 1), before the features.
        skip_damaged: whether to leave out what cannot be read, and say so, rather than to refuse.
        predict: a probe.

    Raises:
        UserError: as `embed_source`.
        RunError: when the file cannot be written.
    """
    check_table(out)
    if encoder.preparation is None:
        raise UserError("this encoder does not know how pictures are prepared: use one by load_encoder.")

    def entries() -> Iterator[Entry]:
        for i, name in enumerate(tqdm(found.names, unit="image", disable=None, mininterval=0.5)):  # None: if a terminal
            yield name, partial(found.picture, i)

    left_out: dict[int, str] | None = {} if skip_damaged else None
    features = features_of(encoder, picture_batches(entries(), encoder.preparation, left_out))
    if left_out:
        say(f"{len(left_out):,} of {len(found.names):,} images were left out: {some_of(left_out)}")
    names = [name for i, name in enumerate(found.names) if i not in (left_out or {})]
    # Names of files may have bytes that are no text
    shown = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    predicted: dict[str, Any] = {}
    if predict is not None:
        predicted = dict(zip(("prediction", "certainty"), predict(features), strict=True))
    make_folder(out)
    atomic_write(out, TABLES[out.suffix.lower()](shown, features, encoder.run_identity, predicted))


def check_table(out: Path) -> None:
    """Raises: UserError when features cannot be written to a file of that name."""
    check_output(out, tuple(TABLES))
    if out.suffix.lower() == ".parquet":
        need_packages(("pyarrow",), "parquet", f"--out {out.name}")


def _npz(names: list[str], features: np.ndarray, run: str, predicted: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    arrays: dict[str, Any] = {"files": names, "features": features, "run": run, **predicted}
    np.savez(file, **{name: np.array(column) for name, column in arrays.items()})  # type: ignore[arg-type]
    return file.getvalue()


def _csv(names: list[str], features: np.ndarray, run: str, predicted: dict[str, Any]) -> bytes:
    numbers = ",%.9g" * features.shape[1]  # nine digits tell any two float32 numbers apart
    lines = [",".join(["file", *predicted, *_columns(features)])]
    more = list(zip(*predicted.values(), strict=True)) or [()] * len(names)
    for name, row, own in zip(names, features.tolist(), more, strict=True):
        cells = [_quoted(x) if isinstance(x, str) else f"{x:.4f}" for x in own]
        lines.append(",".join([_quoted(name), *cells]) + numbers % tuple(row))
    return ("\n".join(lines) + "\n").encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _parquet(names: list[str], features: np.ndarray, run: str, predicted: dict[str, Any]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {"file": pa.array(names, pa.string())} | {name: pa.array(own) for name, own in predicted.items()}
    columns |= {name: pa.array(column) for name, column in zip(_columns(features), features.T, strict=True)}
    file = io.BytesIO()
    parquet.write_table(pa.table(columns).replace_schema_metadata({"run": run}), file)
    return file.getvalue()


def _columns(features: np.ndarray) -> list[str]:
    return [f"f{i}" for i in range(features.shape[1])]


Table = Callable[[list[str], np.ndarray, str, dict[str, Any]], bytes]
TABLES: dict[str, Table] = {".npz": _npz, ".csv": _csv, ".parquet": _parquet}
