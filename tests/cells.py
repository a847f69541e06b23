"""A notebook's cells run in this process, without a kernel of their own."""

from __future__ import annotations

from typing import Any

import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from contrastive.report.runner import notebook_folder

MARKED = "parameters"


def run_cells(name: str, **parameters: Any) -> Any:
    """Run a notebook from `notebooks/` as papermill does, with these parameters. Returns it with what it displayed.

    A cell that fails raises what it raised.
    """
    notebook = nbformat.read(notebook_folder() / f"{name}.ipynb", 4)
    marked = next(i for i, cell in enumerate(notebook.cells) if MARKED in cell.metadata.get("tags", []))
    lines = ["# Parameters", *(f"{parameter} = {value!r}" for parameter, value in parameters.items())]
    notebook.cells.insert(marked + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    try:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                with capture_output() as captured:
                    done = shell.run_cell(cell.source, store_history=True)
                done.raise_error()
                cell.outputs = [
                    nbformat.v4.new_output("display_data", output.data, metadata=output.metadata or {})
                    for output in captured.outputs
                ]
    finally:
        InteractiveShell.clear_instance()
    return notebook
