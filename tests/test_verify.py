"""Made again, a report has the same numbers and pages; and what differs is told from noise."""

import io
import os
import re
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch

from contrastive import Settings, load_images, pretrain, resolve
from contrastive.__main__ import main
from contrastive.evaluation import aggregate, evaluate
from contrastive.evaluation.statistics import standard_error
from contrastive.report import runner, verify
from contrastive.report.verify import SHARE, STEP, compare_results, measured_on, spread
from contrastive.settings import grids_folder, parameters
from contrastive.storage.files import read_json, write_json

SMALL = ["--preset", "smoke", "--only", "02_linear_eval", "-p", "general=none",
         "-p", "budgets=50,200", "-p", "supervised_steps=5"]  # fmt: skip


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A folder with a report, `first`, and what `verify` made of it on the same images under another name, `second`;
    the exit code and what was said."""
    folder = tmp_path_factory.mktemp("verify")
    digits = load_images("digits")
    content = {"train_images": digits.train[:, 0], "train_labels": digits.train_labels,
               "test_images": digits.test[:, 0], "test_labels": digits.test_labels}  # fmt: skip
    np.savez(folder / "images.npz", **{name: tensor.numpy() for name, tensor in content.items()})
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setenv("CONTRASTIVE_RUNS", str(folder / "runs"))
        patch.setattr(runner, "reports_root", lambda: folder / "reports")
        words = ["report", *SMALL, "--dataset", str(folder / "images.npz"), "--out", str(folder / "first")]
        assert main(words) == 0, said.getvalue()
        (folder / "images.npz").rename(folder / "photos.npz")
        words = ["verify", str(folder / "first"), "--out", str(folder / "second")]
        code = main([*words, "-p", f"dataset={folder / 'photos.npz'}"])
    return folder, code, said.getvalue()


def test_a_report_made_again_is_identical_although_its_images_have_another_name(verified):
    folder, code, said = verified
    assert code == 0, said
    assert re.search(r"^identical +linear_accuracy@200: [\d.]+ %$", said, re.M)
    assert re.search(r"^identical +dataset sha256: ", said, re.M)
    assert re.search(r"^\d\d identical, 0 within spread, 0 OFF$", said, re.M)
    assert not list((folder / "runs").glob("verify-*/*"))  # removed in the end
    assert len(list((folder / "runs").glob("*/encoder.safetensors"))) == 1
    names = [read_json(folder / name / "results.json")["dataset"]["name"] for name in ("first", "second")]
    assert names == ["images", "photos"]


def timeless_results(path):
    """Results without times and provenance, and with the data's first name."""
    kept = read_json(path)
    results = {name: part for name, part in kept.items() if name not in ("seconds", "costs", "provenance")}
    said = results["answers"]["02_linear_eval"]
    said["answer"] = re.sub(r" Computing took: [^.]*\.", "", said["answer"])
    for epoch in results["history"]["seed 0"]:
        epoch.pop("seconds")
    results["dataset"]["name"] = "images"
    results["settings"]["dataset"] = results["settings"]["dataset"].replace("photos", "images")
    return results


def timeless_page(path):
    """A page without times, rates, provenance, and pictures that name the data."""
    page = path.read_text().replace("photos", "images")
    page = re.sub(r"(?s)<table class=\"record (seconds|costs|provenance)\">.*?</table>", "", page)
    page = re.sub(r"\[\d+:\d\d(&lt;|<)\d+:\d\d.*?\]", "", page)
    page = re.sub(r"(?s)<figure(?:(?!</figure>).)*against the number of labels.*?</figure>", "", page)
    page = re.sub(r"<dt>Made</dt>.*| Computing took: [^.]*\.", "", page)
    return re.sub(r"(?s)# Parameters.*?</pre>", "", page)  # what was asked for: here also what `auto` had meant


def test_its_results_and_page_are_the_same_apart_from_times(verified):
    folder, *_ = verified
    a, b = (timeless_results(folder / name / "results.json") for name in ("first", "second"))
    assert a == b
    a, b = (timeless_page(folder / name / "02_linear_eval.html").splitlines() for name in ("first", "second"))
    assert [(x, y) for x, y in zip(a, b, strict=True) if x != y] == []
    assert "".join(a).count("data:image/png") >= 4


@pytest.fixture
def made_again(verified, tmp_path, monkeypatch, capsys):
    """A function that verifies a report with changed results, where the new one gives the unchanged. Returns the exit
    code, what was said, and the parameters that the new report was asked with."""
    truth = read_json(verified[0] / "first" / "results.json")
    truth["settings"]["dataset"] = str(verified[0] / "photos.npz")

    def ask(changes, *words, code=0):
        asked = {}

        def pretended(given, notebooks, out, timeout):
            asked.update(given)
            runner.runs_root().mkdir(parents=True, exist_ok=True)
            return code, truth

        monkeypatch.setattr(verify, "run_report", pretended)
        (tmp_path / "r").mkdir(exist_ok=True)
        results = {**truth, **changes, "settings": truth["settings"] | changes.get("settings", {})}
        write_json(tmp_path / "r" / "results.json", results)
        monkeypatch.setenv("CONTRASTIVE_RUNS", str(tmp_path / "runs"))
        code = main(["verify", str(tmp_path / "r"), *words])
        assert os.environ["CONTRASTIVE_RUNS"] == str(tmp_path / "runs")
        return code, capsys.readouterr().out, asked

    ask.metrics = truth["metrics"]
    ask.runs = tmp_path / "runs"
    return ask


