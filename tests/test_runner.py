"""Which notebooks the runner executes, where it writes, and with which Python."""

import json
import re
import sys

import nbformat
import numpy as np
import pytest
from jupyter_client.kernelspec import KernelSpecManager

from contrastive import Settings, load_images, resolve
from contrastive.__main__ import main
from contrastive.report import runner
from contrastive.report.execute import execute_notebook
from contrastive.report.runner import all_notebooks, choose_notebooks, notebook_folder, with_what_they_need
from contrastive.settings import UserError
from contrastive.storage.files import read_json

from .cells import without_kernels
from .conftest import NOTEBOOKS
from .few_images import images_of, without_test

SMALL = ["--preset", "smoke", "-p", "epochs=8", "-p", "base_channels=4"]


@pytest.fixture(scope="module")
def digits_npz(tmp_path_factory):
    """Digits without a label, in a file."""
    path = tmp_path_factory.mktemp("data") / "scans.npz"
    digits = load_images("digits")
    np.savez(path, train_images=digits.train[:, 0].numpy(), test_images=digits.test[:, 0].numpy())
    return path


# --- What needs labels ---------------------------------------------------------------------------------------------


def test_notebooks_say_what_they_need():
    needs = {path.stem: nbformat.read(path, 4).metadata.get("needs") for path in all_notebooks(notebook_folder())}
    assert needs == {
        "01_pretrain": None, "02_linear_eval": ["labels"], "03_ablations": ["validation"],
        "04_methods": ["labels", "methods"],
    }  # fmt: skip


def test_what_is_run_on_request_only_is_no_part_of_a_report():
    assert [path.stem for path in choose_notebooks(notebook_folder(), ())] == [*NOTEBOOKS]
    named = choose_notebooks(notebook_folder(), ["04_methods", "01_pretrain"])
    assert [path.stem for path in named] == ["01_pretrain", "04_methods"]


def test_a_report_on_images_without_labels_is_without_what_needs_them(
    digits_npz, tmp_path, fresh_runs, monkeypatch, capsys
):
    without_kernels(monkeypatch, tmp_path / "reports")
    code = main(["report", "--dataset", str(digits_npz), *SMALL, "-p", "label_first=9", "--out", str(tmp_path / "out")])
    shown, said = capsys.readouterr()
    assert code == 0, shown + said
    left_out = (
        "No image of scans has a label that can be used. So this report is without 02_linear_eval and 03_ablations."
    )
    assert said.startswith("NOTE: ")
    assert left_out in said
    results = read_json(tmp_path / "out" / "results.json")
    assert results["notebooks"] == ["01_pretrain"]
    assert results["dataset"]["labels"] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "label_first.csv", "01_pretrain.html", "01_pretrain.ipynb", "results.json",
    }  # fmt: skip
    page = (tmp_path / "out" / "01_pretrain.html").read_text()
    assert left_out in page
    assert "1,437 training images have no label that can be used. The 9 below" in page
    assert "02_linear_eval.html" not in page
    answer = results["answers"]["01_pretrain"]
    assert "of 360 images that it never saw" in answer["answer"]
    assert [what for _, _, what in map(dict.values, answer["numbers"])][1:3] == [
        "held-out views that find their partner, pretrained encoder",
        "held-out views that find their partner, random encoder",
    ]
    # Nobody asked for this notebook only: once there are labels, the command makes the whole report.
    assert "--only" not in results["provenance"]["command"]
    assert results["provenance"]["changed"] == {"epochs": "8", "label_first": "9", "base_channels": "4"}


