"""`python -m benchmarks`: measure everything, write the numbers as JSON and the report as HTML.

Times of other runs, on another machine or day, are not comparable; see `measure` for how the figures are taken. The
scope gpu needs none of what makes pages, so that it runs on a bare machine: what only the others need is imported late.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from contrastive.settings import UserError, did_you_mean
from contrastive.storage.files import atomic_write

from . import PartError

HERE = Path(__file__).parent
PUBLISHED = HERE.parent / "reports" / "published"
PEERS = ("lightly", "kornia", "pytorch-metric-learning")
SCOPES = ("full", "smoke", "gpu")


def publish(results: dict[str, Any], folder: Path) -> Path:
    """Write `benchmarks.json` and `benchmarks.html` into a folder. Returns the page's path."""
    from contrastive.report.execute import execute_notebook
    from contrastive.report.render import render_page

    atomic_write(folder / "benchmarks.json", (json.dumps(results, indent=1) + "\n").encode())
    numbers = os.path.relpath(folder / "benchmarks.json", HERE)  # the page should not tell where files lay
    notebook, error, _ = execute_notebook(HERE / "benchmarks.ipynb", {"numbers": numbers})
    page = render_page("benchmarks", notebook, {}, [error] if error else [], [], results.get("note", ""))
    atomic_write(folder / "benchmarks.html", page.encode())
    if error:
        raise PartError(f"the report's notebook failed: {error}")
    return folder / "benchmarks.html"


def complain(message: str) -> int:
    """Say in one line what was wrong. Returns the exit code of a wrong request."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def asked(argv: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--scope", choices=SCOPES, default="full", help="full (an hour at most), smoke or gpu (some minutes)"
    )
    parser.add_argument("--without", default="", help=f"libraries to leave out, of {', '.join(PEERS)}")
    parser.add_argument("--out", type=Path, help="folder (default: reports/published; reports/benchmarks for smoke)")
    parser.add_argument("--render-only", action="store_true", help="render the numbers that are in the folder")
    parser.add_argument("--minutes", type=float, default=8, help="of scope gpu, in which all has to be done")
    parser.add_argument("--commit", default="", help="of scope gpu: the code's, where git does not tell it")
    args = parser.parse_args(argv)
    args.out = args.out or (PUBLISHED.parent / "benchmarks" if args.scope == "smoke" else PUBLISHED)
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure and publish. Returns the code: 0; 1 if a part failed; 2 if the request was wrong; 130 if stopped."""
    args = asked(argv)
    if args.scope == "gpu":
        from . import gpu

        return gpu.main(args.out, args.minutes, args.commit)
    without = {name.strip() for name in args.without.split(",") if name.strip()}
    try:
        for name in without:
            if name not in PEERS:
                return complain(did_you_mean(name, PEERS, "library"))
        if args.render_only:
            numbers = args.out / "benchmarks.json"
            try:
                measured = json.loads(numbers.read_text())
            except (OSError, ValueError) as error:
                return complain(f"{numbers} cannot be read ({type(error).__name__}): run `make bench`.")
            print(publish(measured, args.out))
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
        measure_all(args.scope, without, versions, args.out)
    except UserError as mistake:
        return complain(str(mistake))
    except PartError as failure:
        complain(str(failure))
        return 1
    except KeyboardInterrupt:
        complain("stopped. The same command measures what is left.")
        return 130
    return 0


def measure_all(scope: str, without: set[str], versions: dict[str, str], out: Path) -> None:
    """Measure, write and print where the page lies. Raises: UserError when nothing can be written there."""
    from contrastive.report.origins import provenance
    from contrastive.report.runner import writable_folder

    from . import measure, worker

    bench, out = measure.Bench(scope, without), writable_folder(out)
    made, images = provenance(bench.settings), bench.images  # of the code that is measured
    with measure.Worker() as process:
        machine = process(worker.machine)
    partial = out / "benchmarks.partial.json"
    results = {
        "scope": scope,
        "machine": machine,
        "dataset": {"name": images.name, "sha256": images.sha256},
        "settings": measure.decisive(bench.settings),
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


if __name__ == "__main__":
    sys.exit(main())
