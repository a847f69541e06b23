"""What a reader needs to know, and to do, to get the same numbers."""

import os
import platform
import shlex
import subprocess
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..data import Images, Splits
from ..evaluation import measuring_version
from ..settings import Settings, as_text, checkout, digest, plugins
from ..training import FITTED

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "seaborn",
    "matplotlib",
    "papermill",
    "nbconvert",
    "pydantic",
)
ONLY = "CONTRASTIVE_ONLY"  # in the environment of a kernel: the notebooks of its report, if they are not all
_started = datetime.now(timezone.utc)


def provenance(settings: Settings) -> dict[str, Any]:
    """Versions, commit, device, threads, precision, seeds, start and end, and the command that repeats it all."""
    commit, runtime = _git("rev-parse", "HEAD"), settings.runtime
    return {
        "commit": commit or "unknown: not run from a git checkout",
        # Reports are what the code writes, not the code.
        "dirty": bool(commit and _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports")),
        "run": digest(settings.identity),
        "evaluation_version": measuring_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES}
        | plugins()
        | {"python": platform.python_version()},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "device": runtime.device if runtime.device != "cuda" else f"cuda ({torch.cuda.get_device_name()})",
        "threads": torch.get_num_threads(),
        "precision": runtime.precision,
        "seeds": [runtime.seed + i for i in range(settings.report.n_seeds)],
        "start": _started.isoformat(timespec="seconds"),
        "end": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "changed": {name: as_text(value) for name, value in changed(settings).items()},
        "command": command(settings),
    }


def cpu_model() -> str:
    """What the processor calls itself, where the system tells."""
    with suppress(OSError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()]
        return next((value.strip() for name, _, value in lines if name.strip() == "model name"), "unknown")
    return platform.processor() or "unknown"


def _git(*words: str) -> str:
    root = checkout()
    if root is None:
        return ""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def changed(settings: Settings) -> dict[str, Any]:
    """Each value that was asked for and differs from the preset's, or might differ from what the preset's becomes."""
    chosen = {"encoder": settings.encoder.name, "method": settings.method.name}
    usual = {**Settings(preset=settings.preset, **chosen).flat(), "encoder": "cnn", "method": "simclr"}
    # What was found for these data and this machine is no part of the request.
    return {
        name: value
        for name, value in settings.flat().items()
        if name in settings.asked
        and name not in ("preset", "dataset")
        and (value != usual[name] or (name in FITTED and value is not None))
    }


def command(settings: Settings) -> str:
    """The command that makes this report again: its preset, each value that differs from the preset's, and its
    notebooks, if the runner says that they are not all."""
    words = ["contrastive", "report", "--preset", settings.preset, "--dataset", settings.data.dataset]
    for notebook in filter(None, os.environ.get(ONLY, "").split(",")):
        words += ["--only", notebook]
    for name, value in changed(settings).items():
        words += ["-p", f"{name}={as_text(value)}"]
    return shlex.join(words)


def describe_data(images: Images, splits: Splits) -> dict[str, Any]:
    """The `dataset` part of the results: name, checksum, how many images serve for what, and any note."""
    said: dict[str, Any] = {"name": images.name, "sha256": images.sha256}
    said |= {"pretrain": len(splits.pretrain), "train": len(images.train), "labels": images.n_labels}
    said |= {"validation": len(splits.validation), "test": len(images.test)}
    said["preparation"] = images.preparation.as_json()  # with the window, where there is one
    if images.account.left_out:
        said["left_out"] = {f"{where}: {why}".removeprefix(": "): n for where, why, n in images.account.left_out}
    return said | ({"note": images.note} if images.note else {})
