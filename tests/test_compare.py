"""Comparing reports: the right numbers, the right uncertainty, and one line for what cannot be compared."""

import copy
import json
import math
import re

import nbformat
import pytest

from contrastive import plots
from contrastive.files import write_json
from contrastive.report.compare import Report, comparison, differences, short_names, write_comparison
from contrastive.settings import UserError

from .conftest import contrastive


def metric(*values):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)
    return {"mean": mean, "std": variance**0.5, "n_seeds": len(values), "values": list(values)}


RESULTS = {
    "status": "ok",
    "settings": {"preset": "quick", "epochs": 15, "temperature": 0.5, "n_images": 5000},
    "dataset": {
        "name": "mnist", "sha256": "a" * 64, "test": 10_000, "validation": 5000, "train": 60_000, "pretrain": 5000,
    },
    "metrics": {
        "linear_accuracy@100": metric(90.0), "linear_accuracy@30000": metric(98.5), "knn_accuracy": metric(98.0),
        "effective_rank": metric(400.0), "validation_accuracy[base]": metric(95.0, 96.0, 97.0),
    },
    "headline_labels": 30_000,
    "checks": [{"name": "a", "passed": True, "seen": "1", "expected": "1"}],
    "notebooks": ["02_linear_eval"],
    "seconds": {"total": 1.0},
    "provenance": {"commit": "b" * 40, "packages": {"torch": "2.15.0"}, "command": "contrastive report"},
}  # fmt: skip


def changed(**metrics):
    results = copy.deepcopy(RESULTS)
    results["settings"]["temperature"] = 0.2
    results["metrics"] |= {name.replace("__", "@"): value for name, value in metrics.items()}
    return results


def test_differences_and_their_intervals():
    first = Report("first", RESULTS, {})
    other = Report("other", changed(linear_accuracy__30000=metric(99.0), knn_accuracy=metric(98.1)), {})
    found = differences(first, other)
    # two independent binomial proportions of 10,000 images
    error = 196 * math.sqrt((0.985 * 0.015 + 0.99 * 0.01) / 10_000)
    assert found["linear_accuracy@30000"].value == pytest.approx(0.5)
    assert found["linear_accuracy@30000"].interval == pytest.approx(error)
    assert found["linear_accuracy@30000"].beyond_noise
    assert not found["knn_accuracy"].beyond_noise
    assert found["effective_rank"].interval is None  # one seed
    # three seeds with a variance of 1, twice; and 5,000 validation images
    error = 196 * math.sqrt(2 * (0.96 * 0.04 / 5000 + 1e-4 / 3))
    assert found["validation_accuracy[base]"].interval == pytest.approx(error)


def test_a_page_tells_what_differs():
    page = comparison([Report("first", RESULTS, {}), Report("other", changed(linear_accuracy__30000=metric(99.0)), {})])
    text = re.sub(r"<[^>]+>", " ", page[page.index("<main") :])
    assert re.search(r"temperature\s+0\.5\s+0\.2", text)
    assert "epochs" not in text[text.index("what differs") : text.index("Numbers")]
    assert "other +0.50 ± 0.31 (more than noise)" in text
    assert "<strong>+0.50 ± 0.31</strong>" in page
    assert "Which data" not in page


def test_other_data_are_told():
    other = changed()
    other["dataset"] = {**RESULTS["dataset"], "sha256": "c" * 64}
    page = comparison([Report("first", RESULTS, {}), Report("other", other, {})])
    assert "not on the same data" in page


def test_training_curves_are_taken_from_the_executed_notebook(tmp_path):
    history = [{"epoch": i, "loss": 5.0 - i, "top1": i / 4, "chance_loss": 6.2} for i in (1, 2, 3)]
    data, metadata = plots.loss_curve({"seed 0": history})._repr_mimebundle_()
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.v4.new_output("display_data", data, metadata=metadata)])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", RESULTS)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a" / "01_pretrain.ipynb")
    page = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html").read_text()
    assert "a ends at 2.00, 75 %" in page
    assert re.search(r"Without numbers of a curve.*: b\.", page)


def test_names_tell_folders_apart(tmp_path):
    assert short_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


@pytest.fixture
def reports(tmp_path):
    for name, results in (("a", RESULTS), ("b", changed())):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", results)
    return tmp_path


def test_the_command_line(reports):
    done = contrastive(
        "compare", str(reports / "a"), str(reports / "b" / "results.json"), "--out", str(reports / "p.html")
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Comparison: {reports / 'p.html'}\n"
    assert "<h1" in (reports / "p.html").read_text()


def test_the_page_is_opened_in_the_browser(reports):
    browser = reports / "browser"
    browser.write_text(f"#!/bin/sh\necho \"$1\" > '{reports}/opened'\n")
    browser.chmod(0o755)
    words = ["compare", str(reports / "a"), str(reports / "b"), "--out", str(reports / "p.html"), "--open"]
    done = contrastive(*words, BROWSER=str(browser))
    assert done.returncode == 0, done.stderr
    assert (reports / "opened").read_text() == f"{(reports / 'p.html').as_uri()}\n"
    done = contrastive(*words, BROWSER="/bin/false", PATH="/nowhere")
    assert done.returncode == 0
    assert "no browser could be opened" in done.stderr


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "at least two"),
        (["a", "nowhere"], "there is no report at"),
        (["a", "a"], "named twice"),
        (["a", "broken"], "is damaged"),
        (["a", "empty"], "no numbers"),
        (["a", "odd"], "cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_one_line(reports, names, said):
    (reports / "broken").mkdir()
    (reports / "broken" / "results.json").write_text(json.dumps(RESULTS))
    for name, metrics in {"empty": {}, "odd": {"knn_accuracy": {"mean": "x", "n_seeds": 1}}}.items():
        (reports / name).mkdir()
        write_json(reports / name / "results.json", {**RESULTS, "metrics": metrics})
    with pytest.raises(UserError, match=said) as problem:
        write_comparison([reports / name for name in names], reports / "page.html")
    assert "\n" not in str(problem.value)
    assert not (reports / "page.html").exists()


HOSTILE = "<script>window.pwned=1</script> `x` | $y$ [z](javascript:1) <b>"


def test_hostile_results_are_shown_and_not_obeyed(reports):
    hostile = changed()
    hostile["settings"] = {HOSTILE: HOSTILE}
    hostile["metrics"][HOSTILE] = metric(50.0)
    hostile["dataset"]["name"] = hostile["status"] = hostile["provenance"]["command"] = HOSTILE
    (reports / "<b>`c").mkdir()
    (reports / "d").mkdir()
    for name in ("<b>`c", "d"):
        write_json(reports / name / "results.json", hostile)
    page = write_comparison([reports / "<b>`c", reports / "d"], reports / "page.html").read_text()
    shown = page[page.index("<main") :]
    assert "pwned=1" in shown
    assert not re.search(r"<script|<b>|<math|href=\"javascript", shown)
