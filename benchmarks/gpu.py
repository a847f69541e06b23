"""`python -m benchmarks --scope gpu`: what a GPU does, within a few minutes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from contrastive.data import Images, load_images
from contrastive.settings import UserError
from contrastive.storage.files import atomic_write
from contrastive.training.devices import choose_precision

from .arms import CORES
from .gpu_parts import PARTS, Part, Setup, Sizes
from .gpu_tables import gpu_section, value_text
from .made_up import write_made_up

NUMBERS = "benchmarks-gpu.json"
PEERS = {"lightly": "lightly", "kornia": "kornia", "pytorch-metric-learning": "pytorch_metric_learning"}
MADE_UP = "made up"
SPARE = 2  # images that there are, as a multiple of those to pretrain on: some are kept for validation


def commit() -> str:
    """The commit that is checked out, with `-dirty` where files were changed since."""
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def images_at_hand(folder: Path, sizes: Sizes) -> tuple[Images, Images, dict[str, str]]:
    """Grey images of 28 pixels: MNIST, if it is there without a download, else made up; and made-up ones in colour, of
    32 pixels. Returns both, and what they are."""

    def invented(side: int, channels: int) -> Images:
        return load_images(write_made_up(folder, SPARE * sizes.n_images, sizes.n_images, side, channels))

    with mock.patch.dict(os.environ, CONTRASTIVE_OFFLINE="1"):
        try:
            grey, what = load_images("mnist"), "MNIST"
        except UserError:
            grey, what = invented(28, 1), MADE_UP
    return grey, invented(32, 3), {"grey": what, "colour": MADE_UP}


def about(setup: Setup, what: Mapping[str, str], at: str) -> dict[str, Any]:
    """On what it is measured."""
    on_gpu = setup.device.startswith("cuda")
    return {
        "gpu": torch.cuda.get_device_name(setup.device) if on_gpu else f"no GPU ({setup.device})",
        "cores": CORES,
        "torch": torch.__version__,
        "commit": commit() or at or "unknown",
        "precision": setup.own.get("precision") or choose_precision("auto", setup.device),
        "n_images": setup.sizes.n_images,
        "batch_size": setup.sizes.batch_size,
        "start": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "missing": [name for name, module in PEERS.items() if find_spec(module) is None],
        **what,
    }


def measure(
    setup: Setup,
    results: dict[str, Any],
    path: Path,
    deadline: float,
    parts: Mapping[str, tuple[Part, float]] = PARTS,
    show: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Every part for which there is time. A part that fails is left out, as is said, and the others go on.

    Args:
        setup: where, and on what.
        results: what is known before; the parts are added.
        path: the file that is written after each part.
        deadline: of `time.perf_counter`, until which all has to be done.
        parts: name -> what measures it, and seconds that it may take.
        show: is told each figure as it comes.
    """
    results |= {"parts": {}, "left_out": {}, "seconds": {}}
    for name, (part, expected) in parts.items():
        started, rows = time.perf_counter(), results["parts"].setdefault(name, [])
        if started + expected > deadline:
            results["left_out"][name] = "there was no time for it"
        else:
            try:
                for row in part(setup):
                    rows.append(asdict(row))
                    show(f"{row.what}: {value_text(rows[-1])} {row.note and f'({row.note})'}".rstrip())
            except Exception as error:  # whatever it is, the minutes on a lent machine are for the other parts
                traceback.print_exc()
                results["left_out"][name] = f"it failed: {type(error).__name__}"
        if name in results["left_out"]:
            show(f"left out: {name}, {results['left_out'][name]}")
        gc.collect()
        if setup.device.startswith("cuda"):
            torch.cuda.empty_cache()
        results["seconds"][name] = round(time.perf_counter() - started, 1)
        atomic_write(path, (json.dumps(results, indent=1) + "\n").encode())
        show(f"{name}: {results['seconds'][name]:.0f} s")
    return results


def main(out: Path, minutes: float, at: str = "") -> int:
    """Measure, print a table in Markdown, and write the numbers into a folder.

    Args:
        out: the folder.
        minutes: in which all has to be done.
        at: the commit, where git does not tell it.

    Returns: the exit code: 0; 1 when a part failed; 2 when there is no GPU or no such folder.
    """
    deadline = time.perf_counter() + 60 * minutes
    if not torch.cuda.is_available():
        print("error: --scope gpu needs a GPU that PyTorch can use (CUDA), and there is none.", file=sys.stderr)
        return 2
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"error: cannot write to {out}: {error.strerror}. Choose another folder by --out.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        grey, colour, what = images_at_hand(Path(folder), Sizes())
        setup = Setup("cuda", Sizes(), grey, colour, {})
        results = measure(setup, about(setup, what, at), out / NUMBERS, deadline)
    print(f"\n{gpu_section(results)}\n\n{out / NUMBERS}")
    return int(any(why.startswith("it failed") for why in results["left_out"].values()))
