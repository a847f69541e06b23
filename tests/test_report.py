"""The whole way: command line, notebooks by our runner and by plain papermill, results, HTML in a browser."""

import ast
import json
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from scipy import stats as scipy_stats

from contrastive.__main__ import parser
from contrastive.report import check, record
from contrastive.report.recording import MIME, _as_html, collect, format_metric
from contrastive.report.render import render
from contrastive.report.runner import choose_notebooks, notebook_folder
from contrastive.report.tables import (
    answer,
    few_labels,
    key_numbers,
    more_arms_table,
    recipes_table,
    results_table,
    round_labels,
    savings,
    versus,
)
from contrastive.settings.model import Settings, UserError
from contrastive.evaluation.statistics import summary

from .conftest import NOTEBOOKS, SMALL, contrastive


def test_a_report_is_notebooks_pages_and_results(report):
    folder, done = report
    expected = {f"{name}.{kind}" for name in NOTEBOOKS for kind in ("ipynb", "html")} | {"results.json"}
    assert {path.name for path in folder.iterdir()} == expected
    assert len(re.findall(r"^ +[\d.]+ % ± [\d.]+ ", done.stdout, re.M)) == 3
    assert f"Report: {folder}/02_linear_eval.html" in done.stdout


def test_a_report_tells_nothing_of_where_it_was_made(report):
    for path in report[0].iterdir():
        assert str(report[0].parent) not in path.read_text(), path.name
        assert str(notebook_folder()) not in path.read_text(), path.name


def test_results_keep_the_contract(report):
    results = json.loads((report[0] / "results.json").read_text())
    assert results["status"] == "ok"
    assert set(results["settings"]) == set(Settings.model_fields)
    assert {"name", "sha256", "pretrain", "train", "validation", "test"} <= set(results["dataset"])
    assert {"pretrain", "evaluate", "total", "images_per_second"} <= set(results["seconds"])
    metrics = results["metrics"]
    for n in results["settings"]["budgets"]:
        for arm in ("linear", "random_encoder", "raw_pixel", "supervised"):
            assert set(metrics[f"{arm}_accuracy@{n}"]) == {"mean", "std", "n_seeds", "values"}
    assert {"knn_accuracy", "effective_rank", "alignment", "uniformity"} <= set(metrics)
    assert sum(name.startswith("validation_accuracy[left_out: ") for name in metrics) == 6
    assert "untrained_validation_accuracy[left_out]" in metrics
    assert all(c["passed"] and set(c) == {"name", "passed", "seen", "expected"} for c in results["checks"])
    assert {"commit", "dirty", "packages", "device", "threads", "precision", "seeds", "start", "end"} <= set(
        results["provenance"]
    )


def test_the_page_shows_what_the_file_holds(report):
    folder, _ = report
    results = json.loads((folder / "results.json").read_text())
    page = (folder / "02_linear_eval.html").read_text()
    for name, metric in results["metrics"].items():
        if "@" in name:
            assert format_metric(name, metric) in page
    notebook = nbformat.read(folder / "02_linear_eval.ipynb", 4)
    assert collect(notebook)["metrics"].items() <= results["metrics"].items()


def test_progress_ends_as_one_line(report):
    page = (report[0] / "01_pretrain.html").read_text()
    assert page.count("epoch/s") <= 1 or page.count("s/epoch") <= 1
    assert "\r" not in page


def papermill(name, out, *words):
    """Plain papermill, with the kernel inside `notebooks/` as in Jupyter."""
    source = notebook_folder() / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), str(out), "-k", "python3", "--cwd", str(source.parent)]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_plain_papermill_runs_each_notebook(name, tmp_path):
    out = tmp_path / "out.ipynb"
    done = papermill(name, out, *["-p", "preset", "smoke", "-p", "lr", "2e-3", "-p", "seed", "3", "-p", "width", "2"])
    assert done.returncode == 0, done.stderr[-2000:]
    settings = collect(nbformat.read(out, 4))["settings"]
    assert (settings["lr"], settings["seed"], settings["preset"]) == (0.002, 3, "smoke")


def test_papermill_refuses_a_misspelt_parameter(tmp_path):
    done = papermill("01_pretrain", tmp_path / "out.ipynb", *["-p", "preset", "smoke", "-p", "temprature", "0.1"])
    assert done.returncode != 0
    assert "Did you mean 'temperature'" in done.stderr


def test_help_notebook_reads_well():
    for name in NOTEBOOKS:
        command = [sys.executable, "-m", "papermill", "--help-notebook", str(notebook_folder() / f"{name}.ipynb")]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        source = next(
            c
            for c in nbformat.read(notebook_folder() / f"{name}.ipynb", 4).cells
            if "parameters" in c.metadata.get("tags", [])
        )
        for line in source.source.splitlines():
            parameter, help_text = re.fullmatch(r"(\w+): \w+ = \S+  # (.+)", line).groups()
            assert parameter in Settings.model_fields
            assert f"{parameter}:" in said
            assert help_text.split()[0] in said


