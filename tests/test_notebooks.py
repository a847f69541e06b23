"""The notebooks as they are in git, and by plain papermill."""

import ast
import re

import nbformat
import pytest
from click.testing import CliRunner
from papermill.__main__ import papermill

from contrastive.report.recording import collect
from contrastive.report.runner import notebook_folder
from contrastive.settings import parameters

from .conftest import NOTEBOOKS

NOTEBOOKS = (*NOTEBOOKS, "04_methods")
TWO_METHODS = "-p methods simclr,byol -p method_seeds 1 -p method_epochs 1 -p supervised_steps 5"
SOURCES = {name: nbformat.read(notebook_folder() / f"{name}.ipynb", 4) for name in NOTEBOOKS}


def tagged(cell):
    return "parameters" in cell.metadata.get("tags", [])


def by_papermill(name, *words):
    """The `papermill` command, with the kernel inside `notebooks/` as in Jupyter."""
    path = notebook_folder() / f"{name}.ipynb"
    return CliRunner().invoke(papermill, [str(path), *words, "-k", "python3", "--cwd", str(path.parent)])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_plain_papermill_runs_each_notebook(name, tmp_path):
    out = tmp_path / "out.ipynb"
    words = "-p preset smoke -p seed 3 -p base_channels 2 -p general none -r lr 2e-3"  # the last one as text
    words += f" {TWO_METHODS}" if name == "04_methods" else ""
    done = by_papermill(name, str(out), *words.split())
    assert done.exit_code == 0, done.output[-2000:]
    settings = collect(nbformat.read(out, 4))["settings"]
    assert (settings["lr"], settings["seed"], settings["base_channels"], settings["preset"]) == (0.002, 3, 2, "smoke")


def test_papermill_refuses_a_misspelt_parameter(tmp_path):
    done = by_papermill("01_pretrain", str(tmp_path / "out.ipynb"), "-p", "preset", "smoke", "-p", "temprature", "0.1")
    assert done.exit_code != 0
    assert "Did you mean 'temperature'" in f"{done.output} {done.exception}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_help_notebook_reads_well(name):
    said = by_papermill(name, "--help-notebook").output
    source = next(cell.source for cell in SOURCES[name].cells if tagged(cell))
    for line in source.splitlines():
        parameter, help_text = re.fullmatch(r"(\w+): \w+ = \S+  # (.+)", line).groups()
        assert parameter in parameters()
        assert f"{parameter}:" in said
        assert help_text.split()[0] in said


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_cell_overwrites_a_parameter_or_what_another_cell_made(name):
    # "Run all" again in the same kernel would take what was overwritten for what was asked; and a later cell would take
    # one thing for another.
    made = set()
    for cell in SOURCES[name].cells:
        if cell.cell_type == "code" and not tagged(cell):
            tree = ast.parse(cell.source)
            inside = [n for part in ast.walk(tree) if isinstance(part, ast.FunctionDef) for n in ast.walk(part)]
            inside += [n for c in ast.walk(tree) if isinstance(c, ast.comprehension) for n in ast.walk(c.target)]
            within = {id(n) for n in inside}
            names = {
                n.id
                for n in ast.walk(tree)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and id(n) not in within
            }
            assert not names & set(parameters())
            assert not names & made
            made |= names


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_source_notebooks_are_clean(name):
    notebook = SOURCES[name]
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert not re.search(r"^\s*class ", cell.source, re.M)
            own = re.sub(r"^(from|import) .*?(\((.|\n)*?\))?\n", "", cell.source, flags=re.M)
            assert tagged(cell) or len(own.strip().splitlines()) <= 12, cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_code_cell_follows_words(name):
    cells = [cell for cell in SOURCES[name].cells if not tagged(cell)]
    assert cells[0].cell_type == "markdown"
    for title in ("## Set-up and data", "## Checks", "## Conclusion", "## Provenance"):
        (at,) = [i for i, cell in enumerate(cells) if title in cell.source.splitlines()]
        assert cells[at + 1].cell_type == "code"
