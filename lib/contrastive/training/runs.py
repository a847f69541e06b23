"""Runs as folders that are loaded, resumed or trained as need be; their encoders."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..data import ImageFormat, Images, split
from ..data.picture import BACKGROUNDS
from ..data.preparation import FITS, Preparation
from ..encoders import Encoder, build_encoder
from ..encoders.initial import ENCODER
from ..methods import Method
from ..settings import ENCODERS, EncoderSettings, Settings, UserError, digest, runs_root
from ..storage.cache import memo
from ..storage.files import DamagedError, atomic_write, read_lines, write_lines
from ..storage.tensors import read_tensors, write_tensors
from .checkpoint import PREVIOUS, STATE, RunCheckpoints, load_state, same_run, unpack
from .loop import Epoch, Training, initial_method, start, train
from .resolution import resolve
from .state import LoopState

HISTORY = "history.jsonl"
FORMAT = 2  # of an encoder's metadata; 1 had a digest of the code
BROKEN_ENCODER = (RuntimeError, LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Run:
    """A finished pretraining run. `history` has one entry for each epoch."""

    folder: Path
    settings: Settings
    history: list[Epoch] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Time spent training, over all sessions."""
        return sum(epoch["seconds"] for epoch in self.history)

    @property
    def images_per_second(self) -> float:
        """Unlabelled images (not views) per second of training."""
        return sum(epoch["images"] for epoch in self.history) / self.seconds


def pretrain(settings: Settings, progress: bool = True, images: Images | None = None) -> Run:
    """Train an encoder; or load the run, or resume it, if one with these settings exists.

    A resumed run ends with the same bits as one that was never interrupted, on the same machine with the same number
    of threads. While another process trains the same run, this one waits for it.

    Args:
        settings: any; they are resolved first.
        progress: whether to show a bar.
        images: those to train on, if they are not to be loaded as the settings say, such as `load_images` gave of an
            array.

    Returns:
        The finished run.

    Raises:
        UserError: when the data cannot serve the settings.
        RunError: when the loss or a gradient is no longer finite, or a file cannot be written.
    """
    settings, images = resolve(settings, images)
    folder = run_folder(settings)

    def compute() -> Run:
        return _train(folder, settings, images, progress)

    return memo(folder, settings.identity, compute, RunFolder(settings), "training it")


def run_folder(settings: Settings) -> Path:
    """Where the run of resolved settings lies, or will: only the digest at the end of its name counts, so that it is
    found when its data were moved."""
    known = sorted(path for path in runs_root().glob(f"*-{digest(settings.identity)}") if path.is_dir())
    return known[0] if known else runs_root() / settings.run_name


def _train(folder: Path, settings: Settings, images: Images, progress: bool) -> Run:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the run to {folder}: {error.strerror}. Set CONTRASTIVE_RUNS.") from None
    atomic_write(folder / "settings.json", (json.dumps(settings.as_json(), indent=1) + "\n").encode())
    index = split(images, settings.data.n_images or 0, settings.runtime.seed).pretrain
    training = start(settings, images.format, images.train[index], images.train_labels[index])
    state: LoopState | None = None
    history: list[Epoch] = []
    if (saved := load_state(folder)) is not None:
        same_run(saved, settings, folder)
        state, history = unpack(saved, training, folder / STATE)
    bar = tqdm(
        total=settings.optimiser.epochs, initial=len(history), desc=f"seed {settings.runtime.seed}", unit="epoch",
        file=sys.stdout, disable=not progress, mininterval=1, dynamic_ncols=sys.stdout.isatty(),
    )  # fmt: skip

    def show(epoch: Epoch) -> None:
        bar.set_postfix_str(f"loss {epoch['loss']:.3f}, {epoch['images'] / epoch['seconds']:,.0f} images/s", False)
        bar.update()

    with bar:
        checkpoints = RunCheckpoints(folder, settings.runtime.checkpoint_seconds)
        history = train(training, state, history, checkpoints, show)
    (folder / PREVIOUS).unlink(missing_ok=True)
    save_encoder(folder / ENCODER, training, images.sha256, _preparation(images))
    return Run(folder, settings, history)


def _preparation(images: Images) -> Preparation:
    """What was done to each picture; of images that were put together by hand, nothing."""
    channels, height, width = images.format.shape
    told = images.preparation
    fits = (told.channels, told.height, told.width) == (channels, height, width)
    return told if fits else Preparation(height, width, channels)