def test_no_cell_overwrites_a_parameter_or_what_another_cell_made():
    # "Run all" again in the same kernel would take what was overwritten for what was asked; and a later cell would take
    # one thing for another.
    for path in notebook_folder().glob("*.ipynb"):
        made = set()
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
                nodes = list(ast.walk(ast.parse(cell.source)))
                within = {id(n) for c in nodes if isinstance(c, ast.comprehension) for n in ast.walk(c.target)}
                names = {
                    n.id
                    for n in nodes
                    if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and id(n) not in within
                }
                assert not names & set(Settings.model_fields), path.name
                assert not names & made, path.name
                made |= names


def test_source_notebooks_are_clean():
    for path in notebook_folder().glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == []
                assert cell.execution_count is None
                assert not re.search(r"^\s*class ", cell.source, re.M)
                assert len(cell.source.splitlines()) <= 18


# --- bad requests --------------------------------------------------------------------------------------------------


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
        (["report", "--preset", "smoke", "-p", "batch_size=1"], "batch_size"),
        (["report", "--preset", "smoke", "-p", "batch_size=513"], "batch_size=513"),
        (["report", "--preset", "smoke", "-p", "n_images=5000"], "n_images=5000"),
        (["pretrain", "--preset", "smoke", "-p", "epochs=0"], "epochs"),
        (["pretrain", "-p", "seed=-1"], "seed"),
        (["report", "--preset", "smoke", "--out", "/dev/null/report"], "cannot write to /dev/null/report"),
        (["report", "--dataset", "x" * 300], "unknown data set"),
        (["report", "--preset", "smoke", "-p", "device=cuda:²"], "device"),
        (["report", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["frobnicate"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(words, said, tmp_path):
    runs = tmp_path / "runs"
    done = contrastive(*words, CONTRASTIVE_RUNS=str(runs))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert not list(runs.glob("*"))


def test_mnist_without_data_or_network_says_what_to_do(tmp_path):
    done = contrastive("report", "--dataset", "mnist", CONTRASTIVE_DATA=str(tmp_path), CONTRASTIVE_OFFLINE="1")
    assert done.returncode == 2
    assert str(tmp_path / "MNIST" / "raw") in done.stderr
    assert "digits" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("tags", [0, 2])
def test_a_notebook_has_exactly_one_parameters_cell(tags, tmp_path):
    shutil.copytree(notebook_folder(), tmp_path / "notebooks")
    path = tmp_path / "notebooks" / "01_pretrain.ipynb"
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.metadata["tags"] = []
    for cell in notebook.cells[:tags]:
        cell.metadata["tags"] = ["parameters"]
    nbformat.write(notebook, path)
    with pytest.raises(UserError, match=rf"01_pretrain.ipynb has {tags} cells tagged 'parameters'"):
        choose_notebooks(tmp_path / "notebooks", [])
    assert [p.stem for p in choose_notebooks(tmp_path / "notebooks", ["02_linear_eval.ipynb"])] == ["02_linear_eval"]


def test_only_may_be_given_several_times():
    words = ["report", "--only", "02_linear_eval", "--only", "01_pretrain"]
    assert parser().parse_args(words).only == ["02_linear_eval", "01_pretrain"]
    assert [p.stem for p in choose_notebooks(notebook_folder(), words[2::2])] == ["01_pretrain", "02_linear_eval"]


# --- digits in place of MNIST ------------------------------------------------------------------------


def test_auto_without_data_falls_back_to_digits_and_says_so(tmp_path):
    done = contrastive(
        "report",
        "--dataset",
        "auto",
        *SMALL,
        "--only",
        "01_pretrain",
        "--out",
        str(tmp_path / "out"),
        CONTRASTIVE_DATA=str(tmp_path / "none"),
        CONTRASTIVE_OFFLINE="1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("NOTE: MNIST is not in")
    page = (tmp_path / "out" / "01_pretrain.html").read_text()
    assert page.index("Which data:") < page.index("<h1")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "scikit-learn" in results["dataset"]["note"]
    again = results["provenance"]["command"]
    assert again.startswith("contrastive report --preset smoke --dataset digits --only 01_pretrain -p ")
    assert page.count("--only 01_pretrain") == page.count("contrastive report --preset smoke") >= 2


def test_runs_of_older_code_are_told_on_the_page():
    data = {MIME: {"provenance": {"training_code_changed_since_run": True}}}
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data)])
    assert "Older code:" in render("01_x", nbformat.v4.new_notebook(cells=[cell]), {}, [], ["01_x"])
    cell.outputs[0].data[MIME]["provenance"]["training_code_changed_since_run"] = False
    assert "Older code:" not in render("01_x", nbformat.v4.new_notebook(cells=[cell]), {}, [], ["01_x"])


def test_record_is_readable_and_collected(capsys):
    record(metrics={"linear_accuracy@100": {"mean": 90.0, "std": 0.5, "n_seeds": 2, "values": [89.5, 90.5]}})
    assert "90.00 ± 0.50 %" in capsys.readouterr().out
    cell = nbformat.v4.new_code_cell(
        outputs=[nbformat.v4.new_output("display_data", {MIME: {"checks": [check("a", True, 1, "1")], "x": {"b": 1}}})]
    )
    other = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {MIME: {"x": {"c": 2}}})])
    assert collect(nbformat.v4.new_notebook(cells=[cell, other])) == {
        "checks": [{"name": "a", "passed": True, "seen": 1, "expected": "1"}],
        "x": {"b": 1, "c": 2},
    }


