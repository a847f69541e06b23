"""A trained encoder for other programs: an ONNX graph that takes uint8 images, or its weights as one file."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders import Encoder
from ..settings import RunError, UserError
from ..storage.files import atomic_write, say, write_failure
from ..storage.tensors import write_tensors
from .runs import Run, encoder_file, load_encoder, read_encoder, saved_preparation

ENDINGS = (".onnx", ".safetensors")
OPSET = 18  # of ONNX: the oldest that PyTorch's exporter writes without rewriting its graph
TOLERANCE = 1e-4  # of features, absolute and relative


def export_encoder(source: Run | Path | str, out: Path) -> Encoder:
    """Write the encoder of a run as one file of the kind that its ending names.

    Args:
        source: the run, its folder or its `encoder.safetensors`.
        out: an .onnx file has `images`, uint8 N x C x H x W, for its input, `features`, float32 N x out_dim, for its
            output, and in its metadata, as JSON, `preparation`: what makes a picture such an image. A .safetensors
            file is what `load_encoder` reads.

    Returns:
        The encoder.

    Raises:
        UserError: when the request is wrong, or a package is missing.
        RunError: when the encoder cannot be written so, or the graph gives other features than the encoder.
    """
    check_output(out, ENDINGS)
    path = encoder_file(source)
    if os.path.exists(out) and out.samefile(path):
        raise UserError(f"--out {out} is the run's own encoder. Choose another file.")
    if out.suffix.lower() == ".onnx":
        need_packages(("onnx", "onnxscript"), "export", f"--out {out.name}")
    encoder = load_encoder(path)
    if out.suffix.lower() == ".safetensors":
        metadata, tensors = read_encoder(path)
        make_folder(out)
        write_tensors(out, {**metadata, "preparation": saved_preparation(metadata).as_json()}, tensors)
    else:
        content = onnx_content(encoder)
        check_graph(content, encoder)
        make_folder(out)
        atomic_write(out, content)
    return encoder


def check_output(out: Path, endings: Sequence[str]) -> None:
    """Raises: UserError when a file of that name is of no known kind or cannot be written. Leaves nothing behind."""
    if out.suffix.lower() not in endings:
        raise UserError(f"--out {out}: its name has to end in {', '.join(endings[:-1])} or {endings[-1]}.")
    if os.path.isdir(out):
        raise UserError(f"--out {out} is a folder: name a file.")
    folder = next(path for path in out.absolute().parents if os.path.exists(path))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {out.parent}: {error.strerror}. Choose another folder.") from None


def make_folder(out: Path) -> None:
    """Make the folder of a file that is to be written. Raises: RunError."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(out, error) from None


def need_packages(names: Sequence[str], extra: str, what: str) -> None:
    """Raises: UserError when a package cannot be imported, which an extra of this one brings."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            why = "which is not installed" if isinstance(error, ModuleNotFoundError) else f"which fails ({error})"
            raise UserError(f"{what} needs {name}, {why}: pip install 'contrastive[{extra}]'.") from None


# --- ONNX ---------------------------------------------------------------------------------------------------------


class Features(nn.Module):
    """What is exported: uint8 images -> features, normalisation included."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        return self.encoder(self.encoder.prepare(images))


def onnx_content(encoder: Encoder) -> bytes:
    """The encoder as an ONNX file, weights included, for any number of images. Raises: RunError."""
    import onnx

    from .. import __version__

    assert encoder.preparation is not None
    p = encoder.preparation
    images = torch.zeros(2, p.channels, p.height, p.width, dtype=torch.uint8)
    try:
        with silence():
            program = torch.onnx.export(
                Features(encoder).eval(), (images,), dynamo=True, input_names=["images"], output_names=["features"],
                dynamic_shapes={"images": {0: torch.export.Dim("N")}}, opset_version=OPSET, verbose=False,
            )  # fmt: skip
            assert program is not None
            model = program.model_proto
            forget_origins(model)
            told = {
                "preparation": json.dumps(p.as_json()),
                "preparation_in_words": p.in_words(),
                "contrastive": __version__,
                "run": encoder.run_identity,
            }
            onnx.helper.set_model_props(model, told)
            onnx.checker.check_model(model)
            return model.SerializeToString(deterministic=True)
    except Exception as error:  # of an exporter of many parts, on a network that may be a stranger's
        why = " ".join(str(error).split())[:300]
        raise RunError(f"this encoder cannot be exported to ONNX: {type(error).__name__}: {why}") from None


def forget_origins(model: Any) -> None:
    """Remove what the exporter notes of where each node came from: it holds the paths of this machine's files."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Have the exporter, which tells of its steps by every way there is, say nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(before)


def check_graph(content: bytes, encoder: Encoder) -> None:
    """Compare an ONNX file with its encoder on random images, where onnxruntime is installed. Raises: RunError."""
    try:
        import onnxruntime
    except ImportError:
        say("onnxruntime is not installed, so the exported graph was not compared with the encoder")
        return
    assert encoder.preparation is not None
    p = encoder.preparation
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    draws = np.random.default_rng(0)
    for n in (1, 3):
        images = draws.integers(0, 256, (n, p.channels, p.height, p.width), np.uint8)
        expected = encoder.transform(images)
        (found,) = session.run(["features"], {"images": images})
        if found.shape != expected.shape or not np.allclose(found, expected, TOLERANCE, TOLERANCE):
            raise RunError(
                "the exported graph gives other features than the encoder on random images, so it was not written. "
                "Export to .safetensors instead."
            )
