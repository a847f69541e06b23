"""Runs as folders that are loaded, resumed or trained as need be; their checkpoints and other files."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from tqdm import tqdm

from .checkpoint import PREVIOUS, STATE, load_state, pack, same_settings, save_state, unpack
from ..data.images import load_images, resolve, split
from ..encoders.cnn import Encoder, build_encoder
from ..storage.files import DamagedError, atomic_write, locked, read_lines, say, write_lines
from ..methods.simclr import SimCLR
from ..settings.model import Settings, UserError, make_settings, runs_root
from ..storage.signals import Stop
from .loop import Position, Training, initial_method, start

TRAINING_CODE = ("augment", "checkpoint", "data", "encoders", "losses", "methods", "mnist", "pretrain", "training")


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
    def way(self) -> float:
        """How far the loss went from chance (0) to about the lowest that the temperature allows (1)."""
        last = self.history[-1]
        return (last["chance_loss"] - last["loss"]) / (last["chance_loss"] - last["lowest_loss"])

    @property
    def images_per_second(self) -> float:
        """Unlabelled images (not views) per second of training."""
        return sum(epoch["images"] for epoch in self.history) / self.seconds


def pretrain(settings: Settings, progress: bool = True) -> Run:
    """Train an encoder without labels; or load the run, or resume it, if one with these settings exists.

    A resumed run ends with the same bits as one that was never interrupted, on the same machine with the same number
    of threads. While another process trains the same run, this one waits for it.
    Raises: UserError when the data cannot serve the settings; RunError when the loss or a gradient is no longer
    finite, or a file cannot be written.
    """
    settings = resolve(settings)
    folder = runs_root() / settings.run_name
    if (run := _finished(folder, settings, tell_damage=False)) is not None:
        return run
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the run to {folder}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    with locked(folder, "training it"):
        if (run := _finished(folder, settings)) is None:  # by the process that was waited for
            run = _train(folder, settings, progress)
    return run


def _train(folder: Path, settings: Settings, progress: bool) -> Run:
    assert settings.n_images is not None
    atomic_write(folder / "settings.json", settings.canonical_json().encode())
    images = load_images(settings)
    training = start(settings, images.train[split(images, settings.n_images, settings.seed).pretrain])
    position, history, code = _resume(folder, training, images.sha256)
    bar = tqdm(
        total=settings.epochs, initial=len(history), desc=f"seed {settings.seed}", unit="epoch", file=sys.stdout,
        disable=not progress, mininterval=1, dynamic_ncols=sys.stdout.isatty(),
    )  # fmt: skip
    pause = Pause(settings.checkpoint_seconds)
    with bar, Stop() as stop:
        while position.epoch < settings.epochs:
            training.advance(position)
            if position.step == training.steps:
                history.append(training.finish(position))
                position = training.begin(position.epoch + 1)
                last = history[-1]
                bar.set_postfix_str(f"loss {last['loss']:.3f}, {last['images'] / last['seconds']:,.0f} images/s", False)
                bar.update()
            if pause.is_over() or stop.signal or position.epoch == settings.epochs:
                training.check(position)
                with pause:
                    save_state(folder, pack(training, position, history, code, images.sha256))
                    write_lines(folder / "history.jsonl", history)
                position.clock = time.perf_counter()
            if stop.signal:
                stop.obey()
    write_lines(folder / "history.jsonl", history)
    (folder / PREVIOUS).unlink(missing_ok=True)
    _save_encoder(folder, training.method.encoder, settings, code)
    run = _finished(folder, settings)
    assert run is not None
    return run


class Pause:
    """The time between two checkpoints: at least `seconds`, and so long that writing them takes under a hundredth of
    it. Entered, it measures how long that takes. With 0 seconds there is no pause."""

    def __init__(self, seconds: float):
        self.seconds, self._cost, self._since = seconds, 0.0, time.monotonic()

    def is_over(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return self.seconds == 0 or time.monotonic() - self._since >= max(self.seconds, 100 * self._cost)

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self._cost = time.monotonic() - self._since
        self._since += self._cost


# --- A run's files ----------------------------------------------------------------------------------------------


def code_hash(modules: tuple[str, ...] = TRAINING_CODE) -> str:
    """A digest of some modules' code as parsed, so that comments and layout do not count (docstrings do)."""
    digest = hashlib.sha256()
    for name in modules:
        digest.update(ast.dump(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())).encode())
    return digest.hexdigest()[:16]


