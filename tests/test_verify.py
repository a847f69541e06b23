"""Made again, a report has the same numbers and pages; and what differs is told from noise."""

import json
import re

import pytest
import torch

from contrastive import Settings, pretrain
from contrastive.data.images import resolve
from contrastive.evaluation.evaluator import evaluate
from contrastive.storage.files import read_json, write_json
from contrastive.report.verify import SHARE, STEP, compare, measured_on, spread
from contrastive.evaluation.statistics import standard_error
from contrastive.evaluation.across_seeds import aggregate

from .conftest import contrastive

WORDS = ["--preset", "smoke", "--only", "02_linear_eval", "-p", "budgets=50,200", "-p", "supervised_steps=5"]


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A report, and what `verify` made of it."""
    folder = tmp_path_factory.mktemp("verify")
    runs = {"CONTRASTIVE_RUNS": str(folder / "runs")}
    first = contrastive("report", *WORDS, "--out", str(folder / "first"), **runs)
    assert first.returncode == 0, first.stderr
    return folder, contrastive("verify", str(folder / "first"), "--out", str(folder / "second"), **runs)


def test_a_report_made_again_is_identical(verified):
    folder, done = verified
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^identical +linear_accuracy@200: [\d.]+ %$", done.stdout, re.M)
    assert re.search(r"^\d\d identical, 0 within spread, 0 OFF$", done.stdout, re.M)
    assert not list((folder / "runs").glob("verify-*/*"))  # removed in the end
    assert len(list((folder / "runs").glob("*/encoder.safetensors"))) == 1


def timeless_results(path):
    results = read_json(path)
    for name in ("seconds", "provenance"):
        results.pop(name)
    return results


def timeless_page(path):
    """A page without times, rates and provenance."""
    page = path.read_text()
    page = re.sub(r"(?s)<table class=\"record (seconds|provenance)\">.*?</table>", "", page)
    page = re.sub(r"\[\d+:\d\d(&lt;|<)\d+:\d\d.*?\]", "", page)
    return re.sub(r"(?s)# Parameters.*?</pre>", "", page)  # what was asked for: here also what `auto` had meant


def test_its_results_and_page_are_the_same_apart_from_times(verified):
    folder, _ = verified
    a, b = (timeless_results(folder / name / "results.json") for name in ("first", "second"))
    assert a == b
    a, b = (timeless_page(folder / name / "02_linear_eval.html").splitlines() for name in ("first", "second"))
    assert [(x, y) for x, y in zip(a, b, strict=True) if x != y] == []
    assert "data:image/png" in "".join(a)


def test_a_number_that_is_off_gives_exit_1(verified, tmp_path):
    folder, _ = verified
    results = read_json(folder / "first" / "results.json")
    results["metrics"]["linear_accuracy@200"] |= {"mean": 12.0, "values": [12.0]}
    (tmp_path / "r").mkdir()
    write_json(tmp_path / "r" / "results.json", results)
    done = contrastive(
        "verify", str(tmp_path / "r"), "--out", str(tmp_path / "s"), CONTRASTIVE_RUNS=str(tmp_path / "runs")
    )
    assert done.returncode == 1
    assert re.search(r"^OFF +linear_accuracy@200: 12.00 % -> [\d.]+ % \(allowed: .*\)$", done.stdout, re.M)
    assert "1 OFF" in done.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no report"),
        (b"{}", "damaged"),
        (b"\xff", "damaged"),
        ({"status": "ok"}, "no numbers"),
        ({"metrics": {"a": 1}, "notebooks": [], "settings": {"preset": "smoke"}}, "no numbers"),
        ({"preset": "<x>"}, "unknown preset"),
        ({"preset": "smoke", "epochs": "many"}, "epochs"),
        ({"preset": "smoke", "dataset": "/etc"}, "missing"),
        ({"notebooks": ["../x"]}, "unknown notebook"),
        ({"metrics": {"a@x": {"mean": 1.0, "std": 0.0, "n_seeds": 1, "values": [1.0]}}}, "no numbers"),
        ({"metrics": {"a": {"mean": "1", "std": 0.0, "n_seeds": 1, "values": [1.0]}}}, "no numbers"),
    ],
)
def test_what_cannot_be_verified_is_one_line(tmp_path, content, said):
    path = tmp_path / "r" / "results.json"
    path.parent.mkdir()
    if isinstance(content, dict):
        settings = {name: value for name, value in content.items() if name in Settings.model_fields}
        content = {name: value for name, value in content.items() if name not in settings}
        whole = results({"a": metric(1.0)}, notebooks=[])
        whole["settings"] |= {"preset": "smoke", "ablation_labels": 300} | settings
        write_json(path, {"status": "ok"} if content == {"status": "ok"} else whole | content)
    elif content is not None:
        path.write_bytes(content)
    done = contrastive(
        "verify", str(tmp_path / "r"), "--out", str(tmp_path / "s"), CONTRASTIVE_RUNS=str(tmp_path / "runs")
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def results(metrics, **more):
    dataset = {"name": "x", "sha256": "y", "pretrain": 1, "train": 2, "validation": 400, "test": 10_000}
    return {"metrics": metrics, "dataset": dataset, "settings": {"ablation_labels": 1000}} | more


def metric(*values):
    mean = sum(values) / len(values)
    std = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": mean, "std": std, "n_seeds": len(values), "values": list(values)}


def test_verdicts():
    old = results({"a_accuracy@100": metric(90.0), "alignment": metric(1.0), "b": metric(50.0)})
    new = results({"a_accuracy@100": metric(92.0), "alignment": metric(1.2)})
    verdicts = {said.partition(":")[0]: verdict for verdict, said in compare(old, new)}
    assert verdicts["a_accuracy@100"] == "within spread"
    assert verdicts["alignment"] == verdicts["b"] == "OFF"
    assert verdicts["dataset sha256"] == "identical"
    new["dataset"] = new["dataset"] | {"sha256": "z"}
    new["checks"] = [{"name": "c", "passed": False}]
    old["checks"] = [{"name": "c", "passed": True}]
    verdicts = [said for verdict, said in compare(old, new) if verdict == "OFF"]
    assert "dataset sha256: y -> z" in verdicts
    assert "check 'c' had passed" in verdicts


def test_spread_is_that_of_seeds_or_of_sampling():
    assert spread("x_accuracy@100", metric(90.0), 10_000, 100) == pytest.approx(2 * 3.0)  # sqrt(0.9 * 0.1 / 100)
    assert spread("x_accuracy@60000", metric(99.0), 10_000, 60_000) == pytest.approx(2 * standard_error(99.0, 10_000))
    assert spread("x_accuracy@100", metric(89.0, 90.0, 91.0), 10_000, 100) == pytest.approx(2.0)
    assert spread("effective_rank", metric(50.0), 10_000, None) == pytest.approx(50 * SHARE)
    assert spread("effective_rank", metric(40.0, 60.0), 10_000, None) == pytest.approx(2 * 200**0.5)
    # One seed of three may choose another penalty
    assert spread("calibration_error@600", metric(4.0), 10_000, 600) == STEP
    assert spread("calibration_error@600", metric(4.0, 4.1, 4.2), 10_000, 600) == STEP / 3
    assert spread("calibration_error@600", metric(4.0, 14.0), 10_000, 600) == pytest.approx(2 * 50**0.5)


@pytest.mark.parametrize(("threads", "precision"), [(1, "float32"), (1, "bfloat16"), (2, "bfloat16")])
def test_other_threads_and_precisions_agree_within_the_spread(fresh_runs, monkeypatch, threads, precision):
    before = torch.get_num_threads()
    settings = resolve(Settings(preset="smoke", budgets=(100, 600), precision="float32"))

    def measure(settings, name):
        monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs / name))
        return aggregate([evaluate(pretrain(settings, progress=False), progress=False)])

    try:
        torch.set_num_threads(2)
        first = measure(settings, "first")
        torch.set_num_threads(threads)
        second = measure(settings.but(precision=precision), "second")
    finally:
        torch.set_num_threads(before)
    dataset = {"test": 360, "validation": 280}
    old = {"metrics": first, "dataset": dataset, "settings": {"ablation_labels": 300}}
    assert [said for verdict, said in compare(old, {"metrics": second, "dataset": dataset}) if verdict == "OFF"] == []
    json.dumps(second)


def test_transfer_is_measured_on_the_other_test_images():
    results = {
        "dataset": {"test": 10_000, "validation": 5000, "transfer_test": 360},
        "settings": {"ablation_labels": 1000},
    }
    assert measured_on("linear_accuracy[transfer]", results) == (360, None)
    assert measured_on("linear_accuracy[shear]", results) == (10_000, None)
    assert measured_on("linear_accuracy@600", results) == (10_000, 600)
    assert measured_on("validation_accuracy[head: mlp]", results) == (5000, 1000)
    assert measured_on("untrained_validation_accuracy[head]", results) == (5000, 1000)
