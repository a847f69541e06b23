"""`python -m benchmarks.packing SOURCE`: how fast many small files become a data set, beside a bare loop over them.

SOURCE is a folder or a .zip of small image files, which are copied until there are `--files` of them. The bare loop
opens one after another with Pillow, as RGB, in one process. Ours lists the files, with their labels and splits, and
decodes them by a process for each core into an empty cache, in a fresh process. Both take turns. Then `load_images`
opens what is kept: the first time it computes checksum and statistics, and it is timed again. Two ratios are given: of
wall-clock time by number of decoding processes, which is right only where nothing else runs; and of the time that cores
were busy, in all processes together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from contrastive.data import forget_images, load_images
from contrastive.data.packed import pack
from contrastive.data.processes import cores
from contrastive.data.sources import asked_reading, find_pictures
from contrastive.settings import Settings

from .memory import Memory

ENDINGS = (".jpg", ".jpeg", ".png")


def copies(source: Path, folder: Path, n: int) -> list[Path]:
    """Copy image files from a folder or a .zip, over and over under other names, until there are n. Returns them."""
    archive = zipfile.ZipFile(source) if source.is_file() else None
    names = archive.namelist() if archive else [str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()]
    names = sorted(name for name in names if name.lower().endswith(ENDINGS))
    made = []
    for i in range(n):
        name = Path(names[i % len(names)])
        made.append(folder / name.with_name(f"{name.stem}-{i // len(names)}{name.suffix}"))
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        made[-1].write_bytes(archive.read(names[i % len(names)]) if archive else (source / name).read_bytes())
    return made


def busy() -> float:
    """Seconds that cores worked for this process and those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def bare(paths: list[str]) -> tuple[float, float]:
    """Seconds, and busy seconds, of a file in a bare loop."""
    start, worked = time.perf_counter(), busy()
    for path in paths:
        np.asarray(Image.open(path).convert("RGB"))
    return (time.perf_counter() - start) / len(paths), (busy() - worked) / len(paths)


def ours(source: str) -> None:
    """Print seconds and busy seconds of each step, and how many images there are, as JSON."""
    figures: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        start, worked = time.perf_counter(), busy()
        yield
        figures[step], figures[f"{step}, busy"] = time.perf_counter() - start, busy() - worked

    with timed("packed"):
        data = Settings(dataset=source).data
        packed = pack(find_pictures(source, asked_reading(data), data), asked_reading(data))
    with timed("first"):
        load_images(source)
    forget_images()
    with timed("again"):
        images = load_images(source)
    assert len(images.train) + len(images.test) == len(packed.pixels)
    print(json.dumps({**figures, "images": len(packed.pixels)}))


def turn(source: Path, runs: Path, sample: list[str]) -> dict[str, float]:
    """One turn of each: a bare loop, and ours in a process of its own."""
    shutil.rmtree(runs, ignore_errors=True)
    seconds, worked = bare(sample)
    command = [sys.executable, "-c", "import sys; from benchmarks.packing import ours; ours(sys.argv[1])", str(source)]
    environment = {**os.environ, "CONTRASTIVE_RUNS": str(runs)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        memory = Memory(process.pid)
        memory.start()
        told, _ = process.communicate()
        memory.ended.set()
        memory.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    figures = json.loads(told)
    n = figures["images"]
    return {
        **figures,
        "bare": seconds,
        "bare, busy": worked,
        "ratio of wall-clock time": n / figures["packed"] / cores() * seconds,
        "ratio of busy time": n / figures["packed, busy"] * worked,
        "MiB": memory.most / 2**20,
    }


def report(name: str, turns: list[dict[str, float]]) -> None:
    """Print the middle of each figure, and its range."""

    def shown(key: str, scale: float = 1, digits: int = 2) -> str:
        values = [scale * figures[key] for figures in turns]
        return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    print(f"{name}: {turns[0]['images']:,.0f} images, {cores()} decoding processes")
    print(f"  bare loop, 1,000 files      {shown('bare', 1e6, 0)} ms, busy {shown('bare, busy', 1e6, 0)} ms")
    print(f"  listed and packed           {shown('packed')} s, busy {shown('packed, busy')} s")
    print(f"  files a second and process  {shown('ratio of wall-clock time')} of the bare loop's")
    print(f"  files a busy second         {shown('ratio of busy time')} of the bare loop's")
    print(f"  most memory                 {shown('MiB', 1, 0)} MiB")
    print(f"  opened the first time       {shown('first')} s, busy {shown('first, busy')} s")
    print(f"  opened again                {shown('again')} s, busy {shown('again, busy')} s", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Measure and print. Returns the exit code: 0, or 2 when the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing", description=__doc__)
    parser.add_argument("source", type=Path, help="folder or .zip of image files")
    parser.add_argument("--files", type=int, default=100_000, help="how many there are to be")
    parser.add_argument("--sample", type=int, default=10_000, help="files of a bare loop")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--zip", action="store_true", help="also pack SOURCE itself, a .zip, as it is")
    args = parser.parse_args(argv)
    if not args.source.exists():
        print(f"error: there is no {args.source}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        root, runs = Path(folder, "files"), Path(folder, "runs")
        paths = [str(path) for path in copies(args.source, root, args.files)]
        sample = paths[:: max(len(paths) // args.sample, 1)]
        bare(sample)  # so that files are in the cache, and Pillow is loaded
        sources = {f"{args.files:,} files": root} | ({args.source.name: args.source} if args.zip else {})
        for name, source in sources.items():
            report(name, [turn(source, runs, sample) for _ in range(args.rounds)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
