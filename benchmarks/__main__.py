"""`python -m benchmarks`: measure everything, write the numbers as JSON and the report as HTML.

Times of other runs, on another machine or day, are not comparable; see `measure` for how the figures are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from contrastive.report.execute import execute_notebook
from contrastive.report.origins import provenance
from contrastive.report.render import render_page
from contrastive.report.runner import writable_folder
from contrastive.settings import UserError, did_you_mean
from contrastive.storage.files import atomic_write

from . import worker
from .measure import SCOPES, Bench, decisive
from .worker import Worker

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "reports" / "published"
PEERS = ("lightly", "kornia", "pytorch-metric-learning")


def publish(results: dict[str, Any], folder: Path) -> Path:
    """Write `benchmarks.json` and `benchmarks.html` into a folder. Returns the page's path."""
    atomic_write(folder / "benchmarks.json", (json.dumps(results, indent=1) + "\n").encode())
    numbers = os.path.relpath(folder / "benchmarks.json", HERE)  # the page should not tell where files lay
    notebook, error, _ = execute_notebook(HERE / "benchmarks.ipynb", {"numbers": numbers})
    page = render_page("benchmarks", notebook, {}, [error] if error else [], [], results.get("note", ""))
    atomic_write(folder / "benchmarks.html", page.encode())
    if error:
        raise RuntimeError(f"the report's notebook failed: {error}")
    return folder / "benchmarks.html"


def complain(message: str) -> int:
    """Say in one line what was wrong. Returns the exit code of a wrong request."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Measure and publish. Returns the exit code: 0, or 2 when the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scope", choices=SCOPES, default="full", help="full (half an hour) or smoke (some minutes)")
    parser.add_argument("--without", default="", help=f"libraries to leave out, of {', '.join(PEERS)}")
    parser.add_argument("--out", type=Path, help="folder (default: reports/published; reports/benchmarks for smoke)")
    parser.add_argument("--render-only", action="store_true", help="render the numbers that are in the folder")
    args = parser.parse_args(argv)
    without = {name.strip() for name in args.without.split(",") if name.strip()}
    out = args.out or (PUBLISHED if args.scope == "full" else PUBLISHED.parent / "benchmarks")
    try:
        for name in without:
            if name not in PEERS:
                return complain(did_you_mean(name, PEERS, "library"))
        if args.render_only:
            try:
                measured = json.loads((out / "benchmarks.json").read_text())
            except (OSError, ValueError) as error:
                return complain(f"{out / 'benchmarks.json'} cannot be read ({type(error).__name__}): run `make bench`.")
            print(publish(measured, out))
            return 0
        if sys.platform != "linux":
            return complain("memory is measured by Linux's /proc, which this system lacks.")
        versions = {}
        for name in PEERS:
            if name not in without:
                try:
                    versions[name] = metadata.version(name)
                except metadata.PackageNotFoundError:
                    return complain(f"{name} is not installed: use `make bench`, or --without {name}.")
        bench = Bench(args.scope, without)
        out = writable_folder(out)
    except UserError as mistake:
        return complain(str(mistake))
    made, images = provenance(bench.settings), bench.images  # of the code that is measured
    with Worker() as process:
        machine = process(worker.machine)
    partial = out / "benchmarks.partial.json"
    results = {
        "scope": args.scope,
        "machine": machine,
        "dataset": {"name": images.name, "sha256": images.sha256},
        "settings": decisive(bench.settings),
        "rounds": bench.scope["rounds"],
        "packages": made["packages"] | versions,
        "dirty": made["dirty"],
        "start": made["start"],
        "note": images.note,
        **bench.measure(partial, made["commit"]),
    }
    results["end"] = provenance(bench.settings)["end"]
    print(publish(results, out))
    partial.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
