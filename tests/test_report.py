"""The whole way: command line, notebooks by our runner, results, pages."""

import json
import re

import nbformat
import pytest

from contrastive import resolve
from contrastive.__main__ import main
from contrastive.evaluation import Key, aggregate
from contrastive.evaluation.metrics import COLUMNS, Row, format_metric
from contrastive.report.recording import collect
from contrastive.report.runner import notebook_folder
from contrastive.settings import Settings
from contrastive.storage.files import read_json
from contrastive.sweeps.grids import load_grid

from .cells import without_kernels
from .conftest import NOTEBOOKS, SMALL


@pytest.fixture
def results(report):
    return read_json(report[0] / "results.json")


def test_a_report_is_notebooks_pages_and_results(report):
    folder, done = report
    expected = {f"{name}.{kind}" for name in NOTEBOOKS for kind in ("ipynb", "html")} | {"results.json"}
    assert {path.name for path in folder.iterdir()} - {"label_errors.csv"} == expected  # if any label is suspected
    assert len(re.findall(r"^ +[\d.]+ % [\d.]+ to [\d.]+ ", done.stdout, re.M)) == 2
    assert re.search(r"^ +10\.0 % +accuracy by guessing$", done.stdout, re.M)
    assert f"Report: {folder}/02_linear_eval.html" in done.stdout


def test_a_report_tells_nothing_of_where_it_was_made(report):
    for path in report[0].iterdir():
        assert str(report[0].parent) not in path.read_text(), path.name
        assert str(notebook_folder()) not in path.read_text(), path.name


def test_results_keep_the_contract(results):
    assert (results["status"], results["format"]) == ("ok", 2)
    assert {"name", "sha256", "pretrain", "train", "validation", "test"} <= set(results["dataset"])
    assert {"pretrain", "evaluate", "total", "images_per_second"} <= set(results["seconds"])
    metrics = results["metrics"]
    for n in results["settings"]["budgets"]:
        for arm in ("linear", "random_encoder", "raw_pixel", "supervised"):
            assert set(metrics[f"{arm}_accuracy@{n}"]) == {"mean", "std", "n_seeds", "values"}
    assert {"knn_accuracy", "effective_rank", "alignment", "uniformity"} <= set(metrics)
    assert (results["headline_labels"], results["headline_metric"]) == (200, "accuracy")
    assert (results["dataset"]["judged"], results["dataset"]["folds"]) == (360, 0)
    for name, own in results["intervals"].items():
        assert own["low"] <= own["mean"] <= own["high"]
        assert own["mean"] == pytest.approx(metrics[name]["mean"], abs=1e-3)
    for arm in ("linear", "finetuned", "supervised", "supervised_plain", "random_encoder", "raw_pixel"):
        assert f"{arm}_accuracy@200" in results["intervals"]
        assert results["costs"][arm] >= 0
    assert results["savings"] == results["savings_by_arm"]["linear"]
    assert set(results["savings_by_arm"]) == {"linear", "finetuned"}
    assert set(results["savings_by_arm"]["finetuned"]) == {"50", "200"}  # also where there are more labels to need
    assert sum(name.startswith("validation_accuracy[left_out: ") for name in metrics) == 6
    assert "untrained_validation_accuracy[left_out]" in metrics
    assert all(c["passed"] and set(c) == {"name", "passed", "seen", "expected"} for c in results["checks"])
    assert {"commit", "dirty", "packages", "device", "threads", "precision", "seeds", "start", "end"} <= set(
        results["provenance"]
    )


def test_settings_of_the_results_are_flat_and_ask_for_the_same_run(results):
    settings = results["settings"]
    assert settings == Settings(**settings).as_json()
    words = SMALL[: SMALL.index("-p")][1::2], dict(word.split("=") for word in SMALL[SMALL.index("-p") + 1 :: 2])
    asked = Settings(preset=words[0][0], **words[1])
    assert resolve(Settings(**settings))[0].identity == resolve(asked)[0].identity
    assert resolve(asked)[0].run_name.endswith(results["provenance"]["run"])


def test_every_measurement_is_a_row_and_the_metrics_are_their_means(results):
    table = results["table"]
    assert table["columns"] == list(COLUMNS) == ["arm", "metric", "labels", "subset", "seed", "draw", "value"]
    rows = [Row(*row) for row in table["rows"]]
    assert aggregate(rows) == {name: results["metrics"][name] for name in map(str, (row.key for row in rows))}
    of_grids = {name for name in results["metrics"] if Key.parse(name).metric == "validation_accuracy"}
    without_labels = {"paired_share", "random_encoder_paired_share"}  # of 01_pretrain
    assert {str(row.key) for row in rows} == set(results["metrics"]) - of_grids - without_labels
    assert without_labels <= set(results["metrics"])


def test_the_history_of_training_is_in_the_results(results):
    (epochs,) = results["history"].values()
    assert list(results["history"]) == ["seed 0"]
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, results["settings"]["epochs"] + 1))
    assert all({"loss", "top1", "chance_loss", "lowest_loss", "seconds", "images"} <= set(epoch) for epoch in epochs)


def test_the_page_shows_what_the_file_holds(report, results):
    page = (report[0] / "02_linear_eval.html").read_text()
    for name, metric in results["metrics"].items():
        if "@" in name:
            assert format_metric(name, metric) in page
    notebook = nbformat.read(report[0] / "02_linear_eval.ipynb", 4)
    assert collect(notebook)["metrics"].items() <= results["metrics"].items()


def test_grids_stand_in_the_contents_of_their_page(report, results):
    page = (report[0] / "03_ablations.html").read_text()
    contents = page[page.index("<summary>Contents") : page.index("<main")]
    for name in results["settings"]["grids"]:
        (address,) = re.findall(rf'<a href="#([^"]+)">{re.escape(load_grid(name).title)}</a>', contents)
        assert f'<h2 id="{address}">' in page


def test_progress_ends_as_one_line(report):
    page = (report[0] / "01_pretrain.html").read_text()
    assert page.count("epoch/s") <= 1 or page.count("s/epoch") <= 1
    assert "\r" not in page


def test_auto_without_data_falls_back_to_digits_and_says_so(no_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTRASTIVE_OFFLINE", "1")
    without_kernels(monkeypatch, tmp_path / "reports")
    words = ["report", "--dataset", "auto", *SMALL, "--only", "01_pretrain", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert capsys.readouterr().err.startswith("NOTE: MNIST is not in")
    page = (tmp_path / "out" / "01_pretrain.html").read_text()
    assert page.index("Which data:") < page.index("<h1")
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert "scikit-learn" in found["dataset"]["note"]
    again = found["provenance"]["command"]
    assert again.startswith("contrastive report --preset smoke --dataset sklearn_digits --only 01_pretrain -p ")
    assert page.count("--only 01_pretrain") == page.count("contrastive report --preset smoke") >= 2
