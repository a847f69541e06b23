"""One notebook, executed by papermill; and, when that fails, where and why."""

import logging
import math
import signal
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import papermill_io

from ..storage.files import NOTICE, printable, tell
from .outlook import Outlook
from .progress import Progress, clock


class Memory:
    """Where papermill writes to: notebooks in memory, so that no half-executed one ever lies under a final name."""

    SCHEME = "memory://"

    def __init__(self) -> None:
        self.written: dict[str, str] = {}

    def write(self, content: str, path: str) -> None:
        """What papermill calls after each cell."""
        self.written[path] = content

    def pretty_path(self, path: str) -> str:
        """The path's name in messages."""
        return path


class Notices:
    """A notebook's standard error, of which the lines that `say` wrote go on to the terminal at once."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def write(self, text: str) -> None:
        """Pass the notices on."""
        for line in text.splitlines():
            if line.startswith(NOTICE):
                self.progress.clear()
                tell(line, sys.stderr)

    def flush(self) -> None:
        """Nothing is held back."""


class OwnKernel(AsyncKernelManager):
    """A kernel of the very Python that runs this, whatever else is called `python3` on the user's JUPYTER_PATH."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """How it is started."""
        return KernelSpec(**get_kernel_dict())


_memory = Memory()
papermill_io.register(Memory.SCHEME, _memory)


def execute_notebook(
    path: Path, parameters: dict[str, Any], timeout: float | None = None, outlook: Outlook | None = None
) -> tuple[Any, dict[str, str] | None, int]:
    """Execute a notebook. Returns it as far as it got; if it failed, where and why; the signal that stopped it, or 0.

    timeout: seconds that a single cell may take. outlook: how long the whole report takes, to be shown. papermill's
    output alone would look clean after a timeout, an interruption or a kernel's death, so what failed is kept here. The
    kernel starts in the notebook's own folder: in the user's, which may be one of data, Python files would be imported.
    """
    out = f"{Memory.SCHEME}{path.name}"
    at: dict[str, int] = {}
    _memory.written.pop(out, None)
    progress = Progress(path.stem, len(nbformat.read(path, as_version=4).cells) + bool(parameters), outlook)

    def on_cell(cell: Any, cell_index: int) -> None:
        at.update(index=cell_index)
        progress.on_cell(cell_index)

    for name in ("papermill", "asyncio"):  # what they would log is told below, in a line
        logging.getLogger(name).setLevel(logging.CRITICAL)
    why, interrupted = "", 0
    try:
        with progress:
            papermill.execute_notebook(
                path,
                out,
                parameters=parameters,
                kernel_name="python3",
                kernel_manager_class=OwnKernel,
                cwd=path.parent,
                progress_bar=False,
                coalesce_streams=True,
                execution_timeout=timeout and math.ceil(timeout),
                stdout_file=progress,
                stderr_file=Notices(progress),
                on_cell_start=on_cell,
                extra_arguments=["--log-level=CRITICAL"],  # the kernel's own notices are not for the terminal
            )
    except PapermillExecutionError as problem:
        why = f"{problem.ename}: {problem.evalue}".removeprefix("RunError: ").removeprefix("UserError: ")
        if not problem.evalue and problem.ename == "CellExecutionError":  # papermill's own word for an empty answer
            why = f"The kernel could not run the cell and does not say why{_few_files()} (CellExecutionError)"
    except DeadKernelError:
        why = (
            "The kernel died (DeadKernelError), most often because memory ran out: then fewer images or a smaller "
            "batch help"
        )
    except CellTimeoutError:
        why = f"The cell took longer than the {timeout:g} s that --timeout allows (CellTimeoutError)"
    except KeyboardInterrupt as problem:
        interrupted = getattr(problem, "number", signal.SIGINT)
        why = f"Stopped by {'Ctrl-C' if interrupted == signal.SIGINT else signal.Signals(interrupted).name}"
    except Exception as problem:  # whatever else papermill, the kernel or the connection to it may raise
        why = f"{type(problem).__name__}: {problem}".strip(": ")
    notebook = nbformat.reads(_memory.written.pop(out, path.read_text(encoding="utf-8")), as_version=4)
    notebook.cells = [c for c in notebook.cells if "papermill-error-cell-tag" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"  # not a random one, so that the same report has the same pages
    # papermill notes where the files lay; a report that is sent on should not tell.
    notebook.metadata.get("papermill", {}).update(input_path=path.name, output_path=path.name)
    place = _place(notebook, at["index"]) if at else "the start of its kernel"
    error = {"notebook": path.stem, "cell": place, "error": printable(why)} if why else None
    tell(f"{path.stem:16}  {clock(progress.elapsed):>5}  {'FAILED' if error else 'ok'}")
    return notebook, error, interrupted


def _few_files() -> str:
    """That few files may be open at once, if that is so: a kernel needs some dozens, and fails without a word."""
    try:
        import resource  # not on Windows
    except ImportError:
        return ""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f": it may open only {most} files at once; `ulimit -n 1024` before the command allows more"
        if most < 256
        else ""
    )


def _place(notebook: Any, index: int) -> str:
    """A cell in words: its section, number and first line."""
    cells = notebook.cells[: index + 1]
    headings = [
        line.lstrip("# ")
        for c in cells
        for line in c.source.splitlines()
        if c.cell_type == "markdown" and line.startswith("#")
    ]
    number = sum(c.cell_type == "code" for c in cells)
    line = next((text for text in cells[-1].source.splitlines() if text.strip()), "")
    section = f"section {headings[-1]!r}, " if headings else ""
    return printable(f"{section}code cell {number}: {line}")
