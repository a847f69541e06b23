"""Checkpoints of a training: written so that one survives anything, checked before anything in them is believed."""

import hashlib
import inspect
import io
import math
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ..data.guards import fit_memory
from ..settings import Settings, UserError
from ..storage.files import DamagedError, atomic_write, say, sync_folder, write_failure, write_lines
from .loop import Training, begin_epoch
from .state import LoopState

STATE, PREVIOUS = "state.pt", "state.previous.pt"
# What `pack` puts into a state
KINDS = dict(identity=str, history=list, method=OrderedDict, optimiser=dict, position=dict)
STATE_FORMAT = 4


# --- The file -----------------------------------------------------------------------------------------------------


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state.pt`, the one before it becoming `state.previous.pt` once the new one has been read back whole.

    Raises: RunError when it cannot be written; then the old ones are still there.
    """
    buffer = io.BytesIO()
    torch.save({**state, "format": STATE_FORMAT}, buffer)
    new = folder / f"{STATE}.new"
    atomic_write(new, seal(buffer.getvalue()))
    try:
        unseal(new.read_bytes())
        if _is_whole(folder / STATE):  # a damaged one must not take the place of the one before
            (folder / STATE).replace(folder / PREVIOUS)
        new.replace(folder / STATE)
        sync_folder(folder)
    except (OSError, ValueError) as error:
        raise write_failure(folder / STATE, error) from None


def _is_whole(path: Path) -> bool:
    try:
        unseal(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, with its tensors on the CPU, or None when there is none.

    Says so when the newest is damaged. Raises: UserError when none is whole, or another version wrote it.
    """
    problem: DamagedError | None = None
    for path in (folder / STATE, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state = _read(path)
        except DamagedError as error:
            problem = problem or error
            continue
        if problem is not None:
            say(f"{problem} The checkpoint before it is used.")
        return state
    if problem is not None:
        raise UserError(f"{problem} Delete {folder} to train the run anew.")
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        fit_memory(path.stat().st_size, path)
        content = unseal(path.read_bytes())
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")  # torch.save does not; a bomb would
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        state_format = state["format"]
        if type(state_format) is int and state_format != STATE_FORMAT:
            raise UserError(f"{path} was made by older code. Delete {path.parent} to train the run anew.")
        if type(state_format) is not int or not all(type(state[name]) is kind for name, kind in KINDS.items()):
            raise TypeError("not what pack gives")
    except UserError:
        raise
    except Exception as error:  # a damaged or hostile file raises many things
        raise DamagedError(f"{path} is damaged, or of another version ({type(error).__name__}).") from None
    return state


def seal(content: bytes) -> bytes:
    """A zip file without a comment, as torch.save writes it, with the SHA-256 of its bytes as the comment.

    It stays a file that torch.load reads. PyTorch itself reads tensors without looking at the zip file's checksums.
    """
    digest = hashlib.sha256(content[:-2]).hexdigest().encode()
    return content[:-2] + len(digest).to_bytes(2, "little") + digest


def unseal(content: bytes) -> bytes:
    """The content of a sealed zip file. Raises: ValueError when it is not what was sealed."""
    plain = content[:-66] + b"\0\0"
    if seal(plain) != content:
        raise ValueError("the checksum is wrong")
    return plain


# --- When ---------------------------------------------------------------------------------------------------------


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


class RunCheckpoints:
    """The checkpoints of a run's folder, for `train`: its newest state, and the history as people can read it."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.pause = folder, Pause(seconds)

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return self.pause.is_over()

    def write(self, training: Training, state: LoopState, history: list[dict[str, Any]]) -> None:
        """Write one. Raises: RunError."""
        with self.pause:
            save_state(self.folder, pack(training, state, history))
            write_lines(self.folder / "history.jsonl", history)


# --- What is in it ------------------------------------------------------------------------------------------------


def pack(training: Training, state: LoopState, history: list[dict[str, Any]]) -> dict[str, Any]:
    """All that decides how a training goes on, for `save_state`."""
    return {
        "identity": training.settings.identity,
        "history": history,
        "method": training.method.state_dict(),
        "optimiser": training.optimiser.state_dict()["state"],
        "position": state.as_dict(),
    }


def unpack(saved: dict[str, Any], training: Training, path: Path) -> tuple[LoopState, list[dict[str, Any]]]:
    """Put what `pack` gave into a training that has just been started. Returns state and history.

    Raises: DamagedError when it does not fit; then the training is of no more use.
    """
    try:
        training.method.load_state_dict(saved["method"])
        _load_optimiser(training.optimiser, saved["optimiser"])
        epoch, history = saved["position"]["epoch"], saved["history"]
        if type(epoch) is not int or not 0 <= epoch < training.settings.optimiser.epochs:
            raise ValueError("no such epoch")
        state = begin_epoch(training, epoch).restore(saved["position"], training.steps_of_epoch)
        finished = epoch + (state.step == training.steps_of_epoch)
        if len(history) != finished or not all(_is_epoch(i, entry) for i, entry in enumerate(history, 1)):
            raise ValueError("the history does not fit")
        if state.step == training.steps_of_epoch and finished < training.settings.optimiser.epochs:
            raise ValueError("an epoch that has ended is not kept, unless it is the last one")
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DamagedError(f"{path} does not fit its run ({type(error).__name__}). Delete {path.parent}.") from None
    return state, history


def same_run(saved: dict[str, Any], settings: Settings, folder: Path) -> None:
    """Raises: UserError when a checkpoint is of another run."""
    if saved.get("identity") != settings.identity:
        raise UserError(f"the checkpoint in {folder} is of another run. Delete that folder.")


def _is_epoch(number: int, entry: dict[str, Any]) -> bool:
    numbers = all(type(value) in (int, float) and math.isfinite(value) for value in entry.values())
    return numbers and entry["epoch"] == number


def _load_optimiser(optimiser: torch.optim.Optimizer, saved: dict[int, dict[str, Any]]) -> None:
    """Load what an optimiser remembers of each parameter. What steers it, such as weight decay, stays as it is.

    Raises: ValueError when that is not what this optimiser remembers.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    if not saved.keys() <= set(range(len(parameters))):
        raise ValueError("parameters that there are not")
    names = _remembered(optimiser)
    state: dict[int, dict[str, Any]] = {}
    for i, kept in saved.items():
        if kept.keys() != names.keys():
            raise ValueError("not what this optimiser remembers")
        state[i] = {}
        for name, like_parameter in names.items():
            if kept[name].shape != (parameters[i].shape if like_parameter else ()):
                raise ValueError(f"{name} has another shape")
            # A fused step trusts these to lie in memory as the parameter does; a file may say otherwise.
            like = parameters[i] if like_parameter else torch.empty((), device=kept[name].device)
            state[i][name] = torch.empty_like(like, requires_grad=False).copy_(kept[name])
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _remembered(optimiser: torch.optim.Optimizer) -> dict[str, bool]:
    """What an optimiser keeps for a parameter, and whether it has the parameter's shape: by a step on a small one."""
    probe = torch.nn.Parameter(torch.zeros(2, 3))
    probe.grad = torch.zeros(2, 3)
    kind: Any = type(optimiser)
    known = inspect.signature(kind).parameters  # AdamW's defaults name something that it does not take
    twin = kind([probe], **{name: value for name, value in optimiser.defaults.items() if name in known})
    twin._warned_capturable_if_run_uncaptured = True  # of no concern here
    twin.step()
    return {name: value.shape == probe.shape for name, value in twin.state[probe].items()}