def test_long_tables_are_folded_and_short_of_digits():
    shown = _as_html({"comparisons": {"a - b": {"points": 1.23456789, "low": -1, "high": 3.0}}})
    assert shown.startswith("<details><summary>All differences")
    assert "points 1.235, low -1, high 3" in shown
    for n, folded in ((30, False), (31, True)):
        shown = _as_html({"metrics": {f"knn_accuracy_k{k}": metric(90.0) for k in range(n)}})
        assert shown.startswith(f"<details><summary>All {n} metrics") == folded


def metric(mean, std=0.0, n=1):
    return {"mean": mean, "std": std, "n_seeds": n, "values": [mean] * n}


def test_tables_and_sentences_follow_the_numbers():
    arms = {
        "linear": (90.0, 99.0),
        "random_encoder": (70.0, 97.0),
        "supervised": (80.0, 98.0),
        "raw_pixel": (60.0, 90.0),
    }
    metrics = {
        f"{a}_accuracy@{n}": metric(v) for a, values in arms.items() for n, v in zip((100, 10_000), values, strict=True)
    }
    table = results_table(metrics, (100, 10_000), 20_000, "mnist").splitlines()
    assert table[2] == "| 10,000 (50 % of mnist) | **99.00 %** | 98.00 % | 97.00 % | 90.00 % |"
    saved = {
        "100": {
            "n": 100,
            "needed": 1290.0,
            "low": 900.0,
            "high": 2000.0,
            "least": 100,
            "most": 10_000,
            "accuracy": 90.0,
        },
        "10000": {
            "n": 10_000,
            "needed": None,
            "low": None,
            "high": None,
            "least": 100,
            "most": 10_000,
            "accuracy": 99.0,
        },
    }
    said = savings(metrics, saved, 100)
    assert "needs about 1,300 labels for that (95 %: 900 to 2,000), 12.9 times as many" in said
    assert "does not get there with 10,000, the most that were tried (95 %: more than 10,000)" in savings(
        metrics, saved, 10_000
    )
    lost = {"100": saved["100"] | {"needed": 100.0, "low": 100.0, "high": 100.0}}
    assert "does as well with 100 or fewer (95 %: 100 or fewer to 100): no label is saved." in savings(
        metrics, lost, 100
    )
    unsure = {"100": lost["100"] | {"high": 300.0}}
    assert savings(metrics, unsure, 100).endswith(" to 300): whether any label is saved is within noise.")
    likely = {"100": saved["100"] | {"low": 60.0}}
    assert savings(metrics, likely, 100).endswith("12.9 times as many: whether any label is saved is within noise.")
    better = {"points": 10.0, "low": 9.0, "high": 11.0, "p": 0.0}
    worse = {"points": -10.0, "low": -11.0, "high": -9.0, "p": 0.0}
    assert versus(better, "the other") == "10.00 points better than the other (95 %: +9.00 to +11.00)"
    assert versus(worse, "the other") == "10.00 points worse than the other (95 %: -11.00 to -9.00)"
    assert "within noise of the other (+1.00" in versus(
        {"points": 1.0, "low": -0.1, "high": 2.1, "p": 0.1}, "the other"
    )
    compared = {
        f"linear_accuracy@10000 - {arm}_accuracy@10000": {"points": d, "low": d - 0.5, "high": d + 0.5, "p": 0.0}
        for arm, d in (("random_encoder", 2.0), ("supervised", 0.4))
    }
    said = answer(metrics, compared, saved, 100, 10_000)
    assert said.startswith("With 100 labels, the linear probe on the pretrained encoder gets 90.0 %;")
    assert "gets 99.00 %: 2.00 points better than the random encoder (95 %: +1.50 to +2.50), and within noise" in said
    tiles = key_numbers(metrics, saved, 100, 10_000, 10_000)
    assert [value for value, *_ in tiles] == ["99.00 %", "97.00 %", "98.00 %", "1,300"]
    assert tiles[0][1] == "± 0.20"  # 1.96 standard errors of 10,000 images
    assert more_arms_table(metrics, (100, 10_000), 20_000, "mnist") == ""
    plain = metrics | {"supervised_plain_accuracy@10000": metric(98.5)}  # the better of the two is what is to be beaten
    name = "linear_accuracy@10000 - supervised_plain_accuracy@10000"
    beaten = compared | {name: {"points": 0.5, "low": 0.25, "high": 0.75, "p": 0.0}}
    assert answer(plain, beaten, saved, 100, 10_000).endswith(
        "and 0.50 points better than the better CNN from scratch, not augmented (95 %: +0.25 to +0.75)."
        " (One seed: these intervals are of test images alone.)"
    )
    assert key_numbers(plain, saved, 100, 10_000, 10_000)[2][::2] == (
        "98.50 %",
        "same CNN from scratch, not augmented, 10,000 labels",
    )
    assert [few_labels(budgets, 10) for budgets in ((10, 50, 100, 600), (150, 600), (10, 50))] == [100, 150, 50]
    assert [round_labels(n) for n in (9.6, 34.55, 99.6, 995.0, 1249.0, 0.2)] == [10, 35, 100, 1000, 1200, 0]
    several = {name: own | {"n_seeds": 5} for name, own in metrics.items()}
    assert "One seed" not in answer(several, compared, saved, 100, 10_000)
    metrics["pca_accuracy@100"] = metric(95.0)
    assert more_arms_table(metrics, (100, 10_000), 20_000, "mnist").splitlines()[2:] == [
        "| 10,000 (50 % of mnist) | **99.00 %** | – |",
        "| 100 (0.5 % of mnist) | 90.00 % | **95.00 %** |",
    ]