@pytest.mark.parametrize("only", ["02_linear_eval", "03_ablations", "04_methods"])
def test_what_needs_labels_cannot_be_asked_for_by_name_without_any(digits_npz, tmp_path, fresh_runs, capsys, only):
    words = ["--dataset", str(digits_npz), "--only", "01_pretrain", "--only", only, "--out", str(tmp_path / "out")]
    assert main(["report", *SMALL, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No image of scans has a label that can be used.")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not fresh_runs.exists() or not list(fresh_runs.glob("*-simclr-*"))


def chosen(images, only=(), **given):
    settings, images = resolve(Settings(preset="smoke", **given), images)
    named = [path for path in all_notebooks(notebook_folder()) if path.stem in (only or NOTEBOOKS)]
    found, said = with_what_they_need(named, settings, images, only)
    return [path.stem for path in found], said


def test_all_notebooks_are_executed_where_there_are_labels():
    assert chosen(images_of()) == ([*NOTEBOOKS], "")
    assert chosen(images_of(), ["02_linear_eval"]) == (["02_linear_eval"], "")


def test_of_too_few_labels_it_is_said_why():
    names, said = chosen(images_of(labelled=9))
    assert names == ["01_pretrain", "02_linear_eval"]
    assert said.startswith("mine has 9 training images with a label, of 2 classes: too few to spare a fifth")
    assert said.endswith("So this report is without 03_ablations.")
    names, said = chosen(without_test(labelled=7))
    assert names == ["01_pretrain"]
    assert said.startswith("mine has 7 images with a label, too few to cross-validate a classifier on")
    assert said.endswith("So this report is without 02_linear_eval and 03_ablations.")
    assert chosen(images_of(labelled=0), ["01_pretrain"]) == (["01_pretrain"], "")
    with pytest.raises(UserError, match="too few to spare a fifth of each class for validation"):
        chosen(images_of(labelled=9), ["03_ablations"])


def test_few_labels_without_a_test_split_are_cross_validated():
    assert chosen(without_test(labelled=9))[0] == ["01_pretrain", "02_linear_eval"]
    assert chosen(without_test(labelled=40)) == ([*NOTEBOOKS], "")


def test_budgets_are_checked_where_they_are_of_use_only():
    assert chosen(images_of(), ["01_pretrain"], budgets="100,600", ablation_labels=999) == (["01_pretrain"], "")
    assert chosen(images_of(labelled=0), budgets="100,600")[0] == ["01_pretrain"]
    for only in ((), ["02_linear_eval"]):
        with pytest.raises(UserError, match="parameter budgets=600: mine has 60 training labels"):
            chosen(images_of(), only, budgets="100,600")
    assert chosen(images_of(), ["01_pretrain", "03_ablations"], budgets="100,600")[1] == ""
    with pytest.raises(UserError, match="ablation_labels=999"):
        chosen(images_of(), ["03_ablations"], ablation_labels=999)
    # In cross-validation a classifier has the labels beside its fold
    assert chosen(without_test(), ["02_linear_eval"], budgets="48") == (["02_linear_eval"], "")
    with pytest.raises(UserError, match=r"parameter budgets=49: .* beside each fold"):
        chosen(without_test(), ["02_linear_eval"], budgets="49")


def test_methods_that_cannot_be_compared_are_named_before_anything_starts(tmp_path, fresh_runs, capsys):
    words = ["report", *SMALL, "--only", "04_methods", "--out", str(tmp_path / "out")]
    for given, said in (
        ("methods=simclr,biol", "unknown method 'biol'. Did you mean 'byol'?"),
        ("encoders=cnn,resnet5", "unknown encoder 'resnet5'. Did you mean 'resnet50'?"),
        ("methods=simclr,supervised", "04_methods, method=supervised with encoder=cnn: parameter local_views=2: "),
    ):
        views = ["-p", "local_views=2"] if "local_views" in said else []
        assert main([*words, "-p", given, *views]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"error: {said}")
        assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not fresh_runs.exists()
    # What is not asked for is not looked at
    assert chosen(without_test(), methods="supervised")[0] == [*NOTEBOOKS]
    with pytest.raises(UserError, match=r"method=supervised with encoder=cnn: .* has no test split with labels"):
        chosen(without_test(), ["04_methods"], methods="supervised")


def test_pretraining_alone_asks_for_no_budget(digits_npz, fresh_runs, capsys):
    words = ["--dataset", str(digits_npz), "--preset", "smoke", "-p", "epochs=1", "-p", "base_channels=1"]
    assert main(["pretrain", *words, "-p", "budgets=5,1000000"]) == 0
    folder = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads((fresh_runs / folder / "settings.json").read_text())["budgets"] == [5, 1_000_000]


# --- Where and with what ----------------------------------------------------------------------------------------


@pytest.fixture
def no_reports(tmp_path, monkeypatch):
    """A checkout in which no report can be written, whoever tries: its folder would have to be in a file."""
    (tmp_path / "checkout").write_text("")
    without_kernels(monkeypatch, tmp_path / "checkout" / "reports")
    return tmp_path / "checkout"


def test_a_report_goes_elsewhere_from_a_checkout_that_can_only_be_read(no_reports, tmp_path, fresh_runs, capsys):
    words = ["report", *SMALL, "--only", "01_pretrain"]
    assert main([*words, "--out", str(tmp_path / "elsewhere")]) == 0
    shown = capsys.readouterr().out
    assert f"Report: {tmp_path / 'elsewhere' / '01_pretrain.html'}" in shown
    assert "Index:" not in shown
    assert read_json(tmp_path / "elsewhere" / "results.json")["status"] == "ok"
    assert no_reports.read_text() == ""
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(
        rf"error: cannot write to {re.escape(str(no_reports))}/reports/.*Choose another folder\.\n", said
    )


def test_a_link_that_leads_to_itself_is_one_line(tmp_path, fresh_runs, monkeypatch, capsys):
    without_kernels(monkeypatch, tmp_path / "reports")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["report", *SMALL, "--out", str(tmp_path / "loop")]) == 2
    assert re.fullmatch(r"error: cannot write to .*loop: .*\n", capsys.readouterr().err)


def test_the_index_is_of_the_reports_folder_and_is_left_alone_by_a_report_elsewhere(
    tmp_path, fresh_runs, monkeypatch, capsys
):
    without_kernels(monkeypatch, tmp_path / "reports")
    monkeypatch.setattr(runner, "execute_notebook", lambda path, given, *_: (nbformat.read(path, 4), None, 0))
    words = ["report", *SMALL, "--only", "01_pretrain", "--out"]
    main([*words, str(tmp_path / "elsewhere")])
    assert "Index:" not in capsys.readouterr().out
    assert not (tmp_path / "reports").exists()
    main([*words, str(tmp_path / "reports" / "kept" / "mine")])
    assert f"Index:  {tmp_path / 'reports' / 'index.html'}" in capsys.readouterr().out
    assert "kept/mine" in (tmp_path / "reports" / "index.html").read_text()


def test_what_is_run_on_request_does_not_replace_the_report(tmp_path, fresh_runs, monkeypatch, capsys):
    without_kernels(monkeypatch, tmp_path / "reports")
    monkeypatch.setattr(runner, "execute_notebook", lambda path, given, *_: (nbformat.read(path, 4), None, 0))
    names = []
    for only in ([], ["04_methods"], ["01_pretrain", "04_methods"]):
        main(["report", *SMALL, *(word for name in only for word in ("--only", name))])
        names.append(re.search(r"reports/(\S+)/\w+\.html", capsys.readouterr().out)[1])
    assert names[1:] == [f"{names[0]}-04_methods"] * 2
    assert read_json(tmp_path / "reports" / names[0] / "results.json")["notebooks"] == [*NOTEBOOKS]


def test_notebooks_run_with_this_python_whatever_else_is_called_python3(tmp_path, monkeypatch):
    fake = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    fake.parent.mkdir(parents=True)
    fake.write_text(json.dumps({"argv": ["false"], "display_name": "Another Python", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert KernelSpecManager(ensure_native_kernel=False).get_kernel_spec("python3").argv == ["false"]
    cells = [
        nbformat.v4.new_code_cell("preset = None", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("import sys\nprint(sys.executable, preset)"),
    ]
    python = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=python), tmp_path / "01_x.ipynb")
    notebook, error, interrupted = execute_notebook(tmp_path / "01_x.ipynb", {"preset": "smoke"}, timeout=60)
    assert (error, interrupted) == (None, 0)
    assert notebook.cells[-1].outputs[0].text == f"{sys.executable} smoke\n"
