"""What a notebook records: readable for people, and the same as JSON for the runner."""

import sys

import nbformat
import pytest

from contrastive.evaluation import check
from contrastive.report.recording import MIME, _as_html, collect, conclude, record
from contrastive.report.render import render_page

from .test_tables import metric


@pytest.fixture
def displayed(monkeypatch):
    """What was displayed last."""
    shown = {}
    monkeypatch.setattr(sys.modules[record.__module__], "display", lambda data, raw: shown.update(data))
    return shown


def notebook_of(*fragments):
    outputs = [nbformat.v4.new_output("display_data", {MIME: fragment, "text/html": ""}) for fragment in fragments]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output]) for output in outputs])


def test_a_record_is_text_for_people_and_json_for_the_runner(displayed):
    fragment = {"metrics": {"linear_accuracy@100": metric(90.0, 0.5, 2)}}
    record(**fragment)
    assert "90.00 ± 0.50 %" in displayed["text/plain"]
    assert displayed[MIME] == fragment
    with pytest.raises(ValueError, match="JSON"):
        record(metrics={"x": float("nan")})


def test_fragments_of_a_notebook_are_put_together():
    failed = check("b", False, 2, "1")
    first, again = {"checks": [check("a", True, 1, "1")], "x": {"b": 1}}, {"x": {"c": 2}, "checks": [failed]}
    assert collect(notebook_of(first, again, again)) == {
        "checks": [{"name": "a", "passed": True, "seen": 1, "expected": "1"}, failed],
        "x": {"b": 1, "c": 2},
    }


def test_long_tables_are_folded_and_short_of_digits():
    shown = _as_html({"comparisons": {"a - b": {"points": 1.23456789, "low": -1, "high": 3.0}}})
    assert shown.startswith("<details><summary>All differences")
    assert "points 1.235, low -1, high 3" in shown
    for n, folded in ((30, False), (31, True)):
        shown = _as_html({"metrics": {f"knn_accuracy_k{k}": metric(90.0) for k in range(n)}})
        assert shown.startswith(f"<details><summary>All {n} metrics") == folded


def test_histories_and_measurements_are_counted_not_printed():
    epochs = [{"epoch": i, "loss": 1.0} for i in range(3)]
    shown = _as_html({"history": {"seed 0": epochs}, "table": {"columns": ["arm"], "rows": [["linear"], ["knn"]]}})
    assert "3 epochs, in results.json" in shown
    assert "2, in results.json" in shown
    assert "linear" not in shown


def test_an_answer_is_shown_and_recorded(displayed):
    conclude("01_x", "It helps.", [("90 %", "± 1", "accuracy")], "one seed", "curve", "ten images")
    assert "It helps." in displayed["text/plain"]
    notebook = notebook_of(displayed[MIME])
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# A title"))
    page = render_page("01_x", notebook, {}, [], ["01_x"])
    first = page[page.index('class="first"') : page.index("<article")]
    for text in ("It helps.", "90\N{NO-BREAK SPACE}%", "± 1", "accuracy", "one seed", "ten images"):
        assert text in first
