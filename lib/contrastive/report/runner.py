"""Execute the notebooks with papermill and write a report's folder: notebooks, HTML, results.json, index."""

import hashlib
import os
import sys
import tempfile
import textwrap
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import nbformat

from ..data import NAMES, Images, forget_images, why_no_evaluation, why_no_validation
from ..settings import RunError, Settings, UserError, checkout, data_root, did_you_mean, runs_root
from ..storage.files import atomic_write, locked, printable, say, tell, write_json
from ..storage.signals import Stop
from ..sweeps.comparison import check_methods
from ..sweeps.workers import in_own_process
from ..training import check_evaluation, check_fits, check_report, check_validation, resolve, run_folder
from .execute import execute_notebook
from .index import write_index
from .origins import ONLY
from .outlook import Outlook
from .pictures import MIME as FIGURE
from .recording import collect, merge
from .render import render_page

FORMAT = 2  # of results.json; 1 had other names of parameters
# In the metadata of a notebook: what the data have to have. For each, why they have not, and what is checked then
NEEDS = "needs"
ON_REQUEST = "on_request"  # in the metadata of a notebook that runs only if it is named
NEEDED: dict[str, tuple[Callable[[Images], str], Callable[[Settings, Images], None]]] = {
    "labels": (why_no_evaluation, check_evaluation),
    "validation": (why_no_validation, check_validation),
    "methods": (lambda images: "", check_methods),
}
PATHS = ("dataset", "transfer", "weights", "initial_weights")  # parameters that may be paths
# Figures whose tables are files of their own, and what these are
LISTS = {"label_first": "Images to label first", "label_next": "Images to label next", "label_errors": "Label errors"}
RESERVE, RESERVE_BYTES = ".reserve", 16_000_000  # three pages with figures and their notebooks take about 5 MB


def notebook_folder() -> Path:
    """The checkout's `notebooks/`. Raises: UserError when the package is used without its checkout."""
    root = checkout()
    if root is None:
        raise UserError("the notebooks are not installed with the package: run this from a checkout of the project.")
    return root / "notebooks"


