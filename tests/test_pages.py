"""Pages in headless Chromium: quiet, self-contained, usable by mouse, keyboard, finger, printer and screen reader."""

import csv
import io
import shutil
from pathlib import Path

import nbformat
import pytest
from docs.published import PUBLISHED, RECIPES

from contrastive.report.comparison import write_comparison
from contrastive.report.index import write_index
from contrastive.report.render import Page, content_policy, render_page
from contrastive.storage.files import read_json, write_json

from .conftest import NOTEBOOKS
from .test_index import results

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def site(report, tmp_path_factory):
    """A folder with every kind of page: a report's, an index, a comparison, a failed report's."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(report[0], folder / "report")
    shutil.copytree(report[0], folder / "other")
    other = read_json(folder / "other" / "results.json")
    other["settings"]["temperature"] = 0.2
    write_json(folder / "other" / "results.json", other)
    write_comparison([folder / "report", folder / "other"], folder / "comparison.html")
    cell = nbformat.v4.new_code_cell(
        "1 / 0", outputs=[nbformat.v4.new_output("error", ename="E", evalue="x", traceback=["E: x"])]
    )
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# A title\n\nA **question**?\n\n## Code"), cell]
    )
    error = {"notebook": "01_failed", "cell": "code cell 1", "error": "E: x"}
    (folder / "failed.html").write_text(render_page("01_failed", notebook, {}, [error], ["01_failed"], "some data"))
    write_index(folder)
    return folder


def pages(site):
    published = [*PUBLISHED.parent.glob("**/*.html"), PUBLISHED.parents[1] / "index.html"]
    return [*site.glob("report/*.html"), *site.glob("*.html"), *published]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_page(opened, site, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    assert len(pages(site)) >= 3 + 3 + 2 * len(RECIPES) + 2
    for path in pages(site):
        if path.parent.parent == PUBLISHED.parent and (width == 360) != (scheme == "dark"):
            continue  # a report of the same notebooks is in `site`: two of the four will do for these large ones
        page = opened(path, width, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.get_attribute("html", "lang") == "en"
        assert page.locator("h1").count() == 1
        alts = page.eval_on_selector_all("img", "images => images.map(i => i.alt)")
        assert len(set(alts)) == len(alts), path
        assert all(len(alt) > 30 for alt in alts)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        assert path.stat().st_size < (8e6 if path.stem == "02_linear_eval" else 4e6)  # with a map of photographs
        every = "all => all.map(a => a.attributes.href.value)"
        links = set(page.eval_on_selector_all("a[href]:not([href^='data:'])", every))
        ids = page.eval_on_selector_all("[id]", "all => all.map(e => '#' + e.id)")
        assert {link for link in links if link.startswith("#")} <= set(ids), path
        for link in links:
            assert link.startswith(("#", "http")) or (path.parent / link.partition("#")[0]).exists(), link
        found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found if v["impact"] in ("serious", "critical")] == []
        page.context.close()


def test_the_first_screen_answers(opened, report):
    folder = report[0]
    said = read_json(folder / "results.json")
    page = opened(folder / "02_linear_eval.html")
    first = page.locator(".first")
    text = first.inner_text().replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")
    asked, found = "Which way gets most out of few labels", said["answers"]["02_linear_eval"]
    assert asked in text
    for line in found["answer"].split("\n"):
        assert line in text
    for number in found["numbers"]:
        assert number["value"] in text
        assert number["spread"] in text
    n = said["dataset"]["validation"]
    assert f"digits: 512 images without labels to pretrain on, 1,437 with labels, {n} to validate, 360 to test" in text
    assert "base_channels 4" in text  # a setting that is not the preset's
    assert f"{len(said['checks'])} of {len(said['checks'])} passed" in text
    assert said["provenance"]["command"] in text
    box = first.bounding_box()
    assert box["y"] + box["height"] < 800
    assert first.locator("img").evaluate("i => i.complete && i.naturalWidth > 500")


def test_the_theme_is_the_systems_until_it_is_switched(opened, report):
    page = opened(report[0] / "02_linear_eval.html", color_scheme="light")
    picture = page.locator("article figure img").first
    switch, light = page.locator("#theme-switch"), picture.evaluate("i => i.currentSrc")
    assert switch.get_attribute("aria-pressed") == "false"
    switch.focus()
    page.keyboard.press("Enter")
    assert switch.get_attribute("aria-pressed") == "true"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 29)"
    page.wait_for_function("light => document.querySelector('article figure img').currentSrc !== light", arg=light)
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 24, 29)"
    switch.click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.wait_for_function("light => document.querySelector('article figure img').currentSrc === light", arg=light)


def test_code_is_folded_and_one_switch_shows_it_all(opened, report):
    page = opened(report[0] / "01_pretrain.html")
    folded, switch = page.locator("details.code"), page.locator("#code-switch")
    assert folded.count() > 5
    tags = [cell.metadata.get("tags", []) for cell in nbformat.read(report[0] / "01_pretrain.ipynb", 4).cells]
    shown = sum("show" in tag for tag in tags)  # what the page is about, such as the loss
    assert page.locator("details.code[open]").count() == shown > 0
    switch.focus()
    page.keyboard.press("Space")
    assert page.locator("details.code[open]").count() == folded.count()
    assert switch.get_attribute("aria-pressed") == "true"
    folded.first.locator("summary").click()
    page.wait_for_function("document.querySelector('#code-switch').getAttribute('aria-pressed') === 'false'")


def test_contents_lead_to_sections_and_follow_the_scroll(opened, report):
    for name in NOTEBOOKS:
        page = opened(report[0] / f"{name}.html", motion="reduce")
        titles = page.locator("nav.contents a").all_inner_texts()
        assert titles == [text.rstrip("#") for text in page.locator("article h2").all_inner_texts()]
    page = opened(report[0] / "02_linear_eval.html", motion="reduce")
    links = page.locator("nav.contents a")
    titles = links.all_inner_texts()
    links.nth(4).focus()
    page.keyboard.press("Enter")
    heading = page.locator("article h2").nth(4)
    assert 0 <= heading.bounding_box()["y"] < 200
    page.wait_for_function("document.querySelector('nav.contents [aria-current]') !== null")
    assert page.locator("nav.contents [aria-current]").inner_text() == titles[4]
    phone = opened(report[0] / "02_linear_eval.html", 360, motion="reduce")
    assert not phone.locator("nav.contents a").first.is_visible()
    phone.locator("nav.contents summary").click()
    phone.locator("nav.contents a").nth(4).click()
    assert not phone.locator("nav.contents a").first.is_visible()
    assert -5 <= phone.locator("article h2").nth(4).bounding_box()["y"] < 200


def test_the_command_can_be_copied(opened, report):
    page = opened(report[0] / "02_linear_eval.html", permissions=["clipboard-read", "clipboard-write"])
    page.locator(".facts [data-copy] button").click()
    page.get_by_text("Copied").wait_for()
    command = read_json(report[0] / "results.json")["provenance"]["command"]
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_the_numbers_of_a_figure_are_downloaded(opened, report):
    page = opened(report[0] / "02_linear_eval.html", accept_downloads=True)
    with page.expect_download() as waiting:
        page.locator('a[download="label_budget_curve.csv"]').click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text())))
    metrics = read_json(report[0] / "results.json")["metrics"]
    ours = {int(r["labels"]): float(r["percent"]) for r in rows if r["what"] == "pretrained, frozen + linear"}
    assert ours == {n: pytest.approx(metrics[f"linear_accuracy@{n}"]["mean"], abs=1e-3) for n in (50, 200)}


def test_without_scripts_nothing_is_missing(opened, site):
    page = opened(site / "report" / "02_linear_eval.html", script=False)
    assert page.locator(".explorer .static img").is_visible()
    assert page.locator(".first .answer").is_visible()
    assert not page.locator("#theme-switch").is_visible()
    page.locator("details.code summary").first.click()
    assert page.locator("details.code pre").first.is_visible()
    index = opened(site / "index.html", script=False)
    assert index.locator("tbody tr").count() == 2
    assert not index.locator("form").is_visible()


def test_on_paper(opened, report):
    page = opened(report[0] / "02_linear_eval.html", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    picture = page.locator("article figure img").first
    assert picture.evaluate("i => i.currentSrc") == picture.get_attribute("src")
    page.emulate_media(media="screen", color_scheme="dark")
    page.locator("#theme-switch").click()  # light
    page.locator("#theme-switch").click()  # and dark, remembered
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert picture.evaluate("i => i.currentSrc") != picture.get_attribute("src")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # what a real print begins with
    assert picture.evaluate("i => i.currentSrc") == picture.get_attribute("src")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in (".bar", "nav.contents", ".explorer .live", "details.code", ".first button"):
        assert not page.locator(hidden).first.is_visible(), hidden
    for shown in (".first .answer", ".explorer .static img", "table.record.provenance"):
        assert page.locator(shown).first.is_visible(), shown
    assert picture.evaluate("i => i.currentSrc") == picture.get_attribute("src")
    assert page.pdf()[:4] == b"%PDF"


def test_formulas_are_shown_without_a_script(opened, report):
    page = opened(report[0] / "01_pretrain.html", script=False)
    formula = page.locator('math[display="block"]')
    assert formula.locator("mfrac").count() == 1
    assert formula.bounding_box()["height"] > 30
    assert "\\frac" not in page.locator("article").inner_text()
    assert "<code>\\frac{</code>" in Page().markdown("$\\frac{$")


def test_scripts_that_are_not_ours_do_not_run(browser, tmp_path):
    attack = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2' alt='x'><p>end</p>"
    outputs = [nbformat.v4.new_output("display_data", {"text/html": attack})]
    cells = [nbformat.v4.new_markdown_cell(f"# Title\n\n{attack}"), nbformat.v4.new_code_cell("x", outputs=outputs)]
    path = tmp_path / "page.html"
    path.write_text(render_page("01_x", nbformat.v4.new_notebook(cells=cells), {}, [], ["01_x"]))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.get_by_text("end").count() == 2
    assert page.evaluate("window.pwned") is None
    assert page.locator("#theme-switch").is_visible()  # ours did
    page.close()
    assert "script-src 'none'" in content_policy()


def test_an_index_of_500_sorts_and_filters(opened, tmp_path):
    for i in range(500):
        folder = tmp_path / f"run-{i:03}"
        folder.mkdir()
        data = "mnist" if i % 5 else "digits"
        write_json(
            folder / "results.json", {**results(epochs=i + 1, linear=90 + i % 97 / 10), "dataset": {"name": data}}
        )
    page = opened(write_index(tmp_path))
    rows, count = page.locator("tbody tr:visible"), page.locator("#count")
    assert count.inner_text() == "500 of 500 reports"
    button = page.get_by_role("button", name="epochs")
    button.focus()
    page.keyboard.press("Enter")
    assert rows.first.locator("th").inner_text().startswith("run-499")
    assert page.locator('th[aria-sort="descending"]').inner_text().startswith("epochs")
    button.click()
    assert rows.first.locator("th").inner_text().startswith("run-000")
    page.locator("#data").select_option("digits")
    assert (rows.count(), count.inner_text()) == (100, "100 of 500 reports")
    page.locator("#search").fill("run-12 digits")
    assert (rows.count(), count.inner_text()) == (2, "2 of 500 reports")
    page.locator("#search").fill("nothing like it")
    assert count.inner_text() == "0 of 500 reports"
