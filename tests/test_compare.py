"""Comparing reports: the right numbers, the right uncertainty, and one line for what cannot be compared."""

import copy
import json
import math
import re
import webbrowser

import pytest

from contrastive.__main__ import main
from contrastive.report.comparison import comparison_page, short_names, training_curves, write_comparison
from contrastive.report.report_differences import Report, differences, headline, interval_95, interval_of
from contrastive.settings import METHODS, UserError
from contrastive.storage.files import write_json


def metric(*values):
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)
    return {"mean": mean, "std": variance**0.5, "n_seeds": len(values), "values": list(values)}


RESULTS = {
    "status": "ok",
    "settings": {
        "preset": "quick", "method": "simclr", "epochs": 15, "temperature": 0.5, "n_images": 5000,
        "ablation_labels": 1000,
    },
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
    changes = {"linear_accuracy__30000": metric(99.0), "linear_accuracy__100": metric(88.0)}
    found = differences(first, Report("other", changed(**changes, knn_accuracy=metric(98.1)), {}))
    headline = found["linear_accuracy@30000"]
    # binomial proportions of 10,000 images and, for the seeds that were not tried, of as many as there were labels
    assert headline.value == pytest.approx(0.5)
    assert headline.interval == pytest.approx(
        196 * math.sqrt((0.985 * 0.015 + 0.99 * 0.01) * (1 / 10_000 + 1 / 30_000))
    )
    assert headline.beyond_noise
    assert not found["linear_accuracy@100"].beyond_noise  # two points, but of 100 labels
    assert not found["knn_accuracy"].beyond_noise
    assert found["effective_rank"].interval is None  # one seed


def test_with_several_seeds_the_interval_is_welchs():
    from scipy.stats import ttest_ind

    a, b = (400.0, 410.0, 405.0), (420.0, 425.0, 419.0, 440.0)
    found = interval_95("effective_rank", [(RESULTS, metric(*a)), (RESULTS, metric(*b))])
    low, high = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((high - low) / 2)
    # an accuracy has that of its images in addition
    accuracies = [(RESULTS, metric(95.0, 96.0, 97.0)), (RESULTS, metric(95.0, 96.0, 97.0))]
    assert interval_95("validation_accuracy[base]", accuracies) > 196 * math.sqrt(2 * (0.96 * 0.04 / 5000 + 1e-4 / 3))
    # a calibration error is no share of images, so one seed says nothing of its spread
    one, three = (RESULTS, metric(4.0)), (RESULTS, metric(400.0, 410.0, 405.0))
    assert interval_95("calibration_error@600", [one, one]) is None
    other = (RESULTS, metric(420.0, 425.0, 419.0, 440.0))
    assert interval_95("calibration_error@600", [three, other]) == pytest.approx(found)


def test_where_a_report_gives_an_interval_it_counts_that_and_not_the_number_of_images():
    """As from cross-validation of groups: 300 images of 12 patients, say."""
    wide = {"mean": 90.0, "low": 70.0, "high": 98.0}
    results = {**RESULTS, "intervals": {"linear_accuracy@100": wide}}
    name = "linear_accuracy@100"
    found = interval_95(name, [(results, metric(90.0, 90.0)), (results, metric(80.0, 80.0))])
    assert found == pytest.approx(math.sqrt(2) * 14.0)
    # Of one seed another could have had other labels, too
    one = interval_95(name, [(results, metric(90.0)), (results, metric(90.0, 90.0))])
    assert one == pytest.approx(math.sqrt(2 * 14.0**2 + 196**2 * 0.09 / 100))
    assert interval_95("linear_macro_auc@100", [(results, metric(90.0))] * 2) is None
    assert interval_of(Report("a", results, {}), name) == wide


def test_of_older_reports_intervals_are_of_images_and_seeds():
    older = interval_of(Report("a", RESULTS, {}), "linear_accuracy@100")
    assert (older["high"] - 90, 90 - older["low"]) == pytest.approx([1.96 * 0.3] * 2)
    several = interval_of(
        Report("a", changed(linear_accuracy__100=metric(89.0, 90.0, 91.0)), {}), "linear_accuracy@100"
    )
    of_seeds = 4.303 / math.sqrt(3)  # Student's t with 2 degrees of freedom
    assert several["high"] - 90 == pytest.approx(math.hypot(1.96 * 0.3, of_seeds), rel=1e-3)


def test_it_leads_with_what_the_first_report_leads_with():
    uneven = changed(linear_balanced_accuracy__30000=metric(97.0))
    uneven["headline_metric"] = "balanced_accuracy"
    uneven["intervals"] = {"linear_balanced_accuracy@30000": {"mean": 97.0, "low": 91.0, "high": 99.0}}
    reports = [Report(name, uneven, {}) for name in ("first", "other")]
    assert headline(reports[0]) == "linear_balanced_accuracy@30000"
    page = comparison_page(reports)
    assert "91.0 to 99.0" in page
    assert "first: 97.0 % with 30,000 labels" in page
    assert headline(Report("old", RESULTS, {})) == "linear_accuracy@30000"


def test_numbers_that_did_not_change_are_not_counted():
    page = comparison_page(
        [Report("first", RESULTS, {}), Report("other", changed(linear_accuracy__30000=metric(99.0)), {})]
    )
    assert "Of the 1 numbers that differ and can be judged, 1 differ by more than noise." in page


def test_a_page_tells_what_differs():
    page = comparison_page(
        [Report("first", RESULTS, {}), Report("other", changed(linear_accuracy__30000=metric(99.0)), {})]
    )
    text = re.sub(r"<[^>]+>", " ", page[page.index("<main") :])
    assert re.search(r"temperature\s+0\.5\s+0\.2", text)
    assert "epochs" not in text[text.index("what differs") : text.index("Numbers")]
    assert "other +0.50 ± 0.36 (more than noise)" in text
    assert "<strong>+0.50 ± 0.36</strong>" in page
    assert "Which data" not in page


def test_other_data_are_told():
    other = changed()
    other["dataset"] = {**RESULTS["dataset"], "sha256": "c" * 64}
    page = comparison_page([Report("first", RESULTS, {}), Report("other", other, {})])
    assert "not on the same data" in page
    assert "differ by more than noise" not in page


LABEL = METHODS["simclr"].LOG["top1"].label


def trained(method="simclr", logged="top1", run="seed 0"):
    """Results with the history of a training."""
    results = changed()
    results["settings"]["method"] = method
    epochs = [{"epoch": i, "loss": 5.0 - i, logged: i / 4, "chance_loss": 6.25, "seconds": 1.0} for i in (1, 2, 3)]
    return {**results, "history": {run: epochs}}


def test_training_curves_are_taken_from_the_history_in_the_results(reports):
    write_json(reports / "a" / "results.json", trained())
    page = write_comparison([reports / "a", reports / "b"], reports / "page.html").read_text()
    assert f"a: from 4.00 to 2.00, {LABEL} 75 % of anchors. Its chance level is 6.25." in page
    assert "Without a history of their training: b." in page
    write_json(reports / "b" / "results.json", trained())
    page = write_comparison([reports / "a", reports / "b"], reports / "page.html").read_text()
    assert f"b: from 4.00 to 2.00, {LABEL} 75 %" in page
    assert "Without a history" not in page


@pytest.mark.parametrize("method", ["mocov2", "no longer installed"])
def test_of_different_methods_the_loss_is_what_is_compared(method):
    results = {"first": trained(), "other": trained(method)}
    page = comparison_page([Report(name, own, training_curves(own)) for name, own in results.items()])
    assert "other: from 4.00 to 2.00." in page
    assert LABEL not in page


def test_a_history_that_is_none_is_refused(reports):
    for epochs in (5, [{"epoch": 1}], [{"epoch": 1, "loss": "x", "top1": 0.5}]):
        write_json(reports / "a" / "results.json", {**trained(), "history": {"seed 0": epochs}})
        with pytest.raises(UserError, match="cannot be compared"):
            write_comparison([reports / "a", reports / "b"], reports / "page.html")


def test_names_tell_folders_apart(tmp_path):
    assert short_names([tmp_path / "a" / "x", tmp_path / "b" / "x"]) == ["a/x", "b/x"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert short_names([tmp_path / "läufe", tmp_path / "日本"]) == ["läufe", "日本"]
    for pair in (("a<", "a>"), ("x" * 99 + "1" + "x" * 99, "x" * 99 + "2" + "x" * 99)):
        names = short_names([tmp_path / name for name in pair])
        assert len(set(names)) == 2
        assert max(map(len, names)) < 50


@pytest.fixture
def reports(tmp_path):
    for name, results in (("a", RESULTS), ("b", changed())):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", results)
    return tmp_path


def test_the_command_line(reports, capsys):
    words = ["compare", str(reports / "a"), str(reports / "b" / "results.json"), "--out", str(reports / "p.html")]
    assert main(words) == 0
    assert capsys.readouterr().out == f"Comparison: {reports / 'p.html'}\n"
    assert "<h1" in (reports / "p.html").read_text()
    assert main([*words[:2], str(reports / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no report at")


@pytest.mark.parametrize("out", ["a/results.json", "a/page.html", "page.json", "page"])
def test_no_file_of_a_report_is_replaced(out, reports, capsys):
    before = (reports / "a" / "results.json").read_bytes()
    assert main(["compare", str(reports / "a"), str(reports / "b"), "--out", str(reports / out)]) == 2
    assert "choose a name that ends with .html, in another folder than a report's own" in capsys.readouterr().err
    assert (reports / "a" / "results.json").read_bytes() == before


@pytest.mark.parametrize("there_is_one", [True, False])
def test_the_page_is_opened_in_the_browser(there_is_one, reports, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda page: opened.append(page) or there_is_one)
    page = reports / "p.html"
    assert main(["compare", str(reports / "a"), str(reports / "b"), "--out", str(page), "--open"]) == 0
    assert opened == [page.as_uri()]
    assert ("no browser could be opened" in capsys.readouterr().err) == (not there_is_one)


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


HOSTILE = "<script>window.pwned=1</script> `x` | $y$ [z](javascript:1) <b>\u202e\ud800\n"


def test_hostile_results_are_shown_and_not_obeyed(reports):
    hostile = changed()
    hostile["settings"] = {HOSTILE: HOSTILE, "method": HOSTILE, "ablation_labels": 1000}
    hostile["metrics"] = {f"knn_accuracy[{HOSTILE}]": metric(50.0)}
    hostile["history"] = trained(run=HOSTILE)["history"]
    hostile["dataset"]["name"] = hostile["status"] = hostile["provenance"]["command"] = HOSTILE
    (reports / "<b>`c").mkdir()
    (reports / "d").mkdir()
    for name in ("<b>`c", "d"):
        write_json(reports / name / "results.json", hostile)
    page = write_comparison([reports / "<b>`c", reports / "d"], reports / "page.html").read_text()
    shown = page[page.index("<main") :]
    assert "pwned" in shown
    assert not re.search(r"<script|<b>|<math|href=\"javascript|\u202e", shown)


def test_a_name_that_no_file_system_takes_is_refused(reports):
    with pytest.raises(UserError, match="there is no report"):
        write_comparison([reports / "a", reports / ("x" * 300)], reports / "page.html")