def test_a_number_that_is_off_gives_exit_1(made_again):
    off = {"mean": 12.0, "std": 0.0, "n_seeds": 1, "values": [12.0]}
    code, said, _ = made_again({"metrics": made_again.metrics | {"linear_accuracy@200": off}})
    assert code == 1
    assert re.search(r"^OFF +linear_accuracy@200: 12.00 % -> [\d.]+ % \(allowed: .*\)$", said, re.M)
    assert "1 OFF" in said


def test_precision_and_device_are_this_machines_which_is_said(made_again):
    here = resolve(Settings(preset="smoke"))[0].runtime
    elsewhere = {"device": "cuda", "precision": "float32" if here.precision == "bfloat16" else "bfloat16"}
    near = {name: m | {"values": [v + 1e-9 for v in m["values"]]} for name, m in made_again.metrics.items()}
    code, said, asked = made_again({"settings": elsewhere, "metrics": near})
    assert code == 0
    assert not {"device", "precision"} & set(asked)
    assert said.startswith(
        f"The report was made with precision {elsewhere['precision']} there, {here.precision} here; "
        f"device cuda there, {here.device} here: its numbers are compared by their spread.\n"
    )
    assert f"{len(near)} within spread, 0 OFF" in said


def test_precision_and_device_are_those_that_are_asked_for(made_again):
    here = resolve(Settings(preset="smoke"))[0].runtime
    code, said, asked = made_again({}, "-p", "device=cpu", "-p", f"precision={here.precision}")
    assert code == 0
    assert (asked["device"], asked["precision"]) == ("cpu", here.precision)
    assert "there" not in said
    assert "0 within spread, 0 OFF" in said


def test_a_report_is_asked_for_in_its_own_words_where_they_mean_the_same(made_again):
    *_, asked = made_again({})
    assert set(asked) == {"preset", "dataset", "budgets", "supervised_steps", "general"}
    # What came of other settings than it had is asked for, too: all of them
    *_, asked = made_again({"settings": {"epochs": 3}})
    assert {"epochs", "n_images", "batch_size", "augment"} <= set(asked)
    assert (asked["epochs"], asked["n_images"]) == (3, 512)
    # as is what can be smaller now, although the preset has it
    *_, asked = made_again({"settings": {"n_images": 200, "batch_size": 128}})
    assert (asked["n_images"], asked["batch_size"]) == (200, 128)
    for broken in (None, 3, {"changed": 3}, {"changed": {"x": 1}}):
        assert made_again({"provenance": broken})[0] == 0


def test_what_was_trained_is_kept_when_a_signal_stops_it(made_again):
    code, said, _ = made_again({}, code=130)
    assert (code, said) == (130, "")
    assert list(made_again.runs.glob("verify-*"))
    assert made_again({})[0] == 0
    assert not list(made_again.runs.glob("verify-*"))


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
        ({"preset": "smoke", "dataset": "/gone/images"}, "there is no /gone/images"),
        ({"preset": "smoke", "dataset": str(grids_folder())}, "there are no images in"),
        ({"preset": "smoke", "method": "gone"}, "unknown method 'gone'"),
        ({"notebooks": ["../x"]}, "unknown notebook"),
        ({"metrics": {"a@x": {"mean": 1.0, "std": 0.0, "n_seeds": 1, "values": [1.0]}}}, "no numbers"),
        ({"metrics": {"a": {"mean": "1", "std": 0.0, "n_seeds": 1, "values": [1.0]}}}, "no numbers"),
        ({"settings": {"preset": "smoke", "width": 8, "ablation_labels": 300}}, "was made by older code"),
    ],
)
def test_what_cannot_be_verified_is_one_line(tmp_path, fresh_runs, capsys, content, said):
    path = tmp_path / "r" / "results.json"
    path.parent.mkdir()
    if isinstance(content, dict):
        settings = {name: value for name, value in content.items() if name in parameters()}
        content = {name: value for name, value in content.items() if name not in settings}
        whole = results({"a": metric(1.0)}, notebooks=[])
        whole["settings"] |= {"preset": "smoke", "ablation_labels": 300} | settings
        write_json(path, {"status": "ok"} if content == {"status": "ok"} else whole | content)
    elif content is not None:
        path.write_bytes(content)
    assert main(["verify", str(tmp_path / "r"), "--out", str(tmp_path / "s")]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "s").exists()
    assert not fresh_runs.exists()


