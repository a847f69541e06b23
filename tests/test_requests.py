"""Requests that cannot be served: one line says what was wrong and what to do, nothing is started, exit code 2."""

import shutil

import nbformat
import numpy as np
import pytest

from contrastive.__main__ import main, parser
from contrastive.report.runner import choose_notebooks, notebook_folder
from contrastive.settings import UserError

from .conftest import contrastive


@pytest.fixture
def refused(fresh_runs, capsys):
    """A function that gives a request, checks that it is refused, and returns the line that says why."""

    def ask(*words):
        try:
            code = main(list(words))
        except SystemExit as end:  # what the parser finds wrong
            code = end.code
        shown = capsys.readouterr()
        assert (code, shown.out) == (2, "")
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1, shown.err
        assert not list(fresh_runs.glob("*"))
        return shown.err

    return ask


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "--preset", "quik"], "Did you mean 'quick'?"),
        (["report", "--dataset", "minst"], "Did you mean 'mnist'?"),
        (["report", "--only", "02_linear"], "Did you mean '02_linear_eval'?"),
        (["report", "-p", "temprature=1"], "Did you mean 'temperature'?"),
        (["report", "-p", "temperature=0"], "temperature"),
        (["report", "-p", "temperature=hot"], "temperature"),
        (["report", "-p", "temperature"], "name=value"),
        (["report", "-p", "method=simclrr"], "Did you mean 'simclr'?"),
        (["report", "-p", "encoder=resnet81"], "Did you mean 'resnet18'?"),
        (["report", "-p", "optimiser=adan"], "Did you mean 'adam'?"),
        (["pretrain", "-p", "queue_size=64"], "belongs to method mocov2, and simclr was chosen"),
        (["report", "-p", "encoder=resnet18", "-p", "base_channels=4"], "belongs to encoder cnn or resnet9, and"),
        (["report", "-p", "width=4"], "parameter 'width' is called 'base_channels'"),
        (["report", "--preset", "smoke", "-p", "batch_size=1"], "batch_size"),
        (["report", "--preset", "smoke", "-p", "batch_size=513"], "batch_size=513"),
        (["report", "--preset", "smoke", "-p", "n_images=5000"], "n_images=5000"),
        (["report", "--preset", "smoke", "-p", "view_size=12"], "view_size=12: encoder cnn needs at least 16 pixels"),
        (["pretrain", "--preset", "smoke", "-p", "epochs=0"], "epochs"),
        (["pretrain", "-p", "seed=-1"], "seed"),
        (["report", "--preset", "smoke", "--out", "/dev/null/report"], "cannot write to /dev/null/report"),
        (["report", "--preset", "smoke", "--out", str(notebook_folder())], "where the source notebooks lie"),
        (["report", "--preset", "smoke", "-p", f"seed={2**31 - 1}", "-p", "n_seeds=2"], "parameter n_seeds=2"),
        (["pretrain", "-p", "self=1"], "unknown parameter 'self'"),
        (["report", "--dataset", "x" * 300], "unknown data set"),
        (["report", "--preset", "smoke", "-p", "device=cuda:²"], "device"),
        (["report", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["frobnicate"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(words, said, refused):
    assert said in refused(*words)


def test_a_parameter_of_another_method_says_whose_it_is(refused):
    said = refused("report", "-p", "method=byol", "-p", "temperature=0.2")
    assert "temperature=0.2 belongs to method " in said
    assert {"simclr", "mocov2"} <= set(said.partition(", and byol was chosen")[0].replace(",", "").split())


def test_the_process_ends_with_that_code_and_line(tmp_path):
    done = contrastive("report", "--preset", "quik", CONTRASTIVE_RUNS=str(tmp_path / "runs"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown preset 'quik'. Did you mean 'quick'?")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("encoder", "smallest"), [("cnn", "16x16"), ("resnet18", "8x8")])
def test_images_that_are_too_small_for_the_encoder(encoder, smallest, refused, tmp_path):
    labels = np.arange(60) % 2
    side = int(smallest.partition("x")[0]) - 1
    images = np.random.default_rng(0).integers(0, 256, (60, side, 20), dtype=np.uint8)
    np.savez(tmp_path / "small.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    said = refused("report", "--dataset", str(tmp_path / "small.npz"), "-p", f"encoder={encoder}")
    assert f"have {side}x20 pixels: encoder {encoder} needs at least {smallest}" in said


def test_mnist_without_data_or_network_says_what_to_do(no_data, refused, monkeypatch):
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    said = refused("report", "--dataset", "mnist")
    assert str(no_data / "MNIST" / "raw") in said
    assert "sklearn_digits" in said


@pytest.mark.parametrize("tags", [0, 2])
def test_a_notebook_has_exactly_one_parameters_cell(tags, tmp_path):
    shutil.copytree(notebook_folder(), tmp_path / "notebooks")
    path = tmp_path / "notebooks" / "01_pretrain.ipynb"
    notebook = nbformat.read(path, 4)
    for i, cell in enumerate(notebook.cells):
        cell.metadata["tags"] = ["parameters"] if i < tags else []
    nbformat.write(notebook, path)
    with pytest.raises(UserError, match=rf"01_pretrain.ipynb has {tags} cells tagged 'parameters'"):
        choose_notebooks(tmp_path / "notebooks", [])
    assert [p.stem for p in choose_notebooks(tmp_path / "notebooks", ["02_linear_eval.ipynb"])] == ["02_linear_eval"]


def test_only_may_be_given_several_times():
    words = ["report", "--only", "02_linear_eval", "--only", "01_pretrain"]
    assert parser().parse_args(words).only == ["02_linear_eval", "01_pretrain"]
    assert [p.stem for p in choose_notebooks(notebook_folder(), words[2::2])] == ["01_pretrain", "02_linear_eval"]
