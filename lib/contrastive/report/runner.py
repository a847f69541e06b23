"""Execute the notebooks with papermill and write a report's folder: notebooks, HTML, results.json, index."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from ..data import NAMES, load_images, resolve
from ..files import atomic_write
from ..settings import Settings, UserError, checkout, data_root, make_settings, nearest, runs_root
from .record import collect, format_metric, merge
from .render import render, write_index


def notebook_folder() -> Path:
    """The checkout's `notebooks/`. Raises: UserError when the package is used without its checkout."""
    root = checkout()
    if root is None:
        raise UserError("the notebooks are not installed with the package: run this from a checkout of the project.")
    return root / "notebooks"


def choose_notebooks(folder: Path, only: str | None) -> list[Path]:
    """The report's notebooks in order, or the one that is named. Raises: UserError, also for a broken one."""
    notebooks = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if only is not None:
        names = [path.stem for path in notebooks]
        name = Path(only).name.removesuffix(".ipynb")
        if name not in names:
            raise UserError(nearest(name, names, "notebook"))
        notebooks = [path for path in notebooks if path.stem == name]
    if not notebooks:
        raise UserError(f"there are no notebooks in {folder}.")
    for path in notebooks:
        try:
            cells = nbformat.read(path, as_version=4).cells
        except Exception as error:  # whatever a broken file makes nbformat raise
            raise UserError(f"{path} is not a notebook ({type(error).__name__}).") from None
        tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in cells)
        if tagged != 1:
            raise UserError(f"{path} has {tagged} cells tagged 'parameters': tag exactly one.")
    return notebooks


def run_report(given: dict[str, Any], only: str | None = None, out: str | None = None) -> int:
    """Run a report with the parameters that were given. Returns the exit code: 0, or 1 when something failed.

    Raises: UserError when the request is wrong; then nothing was started and nothing written.
    """
    notebooks = choose_notebooks(notebook_folder(), only)
    asked = make_settings(**given)
    if out:
        writable_folder(Path(out), keep=False)  # before a download: a wrong request leaves nothing behind
    settings = resolve(asked)
    note = load_images(asked).note
    if asked.dataset not in NAMES:
        asked = asked.but(dataset=settings.dataset)  # an absolute path, wherever the kernel starts
    folder = writable_folder(Path(out) if out else reports_root() / settings.run_name, keep=False)
    writable_folder(runs_root())
    writable_folder(folder)
    if note:
        print(f"NOTE: {note}", file=sys.stderr)
    print(f"Report on {settings.dataset}, preset {settings.preset}, in {folder}", flush=True)
    return _execute(
        notebooks, settings, {**asked.model_dump(mode="json", include=set(given)), "preset": asked.preset}, note, folder
    )


