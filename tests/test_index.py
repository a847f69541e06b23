"""The index of reports: what it lists, in which order, and that strangers' files do not harm it."""

import math
import re
import shutil
import subprocess

import pytest
from docs.markdown import ROOT
from docs.published import PUBLISHED

from contrastive.report.index import EDGE, HEIGHT, WIDTH, sparkline, write_index
from contrastive.storage.files import write_json

LARGE = {"status": "\ud800", "settings": {"n_images": 1, "epochs": 1}, "notebooks": ["a" * 300], "seconds": {}}
LARGE["seconds"]["total"] = 10**400


def test_the_index_survives_strangers(tmp_path):
    for name, text in {"a<script>": "{}", "b": "no json", "c": '{"status": []}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(text)
    for name, data in {
        "d\u202e\nd": {"status": "ok"},
        "e": {"status": "ok", "settings": 5, "notebooks": {}},
        "f": LARGE,
    }.items():
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", data)
    page = write_index(tmp_path).read_text()
    assert page.count('class="damaged"') == 6
    assert "a<script>" not in page
    assert "\u202e" not in page


def metric(mean):
    return {"mean": mean, "std": 0.0, "n_seeds": 1, "values": [mean]}


def results(end="2026-01-01T00:00:00+00:00", epochs=15, linear=98.0):
    arms = {"linear": linear, "random_encoder": 90.0, "supervised": 80.0}
    return {
        "status": "ok",
        "settings": {"n_images": 5000, "epochs": epochs, "method": "simclr", "encoder": "cnn"},
        "dataset": {"name": "mnist"},
        "metrics": {f"{arm}_accuracy@{n}": metric(v - 5000 / n) for arm, v in arms.items() for n in (500, 5000)},
        "headline_labels": 5000,
        "seconds": {"total": 90.0},
        "notebooks": ["01_pretrain"],
        "provenance": {"end": end},
    }


def test_a_row_has_the_metric_that_its_report_leads_with(tmp_path):
    own = results()
    for arm, mean in (("linear", 71.5), ("supervised", 60.0), ("supervised_plain", 65.5)):
        own["metrics"][f"{arm}_balanced_accuracy@5000"] = metric(mean)
    own |= {"headline_metric": "balanced_accuracy", "answers": {"01_pretrain": {"answer": "No: nothing.\nThe rest."}}}
    (tmp_path / "a").mkdir()
    write_json(tmp_path / "a" / "results.json", own)
    page = write_index(tmp_path).read_text()
    assert "71.50 %" in page
    assert "65.50 %" in page  # of the networks from scratch the better one
    assert "97.00 %" not in page
    assert "No: nothing. The rest." in page


def test_the_newest_report_comes_first_whatever_the_files_dates(tmp_path):
    for name, end in {"b": "2026-03-01", "a": "2026-02-01", "c": "2026-04-01"}.items():
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", results(end))
    page = write_index(tmp_path).read_text()
    assert re.findall(r'<th scope="row" data-sort="(\w)"', page) == ["c", "b", "a"]


def test_only_pages_that_are_there_are_linked(tmp_path):
    (tmp_path / "r" / "s").mkdir(parents=True)
    write_json(tmp_path / "r" / "s" / "results.json", results())
    assert "<a " not in write_index(tmp_path).read_text()
    (tmp_path / "r" / "s" / "01_pretrain.html").touch()
    assert '<a href="r/s/01_pretrain.html">01_pretrain</a>' in write_index(tmp_path).read_text()


def test_a_row_tells_method_and_encoder_where_the_report_does(tmp_path):
    for name, chosen in {"new": {"method": "byol", "encoder": "resnet18"}, "old": {}}.items():
        (tmp_path / name).mkdir()
        kept = {"settings": {"n_images": 5000, "epochs": 15, **chosen}}
        write_json(tmp_path / name / "results.json", results() | kept)
    page = write_index(tmp_path).read_text()
    assert page.count(">byol, resnet18</td>") == page.count(">–, –</td>") == 1


@pytest.mark.parametrize(("seconds", "minutes"), [({}, "1.5"), ({"pretrain": 600.0, "evaluate": 60.0}, "11.0")])
def test_a_report_of_finished_runs_tells_what_they_took(seconds, minutes, tmp_path):
    (tmp_path / "r").mkdir()
    write_json(tmp_path / "r" / "results.json", results() | {"seconds": {"total": 90.0, **seconds}})
    assert f">{minutes}</td>" in write_index(tmp_path).read_text()


def test_the_small_picture_shows_the_curves():
    lines = sparkline(results()["metrics"])
    points = {arm: [tuple(map(float, p.split(","))) for p in line.split()] for arm, line in lines.items()}
    errors = {"linear": (12, 3), "random_encoder": (20, 11), "supervised": (30, 21)}
    low, high = math.log(3), math.log(30)
    for arm, values in errors.items():
        for (x, y), error, place in zip(points[arm], values, (0, 1), strict=True):
            assert x == pytest.approx(EDGE + place * (WIDTH - 2 * EDGE), abs=0.1)
            height = EDGE + (1 - (math.log(error) - low) / (high - low)) * (HEIGHT - 2 * EDGE)
            assert y == pytest.approx(height, abs=0.1)


def test_the_committed_index_is_that_of_the_published_reports(tmp_path):
    # As git has it: any report that is made here rewrites the file.
    command = ["git", "-C", str(ROOT), "show", ":reports/index.html"]
    committed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    shutil.copytree(PUBLISHED.parent, tmp_path / "published")
    assert write_index(tmp_path).read_text() == committed, "run `make readme`, then `git add reports`"


def test_an_empty_index_says_what_to_do(tmp_path):
    assert "make report" in write_index(tmp_path).read_text()
