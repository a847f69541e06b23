"""Notebooks run in this process: no kernel to start, and figures and maps that cost nothing."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image
from traitlets.config import Config

from contrastive.evaluation import diagnostics
from contrastive.report import pictures, runner
from contrastive.report.origins import ONLY


def run_cells(path: Path, parameters: dict[str, Any]) -> Any:
    """Run a notebook as papermill does. Returns it with what it displayed. What a cell raises is raised."""
    notebook = nbformat.read(path, 4)
    marked = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = ["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())]
    notebook.cells.insert(marked + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.display_pub = displayed = CapturingDisplayPublisher(shell=shell)
    shell.display_trap.hook = CapturingDisplayHook(shell=shell, outputs=displayed.outputs)
    try:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                with redirect_stdout(io.StringIO()) as printed:
                    done = shell.run_cell(cell.source, store_history=True)
                done.raise_error()
                text = printed.getvalue()
                cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)] if text else []
                cell.outputs += [
                    nbformat.v4.new_output("display_data", shown["data"], metadata=shown["metadata"] or {})
                    for shown in displayed.outputs
                ]
                displayed.outputs.clear()
    finally:
        InteractiveShell.clear_instance()
    return notebook


def cheap_pictures(patch: pytest.MonkeyPatch) -> None:
    """Draw figures, but write each as the same few pixels; and map features by two of their dimensions."""
    dot = io.BytesIO()
    Image.new("RGB", (4, 4)).save(dot, "PNG")
    patch.setattr(pictures, "to_png", lambda figure: dot.getvalue())
    patch.setattr(diagnostics, "map_2d", lambda features, seed: features[:, :2].double().cpu().numpy())


def without_kernels(patch: pytest.MonkeyPatch, reports: Path) -> None:
    """Have reports run their notebooks in this process, and be listed in a folder of their own."""
    cheap_pictures(patch)
    patch.setenv(ONLY, "")  # so that what the runner sets goes with the patch
    patch.setattr(runner, "reports_root", lambda: reports)
    patch.setattr(runner, "execute_notebook", lambda path, given, *_: (run_cells(path, given), None, 0))