def results(metrics, **more):
    dataset = {"name": "x", "sha256": "y", "pretrain": 1, "train": 2, "validation": 400, "test": 10_000}
    return {"metrics": metrics, "dataset": dataset, "settings": {"ablation_labels": 1000}} | more


def metric(*values):
    mean = sum(values) / len(values)
    std = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": mean, "std": std, "n_seeds": len(values), "values": list(values)}


def test_the_report_itself_is_not_replaced(tmp_path, fresh_runs, capsys):
    write_json(tmp_path / "results.json", results({"a": metric(1.0)}, notebooks=[]))
    before = (tmp_path / "results.json").read_bytes()
    assert main(["verify", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "is the report that is verified" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_bytes() == before


def test_digits_get_the_views_that_the_report_had():
    given = {"preset": "quick", "dataset": "digits"}
    for size, asked in ((None, {"view_size": 28}), (24, {})):
        words, resolved = verify._with_its_views({"settings": {"view_size": size}}, given, {})
        assert (words, resolved.views.view_size) == ({**given, **asked}, size)
    words, _ = verify._with_its_views({"settings": {"view_size": None}}, {**given, "view_size": 24}, {"view_size": 24})
    assert words["view_size"] == 24


def test_verdicts():
    old = results({"a_accuracy@100": metric(90.0), "alignment": metric(1.0), "b": metric(50.0)})
    new = results({"a_accuracy@100": metric(92.0), "alignment": metric(1.2)})
    verdicts = {said.partition(":")[0]: verdict for verdict, said in compare_results(old, new)}
    assert verdicts["a_accuracy@100"] == "within spread"
    assert verdicts["alignment"] == verdicts["b"] == "OFF"
    assert verdicts["dataset sha256"] == "identical"
    new["dataset"] = new["dataset"] | {"sha256": "z"}
    new["checks"] = [{"name": "c", "passed": False}]
    old["checks"] = [{"name": "c", "passed": True}]
    verdicts = [said for verdict, said in compare_results(old, new) if verdict == "OFF"]
    assert "dataset sha256: y -> z" in verdicts
    assert "check 'c' had passed" in verdicts


def test_spread_is_that_of_seeds_or_of_sampling():
    def of(name, *values):
        return spread(name, metric(*values), results({"linear_accuracy@600": metric(90.0)}))

    def apart(percent, n_labels):
        errors = [standard_error(percent, n) for n in (10_000, n_labels)]
        return 1.96 * 2**0.5 * sum(error**2 for error in errors) ** 0.5

    assert apart(90.0, 100) == pytest.approx(8.357, abs=1e-3)  # 3 points with 100 labels, 0.3 with 10,000
    assert of("x_accuracy@100", 90.0) == pytest.approx(apart(90.0, 100))
    assert of("x_accuracy@60000", 99.0) == pytest.approx(apart(99.0, 60_000))
    assert of("x_accuracy@100", 89.0, 90.0, 91.0) == pytest.approx(2.0)
    assert of("x_accuracy@100", 90.0, 90.0) == pytest.approx(1.96 * 2**0.5 * standard_error(90.0, 10_000))
    assert of("effective_rank", 50.0) == pytest.approx(50 * SHARE)
    assert of("effective_rank", 40.0, 60.0) == pytest.approx(2 * 200**0.5)
    # One seed of three may choose another penalty
    assert of("calibration_error@600", 4.0) == STEP
    assert of("calibration_error@600", 4.0, 4.1, 4.2) == STEP / 3
    assert of("calibration_error@600", 4.0, 14.0) == pytest.approx(2 * 50**0.5)
    assert of("calibration_error_scaled@600", 2.0) == pytest.approx(apart(90.0, 600))


def test_other_threads_and_precisions_agree_within_the_spread(fresh_runs, monkeypatch):
    before = torch.get_num_threads()

    def measure(threads, precision):
        monkeypatch.setenv("CONTRASTIVE_RUNS", str(fresh_runs / f"{precision}-{threads}"))
        torch.set_num_threads(threads)
        small = {
            "budgets": (200,), "base_channels": 4, "supervised_steps": 10, "n_images": 256, "batch_size": 128,
            "epochs": 3,
        }  # fmt: skip
        settings, images = resolve(Settings(preset="smoke", precision=precision, **small))
        return aggregate(evaluate(pretrain(settings, progress=False), images, progress=False).rows)

    dataset = {"test": 360, "validation": 280}
    try:
        old = {"metrics": measure(2, "float32"), "dataset": dataset, "settings": {"ablation_labels": 300}}
        for threads, precision in ((1, "float32"), (1, "bfloat16")):  # beside other tests a second thread is slow
            new = {"metrics": measure(threads, precision), "dataset": dataset}
            verdicts = compare_results(old, new)
            assert [said for verdict, said in verdicts if verdict == "OFF"] == [], (threads, precision)
    finally:
        torch.set_num_threads(before)
    assert {verdict for verdict, _ in verdicts} == {"identical", "within spread"}


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