def all_notebooks(folder: Path) -> list[Path]:
    """The report's notebooks in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def choose_notebooks(folder: Path, only: Sequence[str]) -> list[Path]:
    """The report's notebooks but those that are run on request only; or those that are named. Raises: UserError, also
    for a broken one."""
    notebooks = all_notebooks(folder)
    if only:
        names = [path.stem for path in notebooks]
        chosen = [Path(name).name.removesuffix(".ipynb") for name in only]
        for name in chosen:
            if name not in names:
                raise UserError(did_you_mean(name, names, "notebook"))
        notebooks = [path for path in notebooks if path.stem in chosen]
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
    return [path for path in notebooks if only or not _metadata(path).get(ON_REQUEST)]


def _metadata(path: Path) -> Any:
    return nbformat.read(path, as_version=4).metadata


def run_report(
    given: dict[str, Any],
    only: Sequence[str] = (),
    out: str | None = None,
    timeout: float | None = None,
    show: bool = False,
) -> tuple[int, dict[str, Any]]:
    """Run a report with the parameters that were given. Returns the exit code and the results: 0; 1 when something
    failed; 128 and the signal's number when one stopped it.

    timeout: seconds that a single cell may take. show: open the report's main page in the browser. Raises: UserError
    when the request is wrong; then nothing was started and nothing written. RunError when the report cannot be written.
    """
    notebooks = choose_notebooks(notebook_folder(), only)
    if out and os.path.realpath(os.path.expanduser(out)) == os.path.realpath(notebook_folder()):
        raise UserError(
            f"--out {out} is where the source notebooks lie, which the report would replace. Choose another."
        )
    asked = Settings(**given)
    if out:
        writable_folder(Path(out), keep=False)  # before a download: a wrong request leaves nothing behind
    settings, images = resolve(asked)
    notebooks, left_out = with_what_they_need(notebooks, settings, images, only)
    note = f"{images.note} {left_out}".strip()
    if settings.runtime.device.startswith("cuda") and not (run_folder(settings) / "encoder.safetensors").exists():
        in_own_process(check_fits, settings)
    outlook = Outlook(settings, images, [path.stem for path in notebooks])
    del images
    forget_images()  # each notebook has its own
    for name in PATHS:
        if given.get(name) is not None and given[name] not in NAMES:
            given = {**given, name: settings.flat()[name]}  # an absolute path, wherever the kernel starts
    # What is run on request goes to a folder of its own: the whole report is not to be replaced by it
    name = "-".join([settings.run_name, *(path.stem for path in notebooks if _metadata(path).get(ON_REQUEST))])
    folder = writable_folder(Path(out) if out else reports_root() / name, keep=False)
    writable_folder(runs_root(), "Set CONTRASTIVE_RUNS to another one.")
    writable_folder(folder)
    # The index is of what lies in reports/, and of nothing else
    inside = folder.is_relative_to(reports_root().absolute()) and os.access(reports_root(), os.W_OK)
    root = reports_root() if inside else None
    if note:
        say(note)
    tell(printable(f"Report on {settings.data.dataset}, preset {settings.preset}, in {folder}"))
    checked = asked.as_json()
    given = {name: checked[name] for name in given if name not in PATHS} | {
        name: given[name] for name in PATHS if given.get(name) is not None
    }
    given["preset"] = asked.preset
    # Not beside the folder, where it might not be allowed, nor in it, since the folder is handed on.
    lock = (root or runs_root()) / f".{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.lock"
    with locked(folder, "writing a report there", lock), _reserve(folder):
        os.environ[ONLY] = ",".join(path.stem for path in notebooks) if only else ""
        code, results = _execute(notebooks, settings, given, note, folder, root, timeout, outlook)
    if show:
        open_page(folder / f"{main_page(results)}.html")
    return code, results


def with_what_they_need(
    notebooks: list[Path], settings: Settings, images: Images, only: Sequence[str]
) -> tuple[list[Path], str]:
    """The notebooks for which there are labels enough, and what to say of the others.

    Raises: UserError when others were asked for by name, when what was asked of the evaluation cannot be, or when there
    are too few images for a report.
    """
    check_report(settings, images)
    kept, left_out = list[Path](), dict[str, list[str]]()  # why -> the notebooks
    for path in notebooks:
        lacking = ""
        for what in _metadata(path).get(NEEDS, ()):
            why, check = NEEDED[what]
            lacking = lacking or why(images)
            if only or not lacking:
                check(settings, images)
        if lacking:
            left_out.setdefault(lacking, []).append(path.stem)
        else:
            kept.append(path)
    said = [f"{why} So this report is without {' and '.join(names)}." for why, names in left_out.items()]
    return kept, " ".join(said)


def _execute(
    notebooks: list[Path],
    settings: Settings,
    given: dict[str, Any],
    note: str,
    folder: Path,
    root: Path | None,
    timeout: float | None,
    outlook: Outlook,
) -> tuple[int, dict[str, Any]]:
    os.environ |= {"CONTRASTIVE_DATA": str(data_root()), "CONTRASTIVE_RUNS": str(runs_root())}
    began = datetime.now(timezone.utc).isoformat(timespec="seconds")
    started, errors, executed, interrupted = time.perf_counter(), [], {}, 0
    results: dict[str, Any] = {"status": "ok", "format": FORMAT}
    for path in notebooks:
        executed[path.stem], error, interrupted = execute_notebook(path, given, timeout, outlook)
        errors += [error] if error else []
        merge(results, collect(executed[path.stem]))
        if interrupted:
            break
    results["notebooks"] = list(executed)
    if "provenance" in results:  # of the whole report, not of its last notebook
        results["provenance"] |= {"start": began, "end": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    results.setdefault("settings", settings.as_json())
    results.setdefault("seconds", {})["total"] = round(time.perf_counter() - started, 1)
    with Stop():  # what was measured so far is not to be lost by a signal now
        try:
            _write(folder, executed, results, errors, note)
        except RunError as problem:  # the disk is full: with what was kept free for this, the report can still say so
            (folder / RESERVE).unlink(missing_ok=True)
            errors.append({"notebook": list(executed)[-1], "cell": "after the last cell", "error": str(problem)})
            _write(folder, executed, results, errors, note)
        code, index = int(results["status"] == "failed"), None
        try:
            index = write_index(root) if root else None
        except RunError as problem:
            code = 1
            tell(printable(f"FAILED {problem}"), sys.stderr)
        _print_end(results, folder, index, run_folder(settings))
    return (128 + interrupted) if interrupted else code, results


def _write(folder: Path, executed: dict[str, Any], results: dict[str, Any], errors: list, note: str) -> None:
    """Write a report's files. Raises: RunError when the disk is full."""
    if errors or not all(check["passed"] for check in results.get("checks", [])):
        results |= {"status": "failed", "errors": errors}
    # Should this process be killed here, then what lies in the folder must not pass for one whole report.
    killed = {"notebook": "", "cell": "", "error": "killed while the report was written"}
    write_json(folder / "results.json", {**results, "status": "failed", "errors": [*errors, killed]})
    for stem, notebook in executed.items():
        page = render_page(stem, notebook, results, errors, list(executed), note)
        atomic_write(folder / f"{stem}.ipynb", nbformat.writes(notebook).encode())
        atomic_write(folder / f"{stem}.html", page.encode())
        for name in LISTS:
            for table in tables_of(notebook, name):
                atomic_write(folder / f"{name}.csv", table.encode())
    write_json(folder / "results.json", results)