def test_recipes_stand_beside_each_other_with_the_first_ones_controls():
    first = {
        "metrics": {
            "linear_accuracy@100": metric(97.0, 0.25, 5),
            "supervised_accuracy@100": metric(95.0, 0.5, 5),
            "supervised_plain_accuracy@100": metric(96.0, 0.5, 5),
            "scattering_accuracy@100": metric(94.0, 0.0, 5),
            "knn_accuracy": metric(99.0, 0.1, 5),
        },
        "headline_labels": 600,
        "comparisons": {
            "linear_accuracy@100 - supervised_accuracy@100": {"points": 2.0, "p": 0.00012},
            "linear_accuracy@100 - supervised_plain_accuracy@100": {"points": 1.0, "p": 0.00012},
            "linear_accuracy@100 - random_encoder_accuracy@100": {"points": 9.0, "p": 0.0055},
        },
    }
    second = {
        "metrics": {
            "linear_accuracy@100": metric(94.0),
            "linear_accuracy@600": metric(96.0),
            "knn_accuracy": metric(1.0),
        },
        "comparisons": {"linear_accuracy@600 - supervised_accuracy@600": {"points": -0.125, "p": 0.0434}},
    }
    assert recipes_table({"ours": first, "theirs": second}, (100, 600)).splitlines() == [
        "| test accuracy (%) with | 100 labels | 600 labels | kNN, 600 labels |",
        "|:--|--:|--:|--:|",
        "| **ours** | 97.00 ± 0.25 | – | 99.00 ± 0.10 |",
        "| – same CNN from scratch, augmented | 95.00 ± 0.50 | – | |",
        "| – same CNN from scratch, not augmented | 96.00 ± 0.50 | – | |",
        "| – pretraining is better than the better of these by | +1.00 (p < 0.001) | – | |",
        "| – pretraining is better than the frozen random encoder by | +9.00 (p = 0.0055) | – | |",
        "| **theirs** | 94.00 | 96.00 | 1.00 |",
        "| – pretraining is better by | – | -0.12 | |",
        "| scattering transform + linear | 94.00 ± 0.00 | – | |",
    ]
    a, b = [96.0, 96.5, 97.5], [95.0, 96.0, 95.5]
    for results, name, values in ((second, "linear", a), (first, "supervised", b)):
        results["metrics"][f"{name}_accuracy@100"] = summary(values)
    second["metrics"]["knn_accuracy"] = metric(1.0, 0.1, 3)
    p = scipy_stats.ttest_rel(a, b).pvalue
    assert (
        f"| – … than the CNN from scratch under the first recipe's augmentations by | +1.17 (p = {p:.2g}) | – | |"
        in recipes_table({"ours": first, "theirs": second}, (100, 600)).splitlines()
    )
