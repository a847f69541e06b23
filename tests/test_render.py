"""From a notebook to a page: typography, headings, links, answers."""

import base64

import nbformat
import pytest

from contrastive.report.render import Page, first_screen, render_page, typeset

from .conftest import NOTEBOOKS


def test_typography():
    assert typeset("90.0 % of -1.5, +2 and 2026-11-25, 2N-1") == "90.0\u00a0% of \u22121.5, +2 and 2026-11-25, 2N-1"


def test_headings_have_addresses_of_their_own():
    page = Page()
    html = page.markdown("## Results\n\n## Results\n\n## *A* `b` & c\n\n## ?")
    assert [name for _, name, _ in page.headings] == ["results", "results-2", "a-b-amp-c", "section"]
    assert html.count('class="anchor"') == 4
    page = Page()
    page.markdown("## Seed\n\n## Seed 3\n\n## Seed\n\n## Seed 2\n\n## Report")
    assert [name for _, name, _ in page.headings] == ["seed", "seed-3", "seed-2", "seed-2-2", "report-2"]


def test_links_lead_to_pages_that_the_report_has():
    source = "# T\n\n[other](02_linear_eval.ipynb) and [third](03_ablations.ipynb)"
    cells = [nbformat.v4.new_markdown_cell("# T"), nbformat.v4.new_markdown_cell(source)]
    page = render_page("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x", "02_linear_eval"])
    assert '<a href="02_linear_eval.html">other</a> and third' in page


def test_headings_that_a_cell_displays_stand_in_the_contents():
    said = nbformat.v4.new_output("display_data", {"text/markdown": "## Temperature\n\nWhich?"})
    cells = [nbformat.v4.new_markdown_cell("# A title"), nbformat.v4.new_markdown_cell("## Temperature")]
    cells.append(nbformat.v4.new_code_cell("x", outputs=[said]))
    page = render_page("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x"])
    contents = page[page.index("<summary>Contents") : page.index("<main")]
    for address in ("temperature", "temperature-2"):
        assert f'<a href="#{address}">Temperature</a>' in contents
        assert page.count(f'<h2 id="{address}">') == 1


def test_pages_of_a_report_without_an_answer_still_begin_with_their_question():
    cells = [nbformat.v4.new_markdown_cell("# A title\n\n**A question?**")]
    page = render_page("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x"])
    assert page.index("A question?") < page.index("<article")
    assert "<title>A title</title>" in page


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"labels": 50}, "50 with labels, 200 to validate, 300 to test"),
        ({"labels": 0}, "none with a label, 200 to validate, 300 to look at"),
        ({}, "2,000 with labels, 200 to validate, 300 to test"),  # as before some had none
    ],
)
def test_a_page_begins_with_how_many_images_serve_for_what(data, said):
    data = {"name": "x", "pretrain": 1000, "train": 2000, "validation": 200, "test": 300} | data
    found = first_screen("01_x", nbformat.v4.new_notebook(), {}, {"dataset": data})
    assert found["facts"]["Data"] == f"x: 1,000 images without labels to pretrain on, {said}"


def test_pictures_are_small(report):
    for name in NOTEBOOKS:
        notebook = nbformat.read(report[0] / f"{name}.ipynb", 4)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    assert len(base64.b64decode(output["data"]["image/png"])) < 120_000