def _execute(notebooks: list[Path], settings: Settings, given: dict[str, Any], note: str, folder: Path) -> int:
    os.environ |= {"CONTRASTIVE_DATA": str(data_root()), "CONTRASTIVE_RUNS": str(runs_root())}
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    started, errors, pages = time.perf_counter(), [], []
    results: dict[str, Any] = {"status": "ok"}
    for path in notebooks:
        notebook, error = execute_notebook(path, folder / path.name, given)
        pages.append((path.stem, notebook))
        errors += [error] if error else []
        merge(results, collect(notebook))
        if error and error["error"].startswith("KeyboardInterrupt"):
            break
    if "provenance" in results:  # of the whole report, not of its last notebook
        results["provenance"] |= {"start": began, "end": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    results.setdefault("settings", json.loads(settings.model_dump_json()))
    results.setdefault("seconds", {})["total"] = round(time.perf_counter() - started, 1)
    failed = [c for c in results.get("checks", []) if not c["passed"]]
    if errors or failed:
        results["status"] = "failed"
        results["errors"] = errors
    for stem, notebook in pages:
        own = [e for e in errors if e["notebook"] == stem]
        page = render(stem, notebook, results, own, [name for name, _ in pages], note)
        atomic_write(folder / f"{stem}.html", page.encode())
    atomic_write(folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    index = write_index(reports_root())
    _print_end(results, errors, failed, folder / f"{pages[0][0]}.html", index)
    return 1 if errors or failed else 0


def execute_notebook(path: Path, out: Path, parameters: dict[str, Any]) -> tuple[Any, dict[str, str] | None]:
    """Execute one notebook with papermill into `out`. Returns what was executed and, if it failed, where and why.

    papermill's output alone would look clean after a kernel's death, so the failure is kept here.
    """
    started = time.perf_counter()
    print(f"{path.stem} ...", end="\n" if not sys.stdout.isatty() else "\r", flush=True)
    logging.getLogger("papermill").setLevel(logging.ERROR)
    error: dict[str, str] | None = None
    try:
        papermill.execute_notebook(
            path,
            out,
            parameters=parameters,
            kernel_name="python3",
            progress_bar=sys.stderr.isatty(),
            coalesce_streams=True,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own notices are not for the terminal
        )
    except PapermillExecutionError as problem:
        error = {"cell": f"In [{problem.exec_count}]", "error": f"{problem.ename}: {problem.evalue}"}
    except (Exception, KeyboardInterrupt) as problem:
        error = {"cell": "unknown", "error": f"{type(problem).__name__}: {problem}".strip(": ")}
    notebook = nbformat.read(out if out.exists() else path, as_version=4)
    # papermill notes where the files lay; a report that is sent on should not tell.
    notebook.metadata.get("papermill", {}).update(input_path=path.name, output_path=out.name)
    nbformat.write(notebook, out)
    if error is not None:
        running = [c for c in notebook.cells if c.metadata.get("papermill", {}).get("status") in ("running", "failed")]
        if error["cell"] == "unknown" and running:
            error["cell"] = running[-1].source.partition("\n")[0]
        error = {"notebook": path.stem, **error}
    print(f"{path.stem} {'FAILED' if error else 'ok'}, {time.perf_counter() - started:.0f} s", flush=True)
    return notebook, error


def reports_root() -> Path:
    """`reports/` of the checkout, or of the current folder."""
    return (checkout() or Path.cwd()) / "reports"


def writable_folder(folder: Path, keep: bool = True) -> Path:
    """That folder, absolute, after a check that files can be written there; it is made only if they can and `keep`.

    Raises: UserError.
    """
    folder = Path(os.path.expanduser(folder)).absolute()
    made = [p for p in (folder, *folder.parents) if not os.path.exists(p)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        keep = False
        raise UserError(f"cannot write to {folder}: {error.strerror}. Choose another folder.") from None
    finally:
        for path in [] if keep else made:
            if os.path.isdir(path):
                path.rmdir()
    return folder


def main_numbers(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The three metrics that a report leads with, as (what it is, value)."""
    metrics = results.get("metrics", {})
    headline = results.get("headline_labels")
    names = {
        f"linear_accuracy@{headline}": f"linear probe on the pretrained encoder, {headline or 0:,} labels",
        f"random_encoder_accuracy@{headline}": "the same on a random encoder",
        f"supervised_accuracy@{headline}": "the same CNN trained from scratch on these labels",
    }
    return [(said, format_metric(name, metrics[name])) for name, said in names.items() if name in metrics]


def _print_end(results: dict[str, Any], errors: list, failed: list, first: Path, index: Path) -> None:
    for error in errors:
        print(f"FAILED {error['notebook']}, {error['cell']}: {error['error']}", file=sys.stderr)
    for check in failed:
        print(f"FAILED check {check['name']}: seen {check['seen']}, expected {check['expected']}", file=sys.stderr)
    print()
    for what, value in main_numbers(results):
        print(f"  {value:>9}  {what}")
    print(f"Report: {first}")
    print(f"Index:  {index}")