def tables_of(notebook: Any, name: str) -> list[str]:
    """The numbers behind a notebook's figures of that name, as CSV."""
    shown = (output.get("data", {}).get(FIGURE, {}) for cell in notebook.cells for output in cell.get("outputs", []))
    return [figure["csv"] for figure in shown if figure.get("name") == name]


@contextmanager
def _reserve(folder: Path) -> Iterator[None]:
    """Keep some of the disk free for the report of a failure. Raises: UserError when there is not even that."""
    path = folder / RESERVE
    try:
        try:
            path.unlink(missing_ok=True)  # it may be a link
            with path.open("xb") as file:
                file.write(os.urandom(RESERVE_BYTES))  # not zeros, which some file systems do not store
        except OSError as error:
            raise UserError(
                f"cannot write {RESERVE_BYTES / 1e6:.0f} MB to {folder}: {error.strerror}. Free some space on its "
                "disk, or choose another folder."
            ) from None
        yield
    finally:
        path.unlink(missing_ok=True)


def open_page(path: Path) -> None:
    """Open a page in the user's browser, or say that there is none."""
    if not webbrowser.open(path.as_uri()):
        say(f"no browser could be opened; the page is {path}")


def reports_root() -> Path:
    """`reports/` of the checkout, or of the current folder."""
    return (checkout() or Path.cwd()) / "reports"


def writable_folder(folder: Path, advice: str = "Choose another folder.", keep: bool = True) -> Path:
    """That folder, absolute, after a check that files can be written there; it is made only if they can and `keep`.

    Raises: UserError, which ends with the advice.
    """
    folder = Path(os.path.expanduser(folder)).absolute()
    made = [p for p in (folder, *folder.parents) if not os.path.exists(p)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        keep = False
        raise UserError(f"cannot write to {folder}: {error.strerror}. {advice}") from None
    finally:
        for path in [] if keep else made:
            if os.path.isdir(path):
                path.rmdir()
    return folder


def main_page(results: dict[str, Any]) -> str:
    """Of a report's notebooks, the one to open first: the one that answers for the labels, else the first."""
    names = results["notebooks"]
    return next((name for name in names if name == "02_linear_eval"), names[0])


def _print_end(results: dict[str, Any], folder: Path, index: Path | None, run: Path) -> None:
    for error in results.get("errors", []):
        tell(printable(f"FAILED {error['notebook']}, {error['cell']}: {error['error']}"), sys.stderr)
    for check in results.get("checks", []):
        if not check["passed"]:
            text = f"FAILED check {check['name']}: seen {check['seen']}, expected {check['expected']}"
            tell(printable(text), sys.stderr)
    if results.get("errors"):
        tell("The same command goes on with what was finished.", sys.stderr)
    main = main_page(results)
    said = results.get("answers", {}).get(main)
    tell("")
    if said:
        for line in textwrap.wrap(said["answer"], 100):
            tell(printable(line))
        tell("")
        for number in said["numbers"]:
            tell(printable(f"  {number['value']:>12} {number['spread']:8}  {number['what']}"))
        tell("")
    tell(printable(f"Report: {folder / main}.html"))
    if (run / "encoder.safetensors").is_file():
        tell(printable(f"Encoder, for `contrastive embed IMAGES --run`: {run}"))
    for name, what in LISTS.items():
        if (folder / f"{name}.csv").is_file():
            tell(printable(f"{what}: {folder / name}.csv"))
    if index:
        tell(printable(f"Index:  {index}"))
