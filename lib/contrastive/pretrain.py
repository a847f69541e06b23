"""Runs as folders that are loaded, resumed or trained as need be; their checkpoints and other files."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from torch import nn
from tqdm import tqdm

from .data import load_images, resolve, split
from .encoders import Encoder, build_encoder
from .methods import SimCLR
from .settings import Settings, UserError, make_settings, runs_root
from .training import initial_method, start

CHECKPOINT_SECONDS = 30.0
STATE_FORMAT = 2  # 1: the head took the features of a map in the order channel, height, width
TRAINING_CODE = ("augment", "data", "encoders", "losses", "methods", "mnist", "pretrain", "training")


@dataclass(frozen=True)
class Run:
    """A finished pretraining run. `history` has one entry per epoch; `code_changed` is true when the training code
    has changed since the run was made, so that the same settings might now give other weights."""

    folder: Path
    settings: Settings
    history: list[dict[str, float]] = field(repr=False)
    code_changed: bool

    @property
    def seconds(self) -> float:
        """Time spent training, over all sessions."""
        return sum(epoch["seconds"] for epoch in self.history)

    @property
    def images_per_second(self) -> float:
        """Unlabelled images (not views) per second of training."""
        return sum(epoch["images"] for epoch in self.history) / self.seconds


def pretrain(settings: Settings, progress: bool = True) -> Run:
    """Train an encoder without labels; or load the run, or resume it, if one with these settings exists.

    Raises: UserError when the data cannot serve the settings, or the loss is no longer finite.
    """
    settings = resolve(settings)
    assert settings.n_images is not None
    folder = runs_root() / settings.run_name
    if (run := _finished(folder, settings)) is not None:
        return run
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the run to {folder}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    atomic_write(folder / "settings.json", settings.canonical_json().encode())

    images = load_images(settings)
    training = start(settings, images.train[split(images, settings.n_images, settings.seed).pretrain])
    method, optimizer = training.method, training.optimizer
    history, code = _resume(folder, method, optimizer, torch.device(settings.device), images.sha256)
    bar = tqdm(
        total=settings.epochs, initial=len(history), desc=f"seed {settings.seed}", unit="epoch", file=sys.stdout,
        disable=not progress, mininterval=1, dynamic_ncols=sys.stdout.isatty(),
    )  # fmt: skip
    saved = time.monotonic()
    with bar:
        for epoch in range(len(history), settings.epochs):
            history.append(training.epoch(epoch))
            bar.set_postfix_str(
                f"loss {history[-1]['loss']:.3f}, {history[-1]['images'] / history[-1]['seconds']:,.0f} images/s", False
            )
            bar.update()
            if time.monotonic() - saved > CHECKPOINT_SECONDS or epoch + 1 == settings.epochs:
                _save_checkpoint(folder, method, optimizer, history, code, images.sha256)
                saved = time.monotonic()
    _write_history(folder, history)
    _save_encoder(folder, method.encoder, settings, code)
    run = _finished(folder, settings)
    assert run is not None
    return run


# --- A run's files ----------------------------------------------------------------------------------------------


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, either the old or the new content is there, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def code_hash(modules: tuple[str, ...] = TRAINING_CODE) -> str:
    """A digest of some modules' code as parsed, so that comments and layout do not count (docstrings do)."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update(ast.dump(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())).encode())
    return digest.hexdigest()[:16]


def _save_checkpoint(folder: Path, method: nn.Module, optimizer, history: list, code: str, data: str) -> None:
    temporary = folder / f".state.pt.{os.getpid()}"
    state = {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
    torch.save({**state, "code": code, "data": data, "format": STATE_FORMAT}, temporary)
    temporary.replace(folder / "state.pt")
    _write_history(folder, history)


def _write_history(folder: Path, history: list[dict[str, float]]) -> None:
    atomic_write(folder / "history.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in history).encode())


def _resume(
    folder: Path, method: nn.Module, optimizer, device: torch.device, data: str
) -> tuple[list[dict[str, float]], str]:
    """Load the checkpoint, if there is one, into method and optimizer. Returns history and hash of the code."""
    if not (folder / "state.pt").is_file():
        return [], code_hash()
    state = _load_state(folder, device)
    _same_data(folder, state["data"], data)
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    return state["history"], state["code"] if state["code"] == code_hash() else "mixed"


def _same_data(folder: Path, trained_on: str, found: str) -> None:
    if trained_on != found:
        raise UserError(f"the run in {folder} was trained on other data of the same name. Delete that folder.")


def _load_state(folder: Path, device: torch.device) -> dict[str, Any]:
    try:
        state = torch.load(folder / "state.pt", map_location=device, weights_only=True)
    except Exception as error:  # a damaged zip file raises many things
        raise UserError(
            f"{folder / 'state.pt'} is damaged ({type(error).__name__}). Delete that file to train the run anew."
        ) from None
    if state.get("format") != STATE_FORMAT:
        raise UserError(f"{folder / 'state.pt'} was written by another version. Delete that folder to train it anew.")
    return state


def _save_encoder(folder: Path, encoder: Encoder, settings: Settings, code: str) -> None:
    images = load_images(settings)
    metadata = {
        "settings": settings.canonical_json(),
        "shape": json.dumps(list(images.train.shape[1:])),
        "code": code,
        "data": images.sha256,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    atomic_write(folder / "encoder.safetensors", safetensors_bytes(tensors, metadata))


def _finished(folder: Path, settings: Settings) -> Run | None:
    """The run in that folder if it is complete. The encoder file is written last."""
    if not (folder / "encoder.safetensors").is_file() or not (folder / "history.jsonl").is_file():
        return None
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    with _open_encoder(folder / "encoder.safetensors") as file:
        code, data = (file.metadata()[name] for name in ("code", "data"))
    _same_data(folder, data, load_images(settings).sha256)
    return Run(folder, settings, history, code_changed=code != code_hash())


def _open_encoder(path: Path):
    try:
        return safe_open(path, "pt")
    except Exception as error:
        raise UserError(f"{path} cannot be read as an encoder ({error}). Delete it to train the run anew.") from None


def load_encoder(source: Run | Path | str) -> Encoder:
    """The frozen encoder of a run, from the run, its folder or its `encoder.safetensors`, in eval mode on the CPU.

    `encoder(encoder.prepare(images))` gives the float32 N x feature_dim features of uint8 images N x C x H x W.
    Raises: UserError when there is no such file or it is damaged.
    """
    path = source.folder if isinstance(source, Run) else Path(source)
    path = path / "encoder.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"there is no encoder at {path}. Give a finished run's folder.")
    with _open_encoder(path) as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings = make_settings(**json.loads(metadata["settings"]))
    mean, std = (tuple(tensors[name].tolist()) for name in ("mean", "std"))
    encoder = build_encoder(settings, tuple(json.loads(metadata["shape"])), mean, std)
    encoder.load_state_dict(tensors)
    return encoder.eval().requires_grad_(False)


def load_method(run: Run) -> SimCLR:
    """The whole method of a run, projection head included, in eval mode on the CPU."""
    method = initial_method(run.settings)
    method.load_state_dict(_load_state(run.folder, torch.device("cpu"))["method"])
    return method.eval().requires_grad_(False)