class RunFolder:
    """A finished run as a folder, for `memo`. What decides no weights, such as budgets, is as it is asked for now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def read(self, path: Path, key: str) -> Run:
        """The run. Raises: FileNotFoundError; DamagedError; UserError when the folder holds another run."""
        metadata, _ = read_encoder(path / ENCODER)
        if metadata.get("identity") != key:
            raise UserError(f"the encoder in {path} is of another run. Delete that folder.")
        return Run(path, self.settings, read_lines(path / HISTORY, self.settings.optimiser.epochs))

    def write(self, path: Path, key: str, value: Run) -> None:
        """Write what can be read by people; all else was written while the run was trained."""
        write_lines(path / HISTORY, value.history)


# --- Encoders -----------------------------------------------------------------------------------------------------


def save_encoder(path: Path, training: Training, data_sha256: str, preparation: Preparation) -> None:
    """Write a training's encoder with all that it takes to build it again, and to use it. Raises: RunError."""
    settings, method = training.settings, training.method
    metadata = {
        "format": FORMAT,
        "identity": settings.identity,
        "settings": settings.as_json(),
        "shape": list(training.data.shape[1:]),
        "n_classes": method.n_classes,
        "data": data_sha256,
        "preparation": preparation.as_json(),
    }
    write_tensors(path, metadata, method.encoder.state_dict())


def read_encoder(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Metadata and tensors of an encoder's file. Raises: DamagedError; FileNotFoundError; UserError for an old one."""
    metadata, tensors = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} was made by older code. Delete {path.parent}, and train the run anew.")
    return metadata, tensors


def _encoder_settings(flat: dict[str, Any]) -> EncoderSettings:
    """An encoder's own parameters, whatever became of the others since. Raises: ValueError and the like."""
    parameters: type[EncoderSettings] = ENCODERS[flat["encoder"]].Parameters
    return parameters(**{field: flat[leaf] for leaf, field in parameters.leaves("encoder").items() if leaf in flat})


def encoder_file(source: Run | Path | str) -> Path:
    """Where the encoder lies of a run, its folder or its file. Raises: UserError when there is none."""
    path = source.folder if isinstance(source, Run) else Path(source)
    path = path / ENCODER if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"there is no encoder at {path}. Give a finished run's folder.")
    return path


def saved_preparation(metadata: dict[str, Any]) -> Preparation:
    """What was done to a run's pictures, by its encoder's metadata. Raises: ValueError and the like."""
    channels, height, width = metadata["shape"]
    if "preparation" not in metadata:  # by a version that read only images of one size, and left them as they were
        return Preparation(height, width, channels)
    preparation = Preparation.from_json(metadata["preparation"])
    if (preparation.channels, preparation.height, preparation.width) != (channels, height, width):
        raise ValueError("another shape")
    if preparation.fit not in FITS or preparation.background not in BACKGROUNDS:
        raise ValueError("an unknown way to prepare pictures")
    return preparation


def load_encoder(source: Run | Path | str) -> Encoder:
    """The frozen encoder of a run, in eval mode on the CPU.

    `encoder.transform(images)` gives the features of uint8 images or of files: a NumPy array, float32 N x out_dim.
    `encoder(encoder.prepare(images))` does of a tensor, uint8 N x C x H x W, and gives one. `encoder.preparation` is
    what was done to the run's pictures.

    Args:
        source: the run, its folder, or its `encoder.safetensors`.

    Raises:
        UserError: when there is no such file or it is damaged, or a package is missing that brings the network.
    """
    path = encoder_file(source)
    metadata, tensors = read_encoder(path)
    try:
        settings = _encoder_settings(metadata["settings"])
        shape = tuple(metadata["shape"])
        mean, std = (tuple(tensors[name].tolist()) for name in ("mean", "std"))
        with torch.device("meta"):  # so that a size which the tensors do not bear out is not allocated
            encoder = build_encoder(settings, shape, mean, std)
        if {k: t.dtype for k, t in encoder.state_dict().items()} != {k: t.dtype for k, t in tensors.items()}:
            raise TypeError("other tensors")
        encoder.load_state_dict(tensors, assign=True)
        if any(buffer.is_meta for buffer in encoder.buffers()):  # which files do not hold: a network makes them
            encoder = build_encoder(settings, shape, mean, std)
            encoder.load_state_dict(tensors)
        encoder.preparation, encoder.run_identity = saved_preparation(metadata), metadata["identity"]
    except UserError as error:  # a library or a plug-in is not there
        raise UserError(f"{path} cannot be used here: {error}") from None
    except BROKEN_ENCODER as error:
        raise DamagedError(f"{path} does not hold the encoder that it tells of ({type(error).__name__}).") from None
    return encoder.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def untrained_method(run: Run) -> Method:
    """The whole method of a run with random weights, on the CPU: those that its training started from, unless the
    encoder was given others."""
    metadata, tensors = read_encoder(run.folder / ENCODER)
    mean, std = (tuple(tensors[name].tolist()) for name in ("mean", "std"))
    return initial_method(run.settings, ImageFormat(tuple(metadata["shape"]), mean, std, metadata["n_classes"]))


def load_method(run: Run) -> Method:
    """The whole method of a run, heads included, in eval mode on the CPU. Raises: UserError."""
    method, saved = untrained_method(run), load_state(run.folder)
    if saved is None:
        raise UserError(f"there is no checkpoint in {run.folder}. Delete that folder to train the run anew.")
    same_run(saved, run.settings, run.folder)
    try:
        method.load_state_dict(saved["method"])
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{run.folder / STATE} does not fit its run ({type(error).__name__}). Delete it.") from None
    return method.eval().requires_grad_(False)