def _resume(folder: Path, training: Training, data: str) -> tuple[Position, list[dict[str, float]], str]:
    """Where training goes on, from the newest checkpoint or from the start; the history so far; hash of the code."""
    state = load_state(folder)
    if state is None:
        return training.begin(0), [], code_hash()
    same_settings(state, training.settings, folder)
    _same_data(folder, state["data"], data)
    position, history = unpack(state, training, folder / STATE)
    return position, history, state["code"] if state["code"] == code_hash() else "mixed"


def _same_data(folder: Path, trained_on: str, found: str) -> None:
    if trained_on != found:
        raise UserError(f"the run in {folder} was trained on other data of the same name. Delete that folder.")


def _save_encoder(folder: Path, encoder: Encoder, settings: Settings, code: str) -> None:
    images = load_images(settings)
    metadata = {
        "settings": settings.canonical_json(),
        "shape": list(images.train.shape[1:]),
        "code": code,
        "data": images.sha256,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    metadata["sha256"] = _encoder_digest(metadata, tensors)
    # One entry, since the format keeps several in no fixed order, and the same encoder should be the same bytes.
    content = safetensors_bytes(tensors, {"contrastive": json.dumps(metadata, sort_keys=True)})
    atomic_write(folder / "encoder.safetensors", content)


def _encoder_digest(metadata: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of all that an encoder's file says. The format has no checksum of its own."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in metadata.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def _finished(folder: Path, settings: Settings, tell_damage: bool = True) -> Run | None:
    """The run in that folder if it is complete and whole. The encoder's file is written last."""
    if not (folder / "encoder.safetensors").is_file():
        return None
    try:
        metadata, _ = _read_encoder(folder / "encoder.safetensors")
        history = read_lines(folder / "history.jsonl", settings.epochs)
    except FileNotFoundError:
        return None
    except DamagedError as damage:
        if tell_damage:
            say(f"{damage} It is made again.")
        return None
    if metadata["settings"] != settings.canonical_json():
        raise UserError(f"the encoder in {folder} is of another run. Delete that folder.")
    _same_data(folder, metadata["data"], load_images(settings).sha256)
    return Run(folder, settings, history, code_changed=metadata["code"] != code_hash())


def _read_encoder(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Metadata and tensors of an encoder's file, in which sizes were checked first. Raises: DamagedError."""
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["contrastive"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _encoder_digest(metadata, tensors):
            raise ValueError("the checksum is wrong")
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors has its own, and files may be anything
        raise DamagedError(f"{path} is damaged, or of another version ({type(error).__name__}).") from None
    return metadata, tensors


def load_encoder(source: Run | Path | str) -> Encoder:
    """The frozen encoder of a run, from the run, its folder or its `encoder.safetensors`, in eval mode on the CPU.

    `encoder(encoder.prepare(images))` gives the float32 N x feature_dim features of uint8 images N x C x H x W.
    Raises: UserError when there is no such file or it is damaged.
    """
    path = source.folder if isinstance(source, Run) else Path(source)
    path = path / "encoder.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"there is no encoder at {path}. Give a finished run's folder.")
    metadata, tensors = _read_encoder(path)
    try:
        settings = make_settings(**json.loads(metadata["settings"]))
        shape = tuple(metadata["shape"])
        mean, std = (tuple(tensors[name].tolist()) for name in ("mean", "std"))
        with torch.device("meta"):  # so that a size which the tensors do not bear out is not allocated
            encoder = build_encoder(settings, shape, mean, std)
        if {k: t.dtype for k, t in encoder.state_dict().items()} != {k: t.dtype for k, t in tensors.items()}:
            raise TypeError("other tensors")
        encoder.load_state_dict(tensors, assign=True)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} does not hold the encoder that it tells of ({type(error).__name__}).") from None
    return encoder.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def load_method(run: Run) -> SimCLR:
    """The whole method of a run, projection head included, in eval mode on the CPU. Raises: UserError."""
    method, state = initial_method(run.settings), load_state(run.folder)
    if state is None:
        raise UserError(f"there is no checkpoint in {run.folder}. Delete that folder to train the run anew.")
    same_settings(state, run.settings, run.folder)
    try:
        method.load_state_dict(state["method"])
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{run.folder / STATE} does not fit its run ({type(error).__name__}). Delete it.") from None
    return method.eval().requires_grad_(False)
